"""gradlab: how far a gradient reaches in a recurrent network, and what changes that."""

from gradlab.jacobian import (
    adjoint_log_norms,
    backpropagate,
    contribution_log_norms,
    credit,
    jacobian_log_norms,
    log_singular_values,
    long_range_share,
    lyapunov_exponents,
    lyapunov_spectrum,
    truncation,
)
from gradlab.records import load_gradients, load_runs
from gradlab.wandb_runs import load_wandb

__all__ = [
    "adjoint_log_norms",
    "backpropagate",
    "contribution_log_norms",
    "credit",
    "jacobian_log_norms",
    "load_gradients",
    "load_runs",
    "load_wandb",
    "log_singular_values",
    "long_range_share",
    "lyapunov_exponents",
    "lyapunov_spectrum",
    "truncation",
]
