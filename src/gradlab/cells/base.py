"""Parts that gradlab's own cells share: their start, checks, and runs of diagonal affine steps."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PyTree


class VectorCell(nnx.RNNCellBase):
    """A cell that reads a vector at every step and starts from zeros.

    Its state is an array of `hidden_features` units, unless a subclass has its own
    `initialize_carry`.
    """

    hidden_features: int

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Any = None,
    ) -> PyTree:
        """Return zeros, as every sequence starts."""
        return jnp.zeros((*input_shape[:-1], self.hidden_features))

    @property
    def num_feature_axes(self) -> int:
        """The number of feature axes of one input, as Flax's cells define it."""
        return 1


def then(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return h ↦ second(first(h)) of maps h ↦ f ⊙ h + v, each given as (f, v)."""
    return second[0] * first[0], second[0] * first[1] + second[1]


def check_name(option: str, given: str, allowed: Iterable[str]) -> None:
    """Check an option that is chosen by name.

    Raises:
        ValueError: it is none of the names allowed.
    """
    if given not in (names := tuple(allowed)):
        raise ValueError(f"{option} must be one of {', '.join(names)}; got {given!r}.")


def inherits(cell: Any, cell_class: type, *methods: str) -> bool:
    """Return whether a cell has these methods of a class: neither it nor a subclass replaces one.

    Example:
        >>> from gradlab.cells.base import inherits
        >>> class Halved(nnx.SimpleCell):
        ...     def __call__(self, carry, inputs):
        ...         return super().__call__(carry / 2, inputs)
        >>> inherits(Halved(2, 3, rngs=nnx.Rngs(0)), nnx.SimpleCell, "__call__")
        False
    """
    return all(
        getattr(type(cell), name) is getattr(cell_class, name) and name not in vars(cell)
        for name in methods
    )
