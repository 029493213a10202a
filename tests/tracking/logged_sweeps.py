"""Sweeps of two rows a point, written to disk and logged to offline W&B runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import wandb
from synthetic_sweeps import geometric

from gradlab import records
from gradlab.tracking.runs import track

ROWS = [
    {"train/step": 0, "eval/loss": 2.0, "jacobian/horizon": np.inf},
    {"train/step": 5, "eval/loss": 1.0, "jacobian/horizon": 2.5, "train/loss": 1.5},
]
END_ENTRIES = {"success/solved": 1.0, "time/probe_seconds": 0.25, "verdict": "stable"}


def config(gain: float, **of_wandb: Any) -> dict[str, Any]:
    settings = {"mode": "offline", "project": "reach", "entity": None, "tags": ["a"], **of_wandb}
    return {"wandb": settings, "init": {"gain": gain}, "clip": {"threshold": np.inf}, "seed": 3}


def write(point: Path, gain: float, group: str = "reach/today", **of_wandb: Any) -> None:
    """Write a point's records and log it to an offline run."""
    status = {"state": "done", "reason": "so", "summary": ROWS[-1] | END_ENTRIES}
    settings = config(gain, **of_wandb)
    records.save_config(point, settings, status)
    records.save_metrics(point, pd.DataFrame(ROWS), status)
    records.save_gradients(point, geometric(), status)
    with track(point, settings, group=group, name=f"{gain}") as tracker:
        for row in ROWS:
            tracker.log(row)
        tracker.finish(status, geometric())


def write_sweep(folder: Path, *gains: float, **of_wandb: Any) -> Path:
    """Write a sweep whose points differ in their gains; return its folder."""
    records.save_sweep(folder, [])
    for number, gain in enumerate(gains):
        write(folder / str(number), gain, **of_wandb)
    wandb.teardown()  # waits until the logs are on disk, which the end of a run does not
    return folder
