"""Any recurrent cell as a pure step on a flat state vector, with names for the state's parts.

`flatten_cell` does that. `split_cell` prepares a cell for `jax.jit`, whose arguments are arrays;
inside the compiled function `SplitCell.flatten` gives the flat cell.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.tree_util import keystr
from jaxtyping import Float, PyTree

StepFunction = Callable[[PyTree, Array], tuple[PyTree, Any]]
Span = tuple[int, int]  # [first, last) components of a part of the flat state


class FlatCell(NamedTuple):
    """A cell whose state is one vector of n numbers.

    Attributes:
        step: s⁽ᵗ⁾ from (s⁽ᵗ⁻¹⁾, x⁽ᵗ⁾).
        initial: s⁽⁰⁾.
        spans: the components of each part of the state, by name.
        unravel: the cell's own carry from a flat state.
    """

    step: Callable[[Float[Array, "n"], Float[Array, "features"]], Float[Array, "n"]]
    initial: Float[Array, "n"]
    spans: dict[str, Span]
    unravel: Callable[[Float[Array, "n"]], PyTree]

    def span(self, name: str | None, argument: str) -> Span:
        """Return the components of a part of the state.

        A name that is no part's full path stands for the last part whose dotted path ends with it:
        "h" is that of a stack's top layer.

        Args:
            name: the part; None for the whole state.
            argument: name of the user's argument, for the error's sentence.

        Raises:
            ValueError: no part has that name.
        """
        if name is None:
            return (0, self.initial.size)
        matches = [part for part in self.spans if f".{part}".endswith(f".{name}")]
        if not matches:
            known = ", ".join(repr(part) for part in self.spans)
            raise ValueError(
                f"{argument} must be None (the whole carry) or one of {known}; got {name!r}."
            )
        # "layer10" comes after "layer9", but before it in the alphabet.
        return self.spans[name if name in self.spans else max(matches, key=lambda p: (len(p), p))]


def flatten_cell(
    cell: nnx.RNNCellBase | StepFunction, features: int, initial_carry: PyTree | None = None
) -> FlatCell:
    """Return a Flax cell, or a function step(carry, x) -> (carry, y), as a step on a vector.

    Args:
        cell: the cell or function; it must take one sample, without a batch axis.
        features: number of inputs at each step.
        initial_carry: the state s⁽⁰⁾ of one sample; by default the cell's own.

    Raises:
        ValueError: the cell is a plain function and initial_carry is None.
    """
    if initial_carry is None:
        if not hasattr(cell, "initialize_carry"):
            raise ValueError(
                "initial_carry is needed with a plain step function: pass the state s⁽⁰⁾ as its "
                "first argument takes it."
            )
        initial_carry = cell.initialize_carry((features,), nnx.Rngs(0))
    initial, unravel = ravel_pytree(initial_carry)

    def step(state: Float[Array, "n"], x: Float[Array, "features"]) -> Float[Array, "n"]:
        carry, _ = cell(unravel(state), x)
        # A cell may promote its state (a 64-bit constant, say); the recurrence keeps its own type.
        return ravel_pytree(carry)[0].astype(state.dtype)

    return FlatCell(step, initial, carry_spans(initial_carry), unravel)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SplitCell:
    """A cell as an argument of a compiled function: new arrays do not compile it again."""

    definition: nnx.GraphDef | Callable[..., Any] = field(metadata={"static": True})
    parameters: PyTree
    initial_carry: PyTree | None

    def merge(self) -> StepFunction:
        """Return the cell that `split_cell` was given, with these parameters."""
        if isinstance(self.definition, nnx.GraphDef):
            return nnx.merge(self.definition, self.parameters)
        if jax.tree.leaves(self.parameters):
            return partial(self.definition, self.parameters)
        return self.definition

    def flatten(self, features: int) -> FlatCell:
        """Return the cell as a step on a vector; see `flatten_cell`."""
        return flatten_cell(self.merge(), features, self.initial_carry)


def split_cell(
    cell: nnx.RNNCellBase | Callable[..., Any],
    initial_carry: PyTree | None,
    parameters: PyTree | None = None,
) -> SplitCell:
    """Split a cell into a static definition and the arrays that it works on.

    Args:
        cell: a Flax cell, or step(carry, x), or with `parameters` step(parameters, carry, x).
        initial_carry: the state s⁽⁰⁾ of one sample; None for the cell's own.
        parameters: the weights of a plain function.
    """
    if isinstance(cell, nnx.Module):
        return SplitCell(*nnx.split(cell), initial_carry)
    return SplitCell(cell, () if parameters is None else parameters, initial_carry)


def split_weights(
    parameters: PyTree,
) -> tuple[dict[str, Array], Callable[[dict[str, Array]], PyTree]]:
    """Return the floating-point arrays of a cell, and a function that puts others in their place.

    Args:
        parameters: the cell's arrays, as `split_cell` or a gradient gives them.

    Returns:
        The weights by dotted path ("dense_h.kernel"; a lone array is "weights"), and
        rebuild(weights), which returns parameters with these weights.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(parameters)
    names = [
        keystr(path, simple=True, separator=".").removesuffix(".value") or "weights"
        for path, _ in leaves
    ]
    arrays = dict(zip(names, (leaf for _, leaf in leaves), strict=True))
    weights = {
        name: array for name, array in arrays.items() if jnp.issubdtype(array.dtype, jnp.floating)
    }

    def rebuild(others: dict[str, Array]) -> PyTree:
        return jax.tree.unflatten(structure, [(arrays | others)[name] for name in names])

    return weights, rebuild


def in_precision(tree: PyTree, dtype: Any) -> PyTree:
    """Return the tree with its floating-point arrays as `dtype`; integers and keys stay."""

    def cast(leaf: Any) -> Any:
        real = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jnp.asarray(leaf, dtype) if real else leaf

    return jax.tree.map(cast, tree)


def carry_spans(carry: PyTree) -> dict[str, Span]:
    """Return the name of each part of a carry, and where it lies in the flat vector.

    A lone array is "h" and a pair is (c, h), as in Flax's LSTM. Parts of a dictionary are named by
    their keys, of a named tuple by its fields, of a longer tuple by position. Nested parts have
    dotted paths ("layer0.h"), and so have the nodes above them ("layer0").
    """
    spans: dict[str, Span] = {}

    def visit(node: PyTree, path: str, start: int) -> int:
        children = _children(node)
        end = start
        for name, child in children:
            end = visit(child, f"{path}.{name}" if path else name, end)
        if not children:
            end = start + jnp.size(node)
        if path:
            spans[path] = (start, end)
        return end

    visit({"h": carry} if not _children(carry) else carry, "", 0)
    return spans


def _children(node: PyTree) -> list[tuple[str, PyTree]]:
    if isinstance(node, dict):
        return [(str(key), node[key]) for key in sorted(node)]
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return list(zip(node._fields, node, strict=True))
    if isinstance(node, tuple | list):
        names = ["c", "h"] if len(node) == 2 else [str(i) for i in range(len(node))]
        return list(zip(names, node, strict=True))
    return []


def check_inputs(inputs: Array) -> None:
    """Check that inputs are (time, features) or (batch, time, features).

    Raises:
        ValueError: they have another rank, or no time step.
    """
    if jnp.ndim(inputs) not in (2, 3):
        raise ValueError(
            "inputs must be (time, features) or (batch, time, features); "
            f"got an array of shape {jnp.shape(inputs)}."
        )
    if jnp.shape(inputs)[-2] < 1:
        raise ValueError(
            f"inputs must have at least one time step; got an array of shape {jnp.shape(inputs)}."
        )
