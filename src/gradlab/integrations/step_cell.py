"""A step function of somebody's as a cell, so that every probe takes it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PyTree

from gradlab.jacobian.closure import closure_convert


class Start:
    """The initial carry of a step function: one object, which compiled programs know by identity.

    Attributes:
        carry: s⁽⁰⁾ of one sample.
    """

    def __init__(self, carry: PyTree) -> None:
        """Keep the carry."""
        self.carry = carry


def check_start(step: Callable[..., Any], start: Start, x: jax.ShapeDtypeStruct) -> None:
    """Check that an initial carry is that of one sequence, not of a batch of any size.

    Raises:
        ValueError: the step runs as well without the carry's first axis.
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(start.carry)]
    if not all(len(shape) > 1 for shape in shapes) or len({shape[0] for shape in shapes}) != 1:
        return
    first = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), start.carry)
    try:
        after = jax.eval_shape(step, first, x)[0]
    except Exception:  # of any kind: the function is somebody's
        return
    if list(map(jnp.shape, jax.tree.leaves(after))) == [shape[1:] for shape in shapes]:
        raise ValueError(
            f"initial_carry is the start of one sequence: leave out its first axis, of "
            f"{shapes[0][0]}, as in jax.tree.map(lambda s: s[0], initial_carry)."
        )


class StepCell(nnx.RNNCellBase):
    """A function step(carry, x) -> (carry, y) as a Flax cell, with the weights that it reads now.

    The weights are the arrays that the function reads from outside, in the order in which it does:
    `weights.0`, `weights.1`, …
    """

    def __init__(
        self, step: Callable[[PyTree, Array], tuple[PyTree, Any]], start: Start, x: PyTree
    ) -> None:
        """Trace the step.

        Args:
            step: the function.
            start: its initial carry.
            x: the shape and type of one step's input.
        """
        weights, self.structure = jax.tree.flatten(closure_convert(step, start.carry, x))
        self.weights = nnx.List([nnx.Param(array) for array in weights])
        self.start = start

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Any = None,
    ) -> PyTree:
        """Return the initial carry that came with the function."""
        return self.start.carry

    def __call__(self, carry: PyTree, inputs: Array) -> tuple[PyTree, Any]:
        """Run one step."""
        weights = [weight[...] for weight in self.weights]
        result: tuple[PyTree, Any] = jax.tree.unflatten(self.structure, weights)(carry, inputs)
        return result

    @property
    def num_feature_axes(self) -> int:
        """The number of feature axes of one input."""
        return 1
