"""The probes that a watcher runs: names of conf/probe/, or functions of somebody's own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradlab import records
from gradlab.__main__ import CONF
from gradlab.components import check_component
from gradlab.probes import Measurement

Probe = str | Callable[..., Measurement]
Sections = dict[str, Any]  # by name: a component, or a function

FOLDER = CONF / "probe"
OF_A_LOSS = "gradlab.probes.losses."
PARTS_H = (("of", "h"), ("wrt", "h"))


def choose_probes(
    probes: Probe | Sequence[Probe] | Mapping[str, Probe], *, has_loss: bool
) -> Sections:
    """Return the section of the config that runs these probes.

    Args:
        probes: names of conf/probe/, or functions `probe(probed, *, name) -> Measurement`, whose
            names their metrics begin with; a mapping gives them others.
        has_loss: whether there are a loss and targets.

    Raises:
        ValueError: there is no such probe, two have one name, or one needs a loss.
    """
    if isinstance(probes, str) or callable(probes):
        probes = (probes,)
    named = probes.items() if isinstance(probes, Mapping) else [(None, x) for x in probes]
    chosen: Sections = {}
    for name, probe in named:
        for section, component in _sections(name, probe).items():
            if section in chosen:
                raise ValueError(
                    f"two probes are called {section!r}: leave one out, take 'typical' beside "
                    "'spectral' for the other norm, or give a mapping from names to functions."
                )
            chosen[section] = component
    if not chosen:
        raise ValueError(f"probes must name one or more of {', '.join(_names())}.")
    for section, component in chosen.items():
        if not has_loss and _needs_loss(component):
            raise ValueError(
                f"the probe {section!r} measures the gradient of a loss: give loss=, a function "
                "loss(carry, target) of one step, and targets=, (time, …) or (batch, time, …)."
            )
    return chosen


def of_whole_carry(sections: Sections) -> Sections:
    """Return the sections for a cell whose carry has no part h: they measure all of it instead."""
    return {
        name: component
        if callable(component)
        else {k: None if (k, v) in PARTS_H else v for k, v in component.items()}
        for name, component in sections.items()
    }


def recorded(sections: Sections) -> dict[str, dict[str, Any]]:
    """Return the sections as a record has them: functions by their dotted paths."""
    return {
        name: {"_target_": f"{component.__module__}.{_function_name(component)}"}
        if callable(component)
        else component
        for name, component in sections.items()
    }


def _sections(name: str | None, probe: Any) -> Sections:
    if callable(probe):
        name = name or _function_name(probe)
        if not name.isidentifier():
            raise ValueError(
                f"a probe of your own needs a name: give probes as {{'name': {name}}}, or a "
                "function defined by def."
            )
        return {name: probe}
    if probe not in _names():
        allowed = ", ".join(_names())
        raise ValueError(
            f"probes must be names out of {allowed}, or functions (probed, *, name) -> "
            f"gradlab.probes.Measurement; got {probe!r:.80}."
        )
    sections = records.load_yaml(FOLDER / f"{probe}.yaml")
    return {
        name or section: check_component(component, f"probe.{section}")
        for section, component in sections.items()
    }


def _names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def _function_name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _needs_loss(component: Any) -> bool:
    return not callable(component) and component["_target_"].startswith(OF_A_LOSS)
