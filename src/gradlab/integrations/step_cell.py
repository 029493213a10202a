"""A step function of somebody's as a cell, so that every probe takes it."""

from collections.abc import Callable
from typing import Any

import jax
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
