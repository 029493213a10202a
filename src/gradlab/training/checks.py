"""Checks of the parts that a program is built of, beside those that stand with a part itself."""

from collections.abc import Mapping
from typing import Any

import optax

from gradlab.components import ConfigError
from gradlab.config import PROBE_SETTINGS
from gradlab.jacobian.carry import CarryForm
from gradlab.tasks import Task


def check_rule(section: str, rule: Any) -> None:
    """Check that an optimiser or a clipping rule is one.

    Raises:
        ConfigError: it is none.
    """
    is_rule = isinstance(rule, optax.GradientTransformation)
    if not is_rule and not (section == "clip" and callable(rule)):
        also = ", or a function of the adjoint" if section == "clip" else ""
        raise ConfigError(
            f"{section}._target_ must return an optax.GradientTransformation{also}; it returned a "
            f"{type(rule).__name__}."
        )


def check_probe(probe: Mapping[str, Any], form: CarryForm, task: Task) -> None:
    """Check the probes' parts of the carry, and their stride.

    Raises:
        ConfigError: the carry has no such part, or the task not as many steps.
    """
    for name, component in probe.items():
        for end in ("of", "wrt"):
            if name not in PROBE_SETTINGS and end in component:
                try:
                    form.span(component[end], f"probe.{name}.{end}")
                except ValueError as error:
                    raise ConfigError(str(error)) from error
    length = task.test.inputs.shape[1]
    if probe["stride"] > length:
        raise ConfigError(
            f"probe.stride must be at most the task's {length} steps; got {probe['stride']}."
        )
