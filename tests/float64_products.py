"""Maps of log norms by plain float64 products, to compare measured ones with."""

import numpy as np


def log_norm_map(jacobians: np.ndarray) -> np.ndarray:
    """Return log ‖J⁽ᵗ⁾ ⋯ J⁽ᵏ⁺¹⁾‖₂ of plain float64 products, −inf where zero or k > t."""
    length, n, _ = jacobians.shape
    norms = np.zeros((length + 1, length + 1))
    for k in range(length + 1):
        product = np.eye(n)
        norms[k, k] = 1
        for t in range(k + 1, length + 1):
            product = jacobians[t - 1] @ product
            norms[t, k] = np.linalg.norm(product, 2)
    with np.errstate(divide="ignore"):
        return np.log(norms)
