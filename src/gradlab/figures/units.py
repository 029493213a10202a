"""The unit of log norms in figures, pages and tables: decades (powers of ten) or nats.

Records, metrics and W&B hold nats; only what is shown is converted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, get_args

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator

Unit = Literal["decades", "nats"]
DEFAULT: Unit = "decades"
DECADE = float(np.log(10))  # nats
NATS_IN: dict[str, float] = {"decades": DECADE, "nats": 1.0}
MAX_TICKS = 5
_ONE_TWO_FIVE = np.outer(10.0 ** np.arange(4), (1, 2, 5)).ravel()
_UNIT: ContextVar[Unit] = ContextVar("unit", default=DEFAULT)


@contextmanager
def shown_in(unit: Unit | None) -> Iterator[None]:
    """Show log norms in a unit; None: in that of the surrounding context.

    Raises:
        ValueError: it is no unit.
    """
    if unit is not None and unit not in NATS_IN:
        raise ValueError(f"unit must be one of {', '.join(get_args(Unit))}; got {unit!r}.")
    token = _UNIT.set(unit or _UNIT.get())
    try:
        yield
    finally:
        _UNIT.reset(token)


def current_unit() -> Unit:
    """Return the unit of the surrounding context."""
    return _UNIT.get()


def from_nats(nats: Any, unit: Unit | None = None) -> Any:
    """Return log norms or rates, given in nats, in a unit: 2.303 nats are 1 decade.

    Args:
        nats: a number, an array or a column.
        unit: by default that of the context.
    """
    return nats / NATS_IN[unit or current_unit()]


def rate_unit() -> str:
    """Return the unit of a rate: "decades/step" or "nats/step"."""
    return f"{current_unit()}/step"


def norm_axis(axis: Axis) -> None:
    """Label an axis of log norms, whose data are in nats: decades as norms, nats as they are."""
    if current_unit() == "decades":
        power_axis(axis)
    else:
        axis.set_major_locator(MaxNLocator(MAX_TICKS, steps=[1, 2, 5, 10]))


def power_axis(axis: Axis) -> None:
    """Label an axis of natural logs with the numbers: powers of ten, or values between them."""
    axis.set_major_locator(_NormLocator())

    def text(nats: float, _: object = None) -> str:
        low, high = axis.get_view_interval()
        return norm_text(nats, plain=abs(high - low) <= 2 * DECADE)

    axis.set_major_formatter(FuncFormatter(text))


class _NormLocator(Locator):
    """Ticks at round norms on an axis in nats."""

    def __call__(self) -> Any:
        return self.tick_values(*self.axis.get_view_interval())  # type: ignore[union-attr]

    def tick_values(self, vmin: float, vmax: float) -> Any:
        first = np.floor(vmin / DECADE)
        if vmax - vmin > 2 * DECADE:
            every = np.ceil((vmax - vmin) / DECADE / MAX_TICKS)
            return DECADE * every * np.arange(np.floor(first / every), vmax / DECADE / every + 1)
        low, high = np.exp(vmin - first * DECADE), np.exp(vmax - first * DECADE)
        evenly = MaxNLocator(MAX_TICKS, steps=[1, 2, 5, 10])
        norms = np.asarray(evenly.tick_values(low, high) if high < 5 * low else _ONE_TWO_FIVE)
        return np.log(norms[norms > 0]) + first * DECADE


def norm_text(nats: float, plain: bool = False) -> str:
    """Write the norm whose log is given: "0.2", "1", "$10^{-4}$"; if plain, "0.1", not a power."""
    exponent = int(np.floor(nats / DECADE + 1e-9))
    mantissa = float(np.exp(nats - exponent * DECADE))
    if -3 < exponent < 3 and (plain or not np.isclose(mantissa, 1)):
        return f"{np.exp(nats):.3g}"
    power = f"10^{{{exponent}}}" if exponent else "1"
    return f"${power}$" if np.isclose(mantissa, 1) else rf"${mantissa:.3g}\cdot{power}$"
