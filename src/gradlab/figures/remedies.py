"""Remedies for what a run did not measure or vary: words for a sweep, or for `gradlab.watch`."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from gradlab import records

CELL = "model.cell._target_"  # which the config of every point of a sweep has
OF_A_LOSS = ("adjoint", "contribution", "noise")  # probes
LEVELS = {  # of a sweep, and as `gradlab.watch` is told them
    "clip.threshold": ("0.1,1,inf", "clip=1.0"),
    "init.gain": ("0.5,1,2", "config={'init.gain': 1.0}"),
}


def is_watched(run: pd.Series) -> bool:
    """Return whether a run is of somebody's own loop, by the config that is recorded of it."""
    config = Path(run["path"]) / records.CONFIG
    return config.is_file() and CELL not in records.flatten(records.load_yaml(config))


def measure(run: pd.Series, probes: Sequence[str]) -> str:
    """Return how a run measures probes: "run with probe=[spectral,theory]".

    Args:
        run: a row of the runs.
        probes: names of conf/probe/.
    """
    if not is_watched(run):
        return f"run with probe=[{','.join(probes)}]"
    needs = ", and its loss= and targets=" if set(probes) & set(OF_A_LOSS) else ""
    return f"give gradlab.watch probes={list(probes)}{needs}"


def vary(runs: pd.DataFrame, key: str) -> str:
    """Return how a key is varied: "sweep init.gain=0.5,1,2, say".

    Args:
        runs: from `gradlab.load_runs`.
        key: one of LEVELS.
    """
    swept, watched = LEVELS[key]
    if not all(is_watched(run) for _, run in runs.iterrows()):
        return f"sweep {key}={swept}, say"
    return (
        f"give gradlab.watch {watched} and other values in runs of their own, with folders side "
        "by side"
    )
