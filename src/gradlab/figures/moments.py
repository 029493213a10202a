"""The moments of training at which measurements are shown: the first, the last, N updates, all."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from gradlab import records
from gradlab.figures import remedies

Step = Literal["first", "last", "ends", "all"] | int
DEFAULT: Step = "ends"
WORDS = ("first", "last", "ends", "all")
BEFORE, AFTER = "before training", "after training"
MOST = 8  # moments of "all", evenly spread over those that were measured
PROBES = {  # the probe that measures the variables whose names begin so
    "jacobian": "spectral",
    "adjoint": "adjoint",
    "contribution": "contribution",
    "lyapunov": "lyapunov",
    "singular": "singular_values",
    "statistics": "statistics",
    "theory": "theory",
}


def moment_of(step: int) -> str:
    """Name a moment by the updates before it."""
    if step == 0:
        return BEFORE
    return "after 1 update" if step == 1 else f"after {step:,} updates"


def check_step(step: Step) -> Step:
    """Return the moments that are asked for.

    Raises:
        ValueError: they are neither one of WORDS nor a number of updates.
    """
    if step in WORDS or (isinstance(step, int) and not isinstance(step, bool) and step >= 0):
        return step
    raise ValueError(
        f"step must be first, last, ends (both), all, or a number of updates; got {step!r}."
    )


def load_at(run: pd.Series, step: Step, *needed: str) -> dict[str, xr.Dataset]:
    """Read a point's measurements at some moments of its training, by their names.

    A point that diverged, or was not trained, has none "after training".

    Args:
        run: a row of the runs.
        step: the first and last measurements ("ends"), one of them, all, or that after so many
            updates.
        needed: variables that the point must have measured.

    Raises:
        ValueError: one of them is missing.
    """
    gradients = load_measured(run, *needed)
    steps = [int(number) for number in gradients["step"].to_numpy()]
    if step == "all" or isinstance(step, int):
        return {
            moment_of(number): gradients.isel(step=i)
            for i, number in enumerate(steps)
            if step in ("all", number)
        }
    ends = {}
    if step in ("first", "ends"):
        ends[BEFORE] = gradients.isel(step=0)
    if step in ("last", "ends") and run["status"] == "done" and len(steps) > 1:
        ends[AFTER] = gradients.isel(step=-1)
    return ends


def load_measured(run: pd.Series, *needed: str) -> xr.Dataset:
    """Read a point's measurements.

    Args:
        run: a row of the runs.
        needed: variables that the point must have measured.

    Raises:
        ValueError: one of them is missing.
    """
    gradients = records.load_gradients(run["path"])
    for variable in needed:
        if variable not in gradients:
            raise ValueError(f"{run['path']} did not measure {variable}: {remedy(run, variable)}.")
    return gradients


def with_variable(runs: pd.DataFrame, variable: str) -> pd.DataFrame:
    """Return the points that measured a variable.

    Args:
        runs: points that have gradients.
        variable: of them, by name.

    Raises:
        ValueError: no point did.
    """
    measured = [variable in records.gradient_names(path) for path in runs["path"]]
    if not any(measured):
        how = remedy(runs.iloc[0], variable)
        raise ValueError(f"no point measured {variable}: {how}.")
    return runs[measured]


def remedy(run: pd.Series, variable: str) -> str:
    """Return how a run measures a variable: "run with probe=[spectral,adjoint]"."""
    probe = next(p for prefix, p in PROBES.items() if variable.startswith(prefix))
    return remedies.measure(run, list(dict.fromkeys(["spectral", probe])))


def reasons(runs: pd.DataFrame) -> str:
    """Count the runs that lack a moment by why they do: "2 diverged, 1 failed"."""
    return counted(runs["status"].replace("done", "without a value"))


def counted(words: pd.Series) -> str:
    """Count the words: "2 diverged, 1 failed"."""
    return ", ".join(f"{count} {word}" for word, count in sorted(words.value_counts().items()))


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table at MOST moments of those it has, evenly spread by `step`."""
    steps = np.unique(table["step"])
    kept = steps[np.linspace(0, len(steps) - 1, min(MOST, len(steps))).round().astype(int)]
    return table[table["step"].isin(kept)]


def none_at(runs: pd.DataFrame, step: Step) -> str:
    """Return the sentence that says that no run was measured at the moments asked for."""
    if not isinstance(step, int):
        named = {"first": BEFORE, "last": AFTER}.get(step, "at all")
        instead = f"; --step first shows them {BEFORE}" if step == "last" else ""
        return f"no run was measured {named} ({reasons(runs)}){instead}."
    steps: set[int] = set()
    for path in runs["path"]:
        steps |= {int(number) for number in records.load_gradients(path)["step"].to_numpy()}
    return f"no run was measured {moment_of(step)}; --step takes {listed(sorted(steps))}."


def listed(steps: Sequence[int]) -> str:
    """Return the first ten of some numbers of updates as text."""
    shown = [f"{step}" for step in steps[:10]]
    return ", ".join([*shown, "…"] if len(steps) > len(shown) else shown)
