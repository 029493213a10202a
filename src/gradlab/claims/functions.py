"""The functions of the language of claims, by name."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gradlab.claims.significance import (
    agrees,
    fisher,
    fisher_counts,
    mann_whitney,
    mcnemar,
    wilcoxon,
)
from gradlab.claims.statistics import (
    Column,
    bootstrap_mean,
    bootstrap_median,
    bootstrap_ratio,
    geometric_mean,
    median_ratio,
    paired_difference,
    rate,
    rate_difference,
    sample_mean,
    sample_median,
    spearman,
)


def slope(y: Column, x: Column) -> float:
    """Return the least-squares slope of y against x."""
    return float(np.polyfit(x, y, 1)[0])


def crossing(y: Column, x: Column) -> float:
    """Return the first x at which y, linear between the rows sorted by x, crosses zero."""
    order = np.argsort(x)
    x, y = x[order], y[order]
    (after,) = np.nonzero(np.sign(y[:-1]) != np.sign(y[1:]))
    if not len(after):
        return float("nan")
    i = after[0]
    return float(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i]))


def increasing(x: Column) -> bool:
    """Return whether each value is larger than the one before."""
    return bool(np.all(np.diff(x) > 0))


def _scalar(reduction: Callable[[Column], Any]) -> Callable[[Column], Any]:
    """Make a reduction of NumPy return a Python number."""
    return lambda x: reduction(x).item()


MONOTONE: Mapping[str, Callable[[Any], Any]] = {  # whose value of an estimate is an estimate
    "exp": np.exp,
    "log": np.log,
    "log10": np.log10,
    "sqrt": np.sqrt,
}
COUNTED: Mapping[str, Callable[..., Any]] = {  # whose first two arguments are our k of n
    "agrees": agrees,
    "fisher_counts": fisher_counts,
    "rate_difference": rate_difference,
}
ESTIMATING: Mapping[str, Callable[..., Any]] = {  # from columns, of which no entry may be missing
    "bootstrap_mean": bootstrap_mean,
    "bootstrap_median": bootstrap_median,
    "bootstrap_ratio": bootstrap_ratio,
    "fisher": fisher,
    "geometric_mean": geometric_mean,
    "mann_whitney": mann_whitney,
    "mcnemar": mcnemar,
    "median_ratio": median_ratio,
    "paired_difference": paired_difference,
    "rate": rate,
    "sample_mean": sample_mean,
    "sample_median": sample_median,
    "spearman": spearman,
    "wilcoxon": wilcoxon,
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **MONOTONE,
    **COUNTED,
    **ESTIMATING,
    "abs": np.abs,
    "all": lambda x: bool(np.all(x)),
    "at_max": lambda y, x: x[np.argmax(y)],
    "count": lambda x: int(np.sum(x)),
    "crossing": crossing,
    "first": lambda x: x[0],
    "increasing": increasing,
    "last": lambda x: x[-1],
    "max": _scalar(np.max),
    "mean": _scalar(np.mean),
    "median": _scalar(np.median),
    "min": _scalar(np.min),
    "round": round,
    "size": lambda x: len(x),
    "slope": slope,
    "sum": _scalar(np.sum),
}
