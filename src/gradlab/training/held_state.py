"""Cells with a state besides their carry, such as dropout, batch norm or a counter."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from gradlab.components import CallError, ConfigError, call
from gradlab.jacobian.pure_step import leaves_by_path

BATCH = 2


def check_state_is_held(cell: nnx.RNNCellBase, features: int, name: str) -> None:
    """Check that a cell changes nothing of its own in a step: its state is its carry alone.

    Nothing is computed: one step is traced. A state that is only read (a mask, the averages of a
    batch norm in eval mode) is allowed.

    Args:
        cell: the network's cell; its arrays may be abstract.
        features: size of its input.
        name: `model.cell._target_`.

    Raises:
        ConfigError: it changes a variable, or takes other arguments than a cell. What its own code
            raises is raised as it is.
    """
    definition, variables = nnx.split(cell)
    changed: list[str] = []

    def step(variables: nnx.State, inputs: Array) -> None:
        own = nnx.merge(definition, variables)
        before = leaves_by_path(nnx.state(own))
        call(own, call(own.initialize_carry, inputs.shape, nnx.Rngs(0)), inputs)
        after = leaves_by_path(nnx.state(own))
        changed.extend(path for path in after if after[path] is not before.get(path))

    try:
        jax.eval_shape(step, variables, jax.ShapeDtypeStruct((BATCH, features), jnp.float32))
    except CallError as error:
        raise ConfigError(
            f"model.cell must run on inputs of shape ({BATCH}, {features}): "
            f"{name} raises TypeError ({error})."
        ) from error
    if changed:
        owners = _owners(cell)
        named = ", ".join(f"{path} of a {_owner(path, owners)}" for path in changed)
        raise ConfigError(
            f"model.cell must have no state but its carry while it is trained: {named} changes at "
            "every step. Hold it, by self.eval() at the end of the cell's __init__, or make it a "
            "part of the carry; gradlab.jacobian_log_norms(cell.eval(), inputs) measures the cell "
            "without training."
        )


def _owners(cell: nnx.Module) -> dict[str, str]:
    """Return the class of every module in a cell, by its path."""
    return {".".join(map(str, path)): _kind(module) for path, module in nnx.iter_modules(cell)}


def _owner(path: str, owners: Mapping[str, str]) -> str:
    """Return the class of the module that a variable belongs to."""
    above = [owner for owner in owners if not owner or path.startswith(f"{owner}.")]
    return owners[max(above, key=len)]


def _kind(module: nnx.Module) -> str:
    return type(module).__name__
