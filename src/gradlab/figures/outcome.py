"""The outcome of training: success, final loss, decay rate and horizon."""

import numpy as np
import pandas as pd

# Of a success. The error is `MAX_ERROR_RATE` of gradlab.training.success, written again because
# figures are read from disk or W&B and import nothing of training.
MAX_ERROR, MIN_ACCURACY = 0.01, 0.9
ERROR_RATE = "eval/error_rate"
OUTCOMES = {  # name: its column of the runs, its label in a figure
    "decay_rate": ("jacobian/decay_rate", "decay rate (nats/step)"),
    "horizon": ("jacobian/horizon", "horizon (steps)"),
    "loss": ("eval/loss", "final loss"),
    "success": ("success", "success rate"),
}


def succeeded(
    runs: pd.DataFrame, error: float = MAX_ERROR, accuracy: float = MIN_ACCURACY
) -> pd.Series:
    """Return 1 for each run that succeeded and 0 for the others, diverged and failed ones included.

    Args:
        runs: from `gradlab.load_runs`.
        error: a run that logs an error rate succeeds if that is below this value.
        accuracy: any other run succeeds if its accuracy is above this value.

    Raises:
        ValueError: no run logs either of them.
    """
    logged = [name for name in (ERROR_RATE, "eval/accuracy") if name in runs]
    if not logged:
        raise ValueError(
            "no run logs eval/error_rate or eval/accuracy, so none can be called a success: "
            "draw the loss or the decay rate instead."
        )
    error_rates = runs.get(ERROR_RATE, pd.Series(np.nan, runs.index)).astype(float)
    accuracies = runs.get("eval/accuracy", pd.Series(np.nan, runs.index)).astype(float)
    solved = (error_rates < error).where(error_rates.notna(), accuracies > accuracy)
    return (solved & (runs["status"] == "done")).astype(float)


def outcome_of(runs: pd.DataFrame, name: str, error: float, accuracy: float) -> pd.Series:
    """Return the outcome `name`, a key of OUTCOMES, of each run; NaN where a run has none.

    Args:
        runs: from `gradlab.load_runs`.
        name: the outcome.
        error, accuracy: the criteria of success, as in `succeeded`.

    Raises:
        ValueError: no run has this outcome.
    """
    if name == "success":
        return succeeded(runs, error, accuracy)
    column, _ = OUTCOMES[name]
    if column not in runs or runs[column].isna().all():
        raise ValueError(f"no run has {column}: draw one of {_available(runs)}.")
    return runs[column].astype(float)


def criterion(runs: pd.DataFrame, error: float, accuracy: float) -> str:
    """Return the sentence that says which runs are called a success."""
    if ERROR_RATE in runs:
        return f"Success: error rate below {error:.3g}."
    return f"Success: accuracy above {accuracy:.3g}."


def _available(runs: pd.DataFrame) -> str:
    return ", ".join(name for name, (column, _) in OUTCOMES.items() if column in runs) or "no other"
