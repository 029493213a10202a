"""How runs ended: which of them succeeded, and their last loss."""

import numpy as np
import pandas as pd

ERROR, ACCURACY = 0.01, 0.9
ERROR_RATE = "eval/error_rate"
OUTCOMES = {
    "decay_rate": ("jacobian/decay_rate", "decay rate (nats/step)"),
    "horizon": ("jacobian/horizon", "horizon (steps)"),
    "loss": ("eval/loss", "final loss"),
    "success": ("success", "success rate"),
}


def succeeded(runs: pd.DataFrame, error: float = ERROR, accuracy: float = ACCURACY) -> pd.Series:
    """Which runs succeeded: 1, else 0; a run that diverged or failed did not.

    Args:
        runs: as of `gradlab.load_runs`.
        error: where a run logs an error rate, it must be below this,
        accuracy: else its accuracy must be above this.

    Raises:
        ValueError: no run logs either of them.
    """
    logged = [name for name in (ERROR_RATE, "eval/accuracy") if name in runs]
    if not logged:
        raise ValueError(
            "no run logs eval/error_rate or eval/accuracy, so none can be called a success: "
            "draw the loss or the decay rate instead."
        )
    errors = runs.get(ERROR_RATE, pd.Series(np.nan, runs.index)).astype(float)
    hits = runs.get("eval/accuracy", pd.Series(np.nan, runs.index)).astype(float)
    solved = (errors < error).where(errors.notna(), hits > accuracy)
    return (solved & (runs["status"] == "done")).astype(float)


def outcome_of(runs: pd.DataFrame, name: str, error: float, accuracy: float) -> pd.Series:
    """One of OUTCOMES for each run; NaN where it has none.

    Raises:
        ValueError: no run has it.
    """
    if name == "success":
        return succeeded(runs, error, accuracy)
    column, _ = OUTCOMES[name]
    if column not in runs or runs[column].isna().all():
        raise ValueError(f"no run has {column}: draw one of {_present(runs)}.")
    return runs[column].astype(float)


def _present(runs: pd.DataFrame) -> str:
    return ", ".join(name for name, (column, _) in OUTCOMES.items() if column in runs) or "no other"


def criterion(runs: pd.DataFrame, error: float, accuracy: float) -> str:
    """A sentence that says what is called a success."""
    if ERROR_RATE in runs:
        return f"Success: error rate below {error:.3g}."
    return f"Success: accuracy above {accuracy:.3g}."
