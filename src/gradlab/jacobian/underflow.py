"""Pairs so much smaller than their factors that the squares of their norms underflow.

Of two units that take turns in keeping and in forgetting, each factor keeps what the other one all
but loses. Such products are formed themselves.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from gradlab.jacobian.arrays import PIECE, AnyArray, library
from gradlab.jacobian.products import ResolvedLogNorms, multiply, rescale, safe_log


def may_underflow(
    squares: Float[AnyArray, "N t k"],
    a: Float[AnyArray, "N t r n"],
    b_T: Float[AnyArray, "N k q n"],
) -> Bool[AnyArray, "N t k"]:
    """Return whether squares of the squared norms underflow, though A_t B_k has terms.

    Where each term of each number of the product is exactly zero, so is the product.
    """
    xp, limits = library(squares), np.finfo(squares.dtype)
    is_tiny = squares < limits.tiny**0.5 / limits.eps
    if xp is np and not is_tiny.any():
        return is_tiny
    left, right = (xp.any(x != 0, axis=2).astype(squares.dtype) for x in (a, b_T))
    return is_tiny & (multiply(left, right.mT) > 0)


def formed_log_norms(
    norms: Any,
    places: Bool[AnyArray, "N t k"],
    a: Float[AnyArray, "N t r n"],
    b_T: Float[AnyArray, "N k q n"],
) -> ResolvedLogNorms:
    """Return the log norms of the products A_t B_k at places, each formed, of arrays of NumPy.

    Args:
        norms: the module of a norm.
        places: which pairs.
        a, b_T: the factors, of norm 1.
    """
    block, t, k = np.nonzero(places)
    values = []
    step = max(1, PIECE // (a[0, 0].nbytes + b_T[0, 0].nbytes))
    for i in range(0, len(block), step):
        part = slice(i, i + step)
        product = multiply(a[block[part], t[part]], b_T[block[part], k[part]].mT)
        scaled = rescale(product)
        values.append(0.5 * safe_log(norms.single_squares(scaled.unit)) + scaled.log_scale)
    value = np.concatenate(values)
    return ResolvedLogNorms(value, np.isneginf(value))
