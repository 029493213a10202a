"""One point of a sweep from config to records: build, measure, train, measure, keep, log."""

import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pandas as pd

from gradlab import records, tracking
from gradlab.config import traced
from gradlab.training import program_for

Row = dict[str, float]
VERSIONS = ("gradlab", "jax", "flax", "optax", "numpy")


def run_point(config: Mapping[str, Any], folder: Path, sweep: str) -> dict[str, Any]:
    """Run one checked config and leave its records in a folder.

    Returns:
        The point's status, as status.json keeps it: "state" is done, diverged or failed. An
        exception of the point ends in "failed" with its reason, never in the sweep.
    """
    status: dict[str, Any] = {
        "state": "running",
        "started": _now(),
        "device": str(jax.devices()[0]),
        "versions": {package: version(package) for package in VERSIONS},
    }
    records.save_config(folder, config)
    records.save_status(folder, status)
    try:
        status |= _measure_and_train(config, folder, sweep)
    except Exception as error:
        status |= {"state": "failed", "reason": f"{type(error).__name__}: {error}"}
    status["finished"] = _now()
    records.save_status(folder, status)
    return status


def _measure_and_train(config: Mapping[str, Any], folder: Path, sweep: str) -> dict[str, Any]:
    clock = time.perf_counter()
    program = program_for(config)
    numbers = jax.tree.map(jnp.asarray, traced(config))
    state = program.initialise(numbers)
    maps = {0: _maps(program, state)}
    rows: list[Row] = []
    wandb = config["wandb"]
    with tracking.track(folder, config, group=sweep, **wandb) as tracker:
        for state, row in _train(program, numbers, state):
            rows.append(row)
            tracker.log(row)
        seconds = time.perf_counter() - clock
        summary: dict[str, Any] = dict(rows[-1])
        steps = int(state.step)
        if not bool(state.diverged):
            maps[steps] = _maps(program, state)
        gradients = _dataset(maps, config)
        records.save_metrics(folder, pd.DataFrame(rows))
        records.save_gradients(folder, gradients)
        tracker.finish(summary, folder / records.GRADIENTS)
    return {"seconds": {"train": seconds}, "summary": summary}
