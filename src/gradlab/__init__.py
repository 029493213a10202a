"""gradlab: how far a gradient reaches in a recurrent network, and what changes that."""

from importlib import import_module

TYPE_CHECKING = False  # typing.py of the working folder would be imported here
if TYPE_CHECKING:
    from typing import Any

    from gradlab.advice import advise
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
        parallel_evaluation,
        parallel_exponent,
        truncation,
    )
    from gradlab.records import load_gradients
    from gradlab.records.table import load_runs
    from gradlab.tracking.restore import load_wandb

__all__ = [
    "adjoint_log_norms",
    "advise",
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
    "parallel_evaluation",
    "parallel_exponent",
    "truncation",
]
HOMES = {  # of the names that are not the engine's
    "advise": "gradlab.advice",
    "load_gradients": "gradlab.records",
    "load_runs": "gradlab.records.table",
    "load_wandb": "gradlab.tracking.restore",
}


def __getattr__(name: str) -> "Any":
    """Import what is asked for: JAX and pandas take seconds, which --help need not wait for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = HOMES.get(name, "gradlab.jacobian")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
