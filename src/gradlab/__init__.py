"""gradlab: how far a gradient reaches in a recurrent network, and what changes that."""

from gradlab.jacobian import jacobian_log_norms, lyapunov_exponents
from gradlab.records import load_gradients, load_runs

__all__ = ["jacobian_log_norms", "load_gradients", "load_runs", "lyapunov_exponents"]
