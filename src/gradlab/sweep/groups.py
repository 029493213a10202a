"""Points grouped by the program that they compile to."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gradlab.config import program_key
from gradlab.point import Point
from gradlab.training.program import Program


class Group(NamedTuple):
    """A program, and points that run it: their configs differ in traced values only."""

    program: Program
    points: Sequence[Point]


def group_by_program(
    points: Iterable[Point], programs: Mapping[str, Program] | None = None
) -> list[Group]:
    """Return each program with the points that share it, the largest group first.

    Args:
        points: the points.
        programs: programs that are built already, by `config.program_key`.

    Raises:
        ConfigError: the parts of a point's config do not fit together.
    """
    members: dict[str, list[Point]] = {}
    for point in points:
        members.setdefault(program_key(point.config), []).append(point)
    built = programs or {}
    groups = [
        Group(built[key] if key in built else Program(shared[0].config), shared)
        for key, shared in members.items()
    ]
    return sorted(groups, key=lambda group: len(group.points), reverse=True)
