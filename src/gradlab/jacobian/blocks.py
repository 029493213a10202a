"""Maps of networks whose state falls into independent parts, at the cost of these parts.

The step Jacobians of an elementwise recurrence (minGRU, IndRNN, LRU) are diagonal, or
block-diagonal up to a permutation of the components; and in a stack, ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ of the top layer
does not go through those below. Which components matter, and which of them move each other, is read
off the step's operations (structure.py). One tangent for each place in a block then gives all
blocks of a step, since columns of different blocks share no row (Curtis, Powell & Reid 1974). One
more, with a number of its own for every component, checks each step of the trajectory.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from gradlab.jacobian.arguments import check_memory
from gradlab.jacobian.block_maps import Blocks, Group, block_map
from gradlab.jacobian.carry import FlatState, Span
from gradlab.jacobian.closure import Closure, closure_convert
from gradlab.jacobian.flat_cell import FlatCell
from gradlab.jacobian.pairs import Norm
from gradlab.jacobian.steps import trajectory
from gradlab.jacobian.structure import Moving, dependence

SMALLEST, LARGEST = 16, 2**14  # states: of fewer components all is cheap, of more the search is not
SHARE = 0.5  # of the work of products of the whole Jacobian, from which blocks are not worth it
BLOCK_COPIES, MAP_COPIES = 12, 4  # in memory at once
TOLERANCE = 1e-3  # of the check of a step: of its terms and of the largest ones of all steps

Groups = list[Group]  # by size


def block_log_norms(
    flat: FlatCell,
    inputs: Float[Array, "*batch T features"],
    *,
    norm: Norm,
    of: Span,
    wrt: Span,
    stride: int = 1,
    memory_budget: float = np.inf,
) -> Float[Array, "*batch T//stride+1 T//stride+1"] | None:
    """Return the map of `jacobian_log_norms` of a state that falls into small independent parts.

    Args:
        flat: the cell.
        inputs: (time, features) or (batch, time, features).
        norm: "spectral", "frobenius" or "rms".
        of, wrt: rows and columns of the product that are measured.
        stride: measure every stride-th t and k only.
        memory_budget: bytes that the work arrays may take.

    Returns:
        float32, [..., t, k] in strides; None where the parts are not much smaller than the state,
        or a step does not have the parts that were found, or a state is not finite; and under an
        outer transformation of JAX's, which knows no values.

    Raises:
        ValueError: the work arrays do not fit.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((flat, inputs))):
        return None
    found = _find(flat, inputs, of, wrt)
    if found is None:
        return None
    groups, image = found
    check_memory(
        _bytes(groups, inputs.shape, stride), memory_budget, inputs.shape[-2], flat.form.size
    )
    tangents = _tangents(groups, flat.form.size)
    maps = []
    for cell, sample in _samples(flat, inputs):
        images, is_finite = _images(cell, image, sample, tangents.astype(cell.initial.vector.dtype))
        blocks = _checked_blocks(images, tangents, groups)
        if blocks is None or not is_finite:
            return None
        maps.append(
            block_map(blocks, groups, len(sample), norm=norm, of=of, wrt=wrt, stride=stride)
        )
    return jnp.asarray(np.stack(maps) if flat.has_batch else maps[0])


def falls_into_blocks(
    flat: FlatCell, inputs: Float[Array, "*batch T features"], of: Span, wrt: Span
) -> bool:
    """Return whether a state falls into small independent parts; those of a step may still mix."""
    return _find(flat, inputs, of, wrt) is not None


def _find(
    flat: FlatCell, inputs: Float[Array, "*batch T features"], of: Span, wrt: Span
) -> tuple[Groups, Closure] | None:
    """Return the blocks of the part that counts, and J⁽ᵗ⁾v as a function; None if it is too big."""
    n = flat.form.size
    if not SMALLEST <= n <= LARGEST:
        return None
    parameters, moving = flat.parameters, Moving(n)
    state: Any = _shapes(flat.example)
    x = jax.ShapeDtypeStruct(inputs.shape[-1:], inputs.dtype)
    step = dependence(flat.advance, parameters, state._replace(vector=moving), x)
    if not _is_worth_it(independent_blocks(step, of, wrt), n):
        return None
    try:
        image = _step_image(flat, state, x)
    except TypeError as error:  # a derivative that is written for reverse mode only
        if "custom_vjp" not in str(error):
            raise
        return None
    # Derivatives of somebody's own (jax.custom_jvp) may mix what the function itself does not.
    groups = independent_blocks(dependence(image, parameters, state, x, moving), of, wrt)
    return (groups, image) if _is_worth_it(groups, n) else None


def independent_blocks(pattern: Bool[np.ndarray, "n n"], of: Span, wrt: Span) -> Groups:
    """Return the blocks that a pattern falls into, of components on a way from `wrt` to `of`.

    Args:
        pattern: [i, j] is False where component i does not depend on component j.
        of, wrt: the components at the end and at the beginning of a product.

    Returns:
        The components of the blocks of each size, (blocks, size), ascending within a block.
    """
    matters = np.flatnonzero(_reached(pattern, wrt) & _reached(pattern.T, of))
    part = pattern[np.ix_(matters, matters)]
    row, column = np.nonzero(part)
    label, before = np.arange(len(matters)), np.full(len(matters), -1)
    while not np.array_equal(label, before):  # every component takes its neighbours' least label
        before, label = label, label.copy()
        np.minimum.at(label, row, before[column])
        np.minimum.at(label, column, before[row])
        label = label[label]
    order = np.argsort(label, kind="stable")
    _, sizes = np.unique(label, return_counts=True)
    blocks = np.split(matters[order], np.cumsum(sizes)[:-1])
    return [
        np.stack([block for block in blocks if len(block) == size])
        for size in sorted(set(sizes.tolist()))
    ]


