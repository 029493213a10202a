"""Points grouped by the program that they compile to."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import chdir
from threading import Event
from typing import NamedTuple, TypeAlias

from gradlab.components import ConfigError
from gradlab.config import Config
from gradlab.identity import program_key
from gradlab.point import Point, Status, fail_points, run_points
from gradlab.sweeps.program_cache import kept_program
from gradlab.training.program import Program

Built: TypeAlias = Program | BaseException  # or what building it raised: its points fail by that


class Group(NamedTuple):
    """A program, and points that run it: their configs differ in traced values only."""

    program: Built
    points: Sequence[Point]


def program_of(config: Config, programs: dict[str, Built]) -> Built:
    """Return the program of a config, and add it to those built already if it is not among them.

    Args:
        config: a checked config.
        programs: built already, by `identity.program_key`.

    Returns:
        The program; or the error of a user's cell, task or initialiser that cannot be built.

    Raises:
        ConfigError: the parts of the config do not fit together.
    """
    key = program_key(config)
    if key not in programs:
        try:
            with chdir(os.curdir):  # a part of the user's that leaves the folder moves no sweep
                programs[key] = kept_program(config)
        except (ConfigError, KeyboardInterrupt):
            raise
        except BaseException as error:
            programs[key] = error
    return programs[key]


def run_built(
    program: Built,
    points: Sequence[Point],
    on_updates: Callable[[int], None] = lambda count: None,
    stop: Event | None = None,
) -> list[Status]:
    """Run points by `point.run_points`; record them as failed if their program was not built."""
    if isinstance(program, BaseException):
        return fail_points(points, program)
    return run_points(program, points, on_updates, stop)


def group_by_program(
    points: Iterable[Point], programs: dict[str, Built] | None = None
) -> list[Group]:
    """Return each program with the points that share it, the largest group first.

    Args:
        points: the points.
        programs: as of `program_of`; None: none is built yet.

    Raises:
        ConfigError: the parts of a point's config do not fit together.
    """
    built = {} if programs is None else programs
    members: dict[int, tuple[Built, list[Point]]] = {}  # by id, since an error may have no hash
    for point in points:
        program = program_of(point.config, built)
        members.setdefault(id(program), (program, []))[1].append(point)
    groups = [Group(program, shared) for program, shared in members.values()]
    return sorted(groups, key=lambda group: len(group.points), reverse=True)
