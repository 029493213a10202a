"""A sweep over clipping thresholds, for the tests of phase diagrams and of clipping."""

from math import inf, nan
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from synthetic_sweeps import write_point

STEPS = np.array([0, 10, 20])


def history(rng: np.random.Generator, clipped: float, solved: bool) -> pd.DataFrame:
    """Return what a run logs: an untrained row, one midway, and the last one."""
    trained = STEPS > 0
    rows = {
        "train/step": STEPS,
        "eval/loss": np.array([2.0, 1.0, 0.5]) * rng.uniform(0.8, 1.2),
        "eval/accuracy": [0.1, 0.5, 0.95 if solved else 0.6],
        "train/clip_fraction": np.where(trained, clipped, nan),
        "jacobian/decay_rate": np.array([-0.5, nan, -0.1]) * rng.uniform(0.8, 1.2),
        "jacobian/horizon": np.array([2.0, nan, 8.0]) * rng.uniform(0.8, 1.2),
    }
    return pd.DataFrame(rows)


def solves(threshold: float, rate: float, seed: int) -> bool:
    """Return whether a point solves its task: 4 of 5 seeds with tight clipping, else fewer."""
    return seed < {0.1: 4, 1.0: 3, inf: 0}[threshold] - (rate > 0.5)


def write_thresholds(folder: Path) -> Path:
    """Write 2 models × 2 gains × 3 thresholds × 2 rates × 5 seeds; return the folder."""
    rng = np.random.default_rng(0)
    grid = [
        {"model": model, "gain": gain, "threshold": threshold, "rate": rate, "seed": seed}
        for model in ("rnn", "lstm")
        for gain in (0.5, 2.0)
        for threshold in (0.1, 1.0, inf)
        for rate in (0.1, 1.0)
        for seed in range(5)
    ]
    for number, settings in enumerate(grid):
        threshold, rate = settings["threshold"], settings["rate"]
        clipped = 0.0 if threshold == inf else (0.9 if threshold < 0.5 else 0.4) * (2 - rate) / 2
        rows = history(rng, clipped, solves(threshold, rate, settings["seed"]))
        summary = rows.iloc[-1].to_dict()
        write_point(folder / str(number), None, metrics=rows, summary=summary, **settings)
    return folder


def clopper_pearson(successes: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval by quantiles of the beta distribution."""
    low = stats.beta.ppf(0.025, successes, count - successes + 1) if successes else 0.0
    high = stats.beta.ppf(0.975, successes + 1, count - successes) if successes < count else 1.0
    return float(low), float(high)
