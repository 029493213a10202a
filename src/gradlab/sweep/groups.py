"""Which points compile to the same program."""

from collections.abc import Iterable

from gradlab.point import Point
from gradlab.training.program import program_key


def group_by_program(sweep: Iterable[Point]) -> list[list[Point]]:
    """Split points into groups that differ in traced numbers alone, the largest group first."""
    groups: dict[str, list[Point]] = {}
    for point in sweep:
        groups.setdefault(program_key(point.config), []).append(point)
    return sorted(groups.values(), key=len, reverse=True)
