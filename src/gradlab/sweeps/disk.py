"""The disk that a point's records take, from shapes alone, for programs that have not run yet.

Maps come from the schedule, the probes and the length. What else a point writes was weighed: its
config, rows, status and checkpoint, and the run, pictures and tables that W&B gets.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from gradlab.config import PROBE_SETTINGS, Config
from gradlab.sweeps.history import Work
from gradlab.training.program import Program, State

FLOAT = 4  # bytes
KEPT = 0.75  # of a map's bytes are left by compression; the half where k > t takes nothing
MAP_FILE = 30e3  # gradients.nc besides its arrays
POINT = 60e3  # config, status and the first row of metrics, in whole blocks
CHECKPOINT = 50e3  # besides the state
WANDB = 130e3  # log, picture, tables; maps and rows are there by a second name
ROW = 150.0  # a row of metrics.parquet
WANDB_ROW = 900.0  # and in W&B's log


class Shapes(NamedTuple):
    """The numbers that one measurement of a program keeps: all of them for all samples."""

    pairs: float  # a map over (t, k)
    times: float  # a curve over t
    units: float  # a number per unit of the carry
    weights: int  # arrays of weights in the cell


# Numbers that each of gradlab's probes keeps, by its shapes and arguments.
NUMBERS: Mapping[str, Callable[[Shapes, Mapping[str, Any]], float]] = {
    "gradlab.probes.maps.jacobian_map": lambda n, own: n.pairs * (2 if own["certify"] else 1),
    "gradlab.probes.losses.adjoint": lambda n, own: n.pairs if own["each"] else n.times,
    "gradlab.probes.losses.contribution": lambda n, own: n.weights * n.pairs + 4 * n.times,
    "gradlab.probes.spectra.lyapunov": lambda n, own: 2 * n.units,
    "gradlab.probes.spectra.singular_values": lambda n, own: len(own["lags"]) * n.units,
    "gradlab.probes.parallel.parallel": lambda n, own: n.times,
    "gradlab.probes.states.statistics": lambda n, own: 14 * n.times,
    "gradlab.probes.states.traces": lambda n, own: n.units * n.times,
    "gradlab.probes.states.theory_rates": lambda n, own: 0.0,
}


class Size(NamedTuple):
    """The bytes of a point, those of its maps among them, and the probes that are left out."""

    total: float
    maps: float
    left_out: list[str]  # probes, by name, that are not gradlab's own


def point_size(program: Program, work: Work) -> Size:
    """Return the disk that a point of a program takes; nothing is compiled.

    Args:
        program: the point's.
        work: what the point has to do.
    """
    config = program.config
    probes = {name: own for name, own in config.probe.items() if name not in PROBE_SETTINGS}
    state = program.abstract_state()
    shapes = _shapes(program, state)
    known = [own for own in probes.values() if own["_target_"] in NUMBERS]
    numbers = sum(NUMBERS[own["_target_"]](shapes, own) for own in known)
    maps = MAP_FILE + work.measurements * numbers * FLOAT * KEPT if known else 0.0
    logs = config.wandb.mode != "disabled"
    rows = max(work.evaluations, work.measurements)
    rest = POINT + rows * row_bytes(config) + logs * WANDB
    if config.train.checkpoint_seconds < float("inf"):
        rest += CHECKPOINT + sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    left_out = [name for name, own in probes.items() if own["_target_"] not in NUMBERS]
    return Size(maps + rest, maps, left_out)


def row_bytes(config: Config) -> float:
    """Return the bytes that one more row of metrics takes."""
    return ROW + (config.wandb.mode != "disabled") * WANDB_ROW


def _shapes(program: Program, state: State) -> Shapes:
    model, probe = program.config.model, program.config.probe
    samples = min(probe["samples"], len(program.task.test.inputs))
    times = program.length // probe["stride"] + 1
    return Shapes(
        pairs=samples * times * (times + 1) / 2,
        times=samples * times,
        units=samples * model.hidden_size * model.num_layers * 2,  # h, and c where there is one
        weights=len(jax.tree.leaves(state.parameters["cell"])),
    )
