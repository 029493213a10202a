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
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **MONOTONE,
    **COUNTED,
    "abs": np.abs,
    "all": lambda x: bool(np.all(x)),
    "at_max": lambda y, x: x[np.argmax(y)],
    "bootstrap_mean": bootstrap_mean,
    "bootstrap_median": bootstrap_median,
    "bootstrap_ratio": bootstrap_ratio,
    "count": lambda x: int(np.sum(x)),
    "crossing": crossing,
    "first": lambda x: x[0],
    "fisher": fisher,
    "geometric_mean": geometric_mean,
    "increasing": increasing,
    "last": lambda x: x[-1],
    "mann_whitney": mann_whitney,
    "max": _scalar(np.max),
    "mcnemar": mcnemar,
    "mean": _scalar(np.mean),
    "median": _scalar(np.median),
    "median_ratio": median_ratio,
    "min": _scalar(np.min),
    "paired_difference": paired_difference,
    "rate": rate,
    "sample_mean": sample_mean,
    "sample_median": sample_median,
    "size": lambda x: len(x),
    "slope": slope,
    "spearman": spearman,
    "sum": _scalar(np.sum),
    "wilcoxon": wilcoxon,
}
