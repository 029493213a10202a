"""A curve's numbers in words: decay rate, horizon, and where it first rises."""

import re
from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from gradlab import decay, sentences
from gradlab.figures.units import Unit, from_nats

RISE = 0.1  # nats: a curve that rises by less is not said to
LAST_POWER = 300  # nearly the last of a float; norms beyond it are round powers of ten
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
FALL = 1.0  # nats, below its peak: a curve that ends higher goes on growing


def numbers(
    profiles: Sequence[decay.Profile] | Float[np.ndarray, "seeds lags"],
    zero_shares: Sequence[float],
    mean: decay.Profile,
    stride: int,
    unit: Unit,
) -> str:
    """Return the decay rate and horizon of a setting's seeds, their zeros and their mean's course.

    Args:
        profiles: of each seed, from `decay.lag_profile`: mean log norm by lag, nats.
        zero_shares: of each seed, from `decay.zero_share`.
        mean: of the profiles.
        stride: steps from one lag to the next.
        unit: of the rate and of the course.

    Returns:
        Such as "decay rate −0.21 ± 0.02 decades/step; horizon 4.8 ± 0.3 steps", with the sample
        standard deviation over seeds.
    """
    rates = np.array([from_nats(decay.decay_rate(x), unit) / stride for x in profiles])
    horizons = np.array([decay.horizon(x) * stride for x in profiles])
    share = float(np.mean(zero_shares))
    zeros = f"{sentences.percent(share)} of the pairs exactly zero" if 0 < share < 1 else ""
    parts = [_rate(rates, unit), _horizon(horizons), zeros, course(mean, stride, unit)]
    return superscript("; ".join(part for part in parts if part))


def course(profile: decay.Profile, stride: int, unit: Unit) -> str:
    """Return the course of a curve that first rises and then falls; "" of any other.

    Such a curve may vanish without ever falling to 1/e, so that its horizon is inf.

    Args:
        profile: mean log norm by lag, nats.
        stride: steps from one lag to the next.
        unit: "decades" gives norms, "nats" log norms.

    Returns:
        Such as "rises to 7.4 at lag 3, falls to 0.1 at lag 64, stays below 1 from lag 21".
    """
    lags = stride * np.arange(len(profile))
    found = sentences.course(xr.DataArray(profile, {"lag": lags}, ["lag"]))
    if found is None or found.peak.change < RISE:
        return ""
    if found.peak.change - found.end.change < FALL:
        return ""
    words = found.words(lambda log_norm: _height(log_norm, unit))
    is_relative = found.start == 0 and abs(profile[0]) >= RISE
    return f"{words} (1 is the norm at lag 0)" if is_relative else words


def superscript(text: str) -> str:
    """Return text with exponents as the page's axis and readout write them.

    Example:
        >>> from gradlab.figures.explorer.words import superscript
        >>> superscript("2.1e-06")
        '2.1·10⁻⁶'
    """

    def power(found: re.Match[str]) -> str:
        exponent = int(found[1].replace(sentences.MINUS, "-"))
        return "·10" + str(exponent).translate(SUPERSCRIPT)

    return re.sub(rf"(?<=\d)e([-+{sentences.MINUS}]\d+)", power, text)


def _height(log_norm: float, unit: Unit) -> str:
    if np.isneginf(log_norm):
        return "exactly 0"
    decades = from_nats(log_norm, "decades")
    if unit == "nats":
        text = f"{log_norm:.2f} nats"
    else:
        text = f"{10**decades:.2g}" if abs(decades) < LAST_POWER else f"1e{decades:+.0f}"
    return text.replace("-", sentences.MINUS)


def _rate(rates: Float[np.ndarray, "seeds"], unit: Unit) -> str:
    finite = rates[np.isfinite(rates)]
    if finite.size:
        some = f" in {finite.size} of {rates.size} seeds" if finite.size < rates.size else ""
        return f"decay rate {_mean(finite, '+')} {unit}/step{some}"
    return "exactly zero at every lag" if np.isneginf(rates).any() else "not measured"


def _horizon(horizons: Float[np.ndarray, "seeds"]) -> str:
    reached, never = horizons[np.isfinite(horizons)], int(np.isinf(horizons).sum())
    if reached.size == 0:
        return "never falls to 1/e" if never else ""
    some = f" in {reached.size} of {horizons.size} seeds, never in {never}" if never else ""
    return f"horizon {_mean(reached)} steps{some}"


def _mean(values: Float[np.ndarray, "seeds"], sign: str = "") -> str:
    """Return finite values as "mean ± sample standard deviation", or one value by itself."""
    mean = float(values.mean())
    if values.size == 1:
        return sentences.three_digits(mean, sign)
    text, deviation = sentences.with_deviation(mean, float(values.std(ddof=1)), sign)
    return f"{text} {deviation.replace('±', '± ')}"
