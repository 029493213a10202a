"""What cells share: a check of options that are chosen by name, and one of inherited methods."""

from collections.abc import Iterable
from typing import Any


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
