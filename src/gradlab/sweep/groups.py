"""Points grouped by the program that they compile to."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from gradlab.config import program_key
from gradlab.point import Point
from gradlab.training.program import Program


class Group(NamedTuple):
    """A program, and points that run it: their configs differ in traced values only."""

    program: Program
    points: Sequence[Point]


def group_by_program(points: Iterable[Point]) -> list[Group]:
    """Build the program of each set of points that share one; the largest group comes first.

    Raises:
        ConfigError: the parts of a point's config do not fit together.
    """
    groups: dict[str, tuple[Program, list[Point]]] = {}
    for point in points:
        key = program_key(point.config)
        if key not in groups:
            groups[key] = Program(point.config), []
        groups[key][1].append(point)
    return _by_size(Group(program, members) for program, members in groups.values())


def restrict(groups: Iterable[Group], points: Collection[Point]) -> list[Group]:
    """Return the groups restricted to some points, without the groups that are left empty."""
    folders = {point.folder for point in points}
    restricted = (
        Group(group.program, [point for point in group.points if point.folder in folders])
        for group in groups
    )
    return _by_size(group for group in restricted if group.points)


def _by_size(groups: Iterable[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: len(group.points), reverse=True)
