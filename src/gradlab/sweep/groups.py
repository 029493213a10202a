"""Points grouped by the program that they compile to."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gradlab.config import Config, program_key
from gradlab.point import Point
from gradlab.training.program import Program


class Group(NamedTuple):
    """A program, and points that run it: their configs differ in traced values only."""

    program: Program
    points: Sequence[Point]


def program_of(config: Config, programs: dict[str, Program]) -> Program:
    """Return the program of a config, and add it to those built already if it is not among them.

    Args:
        config: a checked config.
        programs: built already, by `config.program_key`.

    Raises:
        ConfigError: the parts of the config do not fit together.
    """
    key = program_key(config)
    if key not in programs:
        programs[key] = Program(config)
    return programs[key]


def group_by_program(
    points: Iterable[Point], programs: dict[str, Program] | None = None
) -> list[Group]:
    """Return each program with the points that share it, the largest group first.

    Args:
        points: the points.
        programs: as of `program_of`; None: none is built yet.

    Raises:
        ConfigError: the parts of a point's config do not fit together.
    """
    built = {} if programs is None else programs
    members: dict[Program, list[Point]] = {}
    for point in points:
        members.setdefault(program_of(point.config, built), []).append(point)
    groups = [Group(program, shared) for program, shared in members.items()]
    return sorted(groups, key=lambda group: len(group.points), reverse=True)