def _reached(pattern: Bool[np.ndarray, "n n"], span: Span) -> Bool[np.ndarray, "n"]:
    """Return which components those of a span move after some steps, themselves among them."""
    reached = np.zeros(len(pattern), bool)
    new = np.zeros(len(pattern), bool)
    new[slice(*span)] = True
    while new.any():
        reached |= new
        new = pattern[:, new].any(axis=1) & ~reached
    return reached


def _is_worth_it(groups: Groups, n: int) -> bool:
    return sum(len(group) * group.shape[1] ** 3 for group in groups) <= SHARE * n**3


def _bytes(groups: Groups, shape: tuple[int, ...], stride: int) -> int:
    """Return the size of all that is in memory at once, the maps of all samples included."""
    *batch, length, _ = shape
    blocks = sum(group.size * group.shape[1] for group in groups)
    largest = max((group.shape[1] for group in groups), default=0)
    pairs = (length // stride + 1) ** 2
    numbers = BLOCK_COPIES * (length * blocks + (length // stride) * largest**2)
    return 8 * (numbers + MAP_COPIES * pairs) + 4 * pairs * math.prod(batch)


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def _step_image(flat: FlatCell, state: FlatState, x: jax.ShapeDtypeStruct) -> Closure:
    """Return J⁽ᵗ⁾v as a function of (parameters, s⁽ᵗ⁻¹⁾, x⁽ᵗ⁾, v)."""

    def image(parameters: PyTree, state: FlatState, x: Array, v: Array) -> Array:
        def step(vector: Array) -> Array:
            new: FlatState = flat.advance(parameters, state._replace(vector=vector), x)
            return new.vector

        return jax.jvp(step, (state.vector,), (v,))[1]

    return closure_convert(image, flat.parameters, state, x, state.vector)


def _tangents(groups: Groups, n: int) -> Float[np.ndarray, "size+1 n"]:
    """Return a tangent for each place in a block, and the one that checks the blocks.

    The latter's numbers are ± ½, 1 or 2, products with which are exact.
    """
    size = max((group.shape[1] for group in groups), default=0)
    tangents = np.zeros((size + 1, n))
    for group in groups:
        for place, components in enumerate(group.T):
            tangents[place, components] = 1
    rng = np.random.default_rng(0)
    check = rng.choice([-1.0, 1.0], n) * rng.choice([0.5, 1.0, 2.0], n)
    tangents[-1] = check * tangents[:-1].any(axis=0)
    return tangents


@jax.jit
def _images(
    flat: FlatCell,
    image: Closure,
    inputs: Float[Array, "T features"],
    tangents: Float[Array, "count n"],
) -> tuple[Float[Array, "T count n"], Bool[Array, ""]]:
    """Return J⁽ᵗ⁾v of every step and tangent v, and whether all states are finite."""

    def step(state: FlatState, x: Array) -> Float[Array, "count n"]:
        return jax.vmap(lambda v: image(flat.parameters, state, x, v))(tangents)

    states, last = trajectory(flat, inputs)
    is_finite = jnp.isfinite(states.vector).all() & jnp.isfinite(last.vector).all()
    return jax.vmap(step)(states, inputs), is_finite


def _samples(
    flat: FlatCell, inputs: Float[Array, "*batch T features"]
) -> Iterator[tuple[FlatCell, Float[Array, "T features"]]]:
    """Yield the cell with the initial state of each sample, and the sample's inputs."""
    if not flat.has_batch:
        yield flat, inputs
        return
    for index in range(len(inputs)):
        initial = jax.tree.map(lambda leaf, index=index: leaf[index], flat.initial)
        yield replace(flat, has_batch=False, initial=initial), inputs[index]


def _checked_blocks(
    images: Float[Array, "T count n"], tangents: Float[np.ndarray, "count n"], groups: Groups
) -> list[Blocks] | None:
    """Return the blocks of each size of every step, (T, blocks, size, size).

    None if the check tells of a derivative that is in none of them, or one is not finite. It allows
    for the rounding errors of derivatives that nearly cancel (those of saturated units), so that
    structure.py, which proves that there is none, has its independent witness and no more.
    """
    tolerance = max(TOLERANCE, 32 * float(jnp.finfo(images.dtype).eps))
    values = np.asarray(images, np.float64)
    if not np.isfinite(values).all():
        return None
    found, errors, terms = [], [np.zeros(1)], [np.zeros(1)]
    for group in groups:
        blocks = values[:, : group.shape[1], group].transpose(0, 2, 3, 1)
        expected = blocks * tangents[-1][group][:, None, :]
        found.append(blocks)
        errors.append(np.abs(values[:, -1, group] - expected.sum(axis=-1)).ravel())
        terms.append(np.abs(expected).sum(axis=-1).ravel())
    error, size = np.concatenate(errors), np.concatenate(terms)
    return found if (error <= tolerance * (size + size.max())).all() else None
