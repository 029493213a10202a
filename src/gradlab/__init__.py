"""gradlab: how far a gradient reaches in a recurrent network, and what changes that."""

from importlib import import_module

TYPE_CHECKING = False  # typing.py of the working folder would be imported here
if TYPE_CHECKING:
    from typing import Any

    from gradlab import figures
    from gradlab.advice import advise
    from gradlab.decay import decay_rate, horizon, lag_profile, summary, verdict
    from gradlab.exercises import check
    from gradlab.figures.draw import draw_decay, draw_map, draw_spectrum
    from gradlab.figures.settings import by_setting
    from gradlab.from_python import sweep
    from gradlab.integrations.keras import from_keras
    from gradlab.integrations.torch import from_torch
    from gradlab.integrations.watch import watch
    from gradlab.jacobian import (
        adaptive_window,
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
        shortest_window,
        truncation,
    )
    from gradlab.probes.labelled_maps import jacobian_map
    from gradlab.records import load_gradients, load_metrics
    from gradlab.records.table import load_runs
    from gradlab.tracking.media import map_media, map_table
    from gradlab.tracking.restore import load_wandb
    from gradlab.trained import load_network

__all__ = [
    "adaptive_window",
    "adjoint_log_norms",
    "advise",
    "backpropagate",
    "by_setting",
    "check",
    "contribution_log_norms",
    "credit",
    "decay_rate",
    "draw_decay",
    "draw_map",
    "draw_spectrum",
    "figures",
    "from_keras",
    "from_torch",
    "horizon",
    "jacobian_log_norms",
    "jacobian_map",
    "lag_profile",
    "load_gradients",
    "load_metrics",
    "load_network",
    "load_runs",
    "load_wandb",
    "log_singular_values",
    "long_range_share",
    "lyapunov_exponents",
    "lyapunov_spectrum",
    "map_media",
    "map_table",
    "parallel_evaluation",
    "parallel_exponent",
    "shortest_window",
    "summary",
    "sweep",
    "truncation",
    "verdict",
    "watch",
]
HOMES = {  # of the names that are not the engine's
    "advise": "gradlab.advice",
    "by_setting": "gradlab.figures.settings",
    "check": "gradlab.exercises",
    "decay_rate": "gradlab.decay",
    "draw_decay": "gradlab.figures.draw",
    "draw_map": "gradlab.figures.draw",
    "draw_spectrum": "gradlab.figures.draw",
    "from_keras": "gradlab.integrations.keras",
    "from_torch": "gradlab.integrations.torch",
    "horizon": "gradlab.decay",
    "jacobian_map": "gradlab.probes.labelled_maps",
    "lag_profile": "gradlab.decay",
    "load_gradients": "gradlab.records",
    "load_metrics": "gradlab.records",
    "load_network": "gradlab.trained",
    "load_runs": "gradlab.records.table",
    "load_wandb": "gradlab.tracking.restore",
    "map_media": "gradlab.tracking.media",
    "map_table": "gradlab.tracking.media",
    "summary": "gradlab.decay",
    "sweep": "gradlab.from_python",
    "verdict": "gradlab.decay",
    "watch": "gradlab.integrations.watch",
}


def __getattr__(name: str) -> "Any":
    """Import what is asked for: JAX and pandas take seconds, which --help need not wait for."""
    if name == "figures":  # gradlab.figures.decay(runs), …
        return import_module("gradlab.figures")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = HOMES.get(name, "gradlab.jacobian")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
