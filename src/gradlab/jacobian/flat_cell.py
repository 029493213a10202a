"""Any recurrent cell as a pure step on a flat state vector, with names for the state's parts."""

from collections.abc import Callable
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
Span = tuple[int, int]  # first and one past the last of a part's components


class FlatCell(NamedTuple):
    """A cell whose state is one vector of n numbers; `unravel` gives back the cell's own carry."""

    step: Callable[[Float[Array, "n"], Float[Array, "features"]], Float[Array, "n"]]
    initial: Float[Array, "n"]
    spans: dict[str, Span]
    unravel: Callable[[Float[Array, "n"]], PyTree]

    def span(self, name: str | None, argument: str) -> Span:
        """Components of the named part of the state; None is the whole.

        A stack's "h" is its top layer's: a name that no part has in full stands for the last part
        whose dotted path ends with it.

        Raises:
            ValueError: no part has that name.
        """
        if name is None:
            return (0, self.initial.size)
        ends = [part for part in self.spans if f".{part}".endswith(f".{name}")]
        if not ends:
            known = ", ".join(repr(part) for part in self.spans)
            raise ValueError(
                f"{argument} must be None (the whole carry) or one of {known}; got {name!r}."
            )
        # "layer10" comes after "layer9", but before it in the alphabet.
        return self.spans[name if name in self.spans else max(ends, key=lambda p: (len(p), p))]


def flatten_cell(
    cell: nnx.RNNCellBase | StepFunction, features: int, initial_carry: PyTree | None = None
) -> FlatCell:
    """See a Flax cell, or any function step(carry, x) -> (carry, y), as a step on a vector.

    Args:
        cell: the cell or function; it must take one sample, without a batch axis.
        features: number of inputs a step.
        initial_carry: the state s⁽⁰⁾ of one sample; by default the cell's own.

    Raises:
        ValueError: a plain function came without an initial carry.
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


def split_cell(
    cell: nnx.RNNCellBase | Callable, parameters: PyTree | None = None
) -> tuple[nnx.GraphDef | Callable, PyTree]:
    """A hashable definition and the arrays it works on, so that new weights do not recompile.

    With `parameters`, the cell is a function step(parameters, carry, x).
    """
    if isinstance(cell, nnx.Module):
        return nnx.split(cell)
    return cell, () if parameters is None else parameters


def join_cell(definition: nnx.GraphDef | Callable, parameters: PyTree) -> StepFunction:
    """The cell that `split_cell` took apart."""
    if isinstance(definition, nnx.GraphDef):
        return nnx.merge(definition, parameters)
    return partial(definition, parameters) if jax.tree.leaves(parameters) else definition


def split_weights(
    parameters: PyTree,
) -> tuple[dict[str, Array], Callable[[dict[str, Array]], PyTree]]:
    """The real arrays among a cell's parameters by dotted path, and how to put others in place."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(parameters)
    names = [
        keystr(path, simple=True, separator=".").removesuffix(".value") or "weights"
        for path, _ in leaves
    ]
    arrays = dict(zip(names, (leaf for _, leaf in leaves), strict=True))
    weights = {k: v for k, v in arrays.items() if jnp.issubdtype(v.dtype, jnp.floating)}

    def rebuild(others: dict[str, Array]) -> PyTree:
        return jax.tree.unflatten(structure, [(arrays | others)[name] for name in names])

    return weights, rebuild


def in_precision(tree: PyTree, dtype: Any) -> PyTree:
    """The tree with its real arrays in another precision; integers and keys stay."""

    def cast(leaf: Any) -> Any:
        kind = jnp.result_type(leaf)
        return jnp.asarray(leaf, dtype) if jnp.issubdtype(kind, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def carry_spans(carry: PyTree) -> dict[str, Span]:
    """Name the parts of a carry by where they lie in its flat vector.

    A lone array is "h" and a pair is (c, h), as in Flax's LSTM; dictionaries go by their keys,
    named tuples by their fields, longer tuples by position, nested parts by a dotted path
    ("layer0.h"), and every inner node ("layer0") by its own.
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
    """Refuse inputs that are not (time, features) or (batch, time, features).

    Raises:
        ValueError: another rank, or no time step.
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
