"""Sentences on a map: the course of its mean norm over lag, and its verdict; numbers as text.

Sentences give norms as powers of ten and rates in decades a step (1 decade is a factor of 10, 2.303
nats); metrics on disk and in W&B are in nats.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from gradlab import decay
from gradlab.decay import TENFOLD, MapOrProfile

OTHER_RATES = {  # metrics to compare the decay rate with, and their labels
    "lyapunov/max": "λ₁",
    "theory/mean_field": "mean field",
    "theory/mean_log_forget": "E ln f",
}
EARLY = 4  # half of a fall in this part of its lags is worth a word: a line would take half of them
MINUS = "\N{MINUS SIGN}"
FLAT = 0.05 * TENFOLD  # nats: a smaller change is none, where powers of ten have one decimal place


class Turn(NamedTuple):
    """A point of a curve: the lag in steps, and the log norm there over that at lag 0, in nats."""

    lag: int
    change: float


class Course(NamedTuple):
    """The course of the mean norm over lag, as text or as numbers.

    Changes are differences from the log norm at the first lag that is neither zero nor unmeasured
    (lag 0, where the map has an identity there), in nats.

    Attributes:
        start: the lag that the others are compared with.
        peak, trough: the highest and the lowest point; of several, that of the shortest lag.
        half: the first point at which half of the change to the first of them is made.
        end: the longest lag that was measured.
        below_start: the lag from which on all changes are negative, in steps; inf if the last is
            not.
        below_e: the same, of changes of −1 or less: the norm has fallen to 1/e, and stays there.
        above_start: the lag from which on all changes are positive; inf if the last is not.
    """

    start: int
    peak: Turn
    trough: Turn
    half: Turn
    end: Turn
    below_start: float
    below_e: float
    above_start: float

    def __str__(self) -> str:
        """Return the course in words: "rises to 10^0.4 at lag 3, falls to 10^-2.1 at lag 64, …"."""
        return self.words(power)

    def words(self, norm: Callable[[float], str]) -> str:
        """Return the course in words, with norms written by a function of their natural logs."""
        words, level = list[str](), 0.0
        for lag, change in (*sorted([self.peak, self.trough]), self.end):
            if abs(change - level) >= FLAT:
                verb = "rises" if change > level else "falls"
                words.append(f"{verb} to {norm(change)} at lag {lag}")
                if level == 0 and change > -np.inf and EARLY * self.half.lag <= lag:
                    words[0] += f" ({norm(self.half.change)} by lag {self.half.lag})"
                level = change
        if self.peak.change >= FLAT and self.below_start < np.inf:
            e = self.below_e == self.below_start
            words.append(f"stays below {'1/e' if e else '1'} from lag {self.below_start:.0f}")
            if self.below_start < self.below_e < np.inf:
                words[-1] += f" and below 1/e from lag {self.below_e:.0f}"
        elif self.trough.change <= -FLAT and self.above_start < np.inf:
            words.append(f"stays above 1 from lag {self.above_start:.0f}")
        unit = f" (1 is the norm at lag {self.start})" if self.start else ""
        return (", ".join(words) or "stays at 1") + unit


def course(log_norms: MapOrProfile) -> Course | None:
    """Return how the mean norm runs over lag: its peak, its trough, and where it stays below 1.

    A decay rate is one slope through the whole curve, and a horizon the first lag below 1/e. The
    course says how they go together: a curve that first rises may be vanishing and have no horizon.

    Args:
        log_norms: a map [..., t, k], or its `lag_profile`; nats.

    Returns:
        The course, which is text where it is printed; None if no lag was measured or all are zero.

    Raises:
        ValueError: it is neither.

    Example:
        >>> from gradlab.sentences import course
        >>> print(course(np.array([0.0, 2.0, 0.0, -2.0])))
        rises to 10^0.9 at lag 1, falls to 10^-0.9 at lag 3, stays below 1/e from lag 3
    """
    profile, stride = decay.profile_and_stride(log_norms)
    lags = np.flatnonzero(~np.isnan(profile))
    lags = lags[np.argmax(profile[lags] > -np.inf) :] if (profile > -np.inf).any() else lags[:0]
    if lags.size == 0 or np.isposinf(profile[lags[0]]):
        return None
    changes = profile[lags] - profile[lags[0]]
    steps = lags * stride
    turns = [Turn(int(lag), float(x)) for lag, x in zip(steps, changes, strict=True)]

    def stays(within: np.ndarray) -> float:
        outside = np.flatnonzero(~within)
        first = outside[-1] + 1 if outside.size else 0
        return float(steps[first]) if first < len(steps) else np.inf

    peak, trough = (turns[int(pick(changes))] for pick in (np.argmax, np.argmin))
    first = next((x for x in sorted([peak, trough]) if abs(x.change) >= FLAT), turns[-1])
    gone = np.abs(changes) >= abs(first.change) / 2
    toward = np.sign(changes) == np.sign(first.change)
    return Course(
        start=turns[0].lag,
        peak=peak,
        trough=trough,
        half=turns[int(np.argmax(gone & toward))],
        end=turns[-1],
        below_start=stays(changes < 0),
        below_e=stays(changes <= -1),
        above_start=stays(changes > 0),
    )


def power(log_norm: float) -> str:
    """Return a norm as a power of ten, from its natural log: "10^-2.1"; "1" near 1, "0" of −inf."""
    if abs(log_norm) < FLAT:
        return "1"
    return "0" if np.isneginf(log_norm) else f"10^{log_norm / TENFOLD:.1f}"


def verdict_sentence(metrics: Mapping[str, float], length: int) -> str:
    """Return the verdict and the numbers behind it as one line of text, rates in decades a step.

    Args:
        metrics: by their W&B names, in nats. The line shows the share of the pairs that are exactly
            zero, if any is, and the residual of the decay rate from every other rate among them.
        length: of the sequence, in steps.
    """
    rate = metrics["jacobian/decay_rate"]
    change, zeros = _change(rate, length), _zeros(metrics)
    parts = (
        [zeros, f"of the others {change}"] if decay.forgets(metrics, length) else [change, zeros]
    )
    parts = [part for part in parts if part]
    parts[0] = f"{decay.verdict_of(metrics, length)}: {parts[0]}"
    for name, label in OTHER_RATES.items():
        if np.isfinite(metrics.get(name, np.nan)) and np.isfinite(rate):
            residual = per_step(rate - metrics[name])
            parts.append(f"{label} {per_step(metrics[name])} (residual {residual})")
    if "theory/bound" in metrics:
        bound = metrics["theory/bound"]
        parts.append(f"bound {per_step(bound)}" + (" rules growth out" if bound < 0 else ""))
    if metrics.get("jacobian/unresolved"):
        parts.append(f"{metrics['jacobian/unresolved']:.1%} of the entries are lost to rounding")
    return "; ".join(parts)


def per_step(rate: float) -> str:
    """Return a rate, given in nats per step, as a number of decades per step with its sign."""
    return f"{rate / TENFOLD:+.4f}"


def counted(count: int, noun: str) -> str:
    """Return a number of things: "1 point", "2 points"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def percent(share: float) -> str:
    """Return a share that is not zero as text: "12.3%", "less than 0.1%"."""
    return f"{share:.1%}" if share >= 0.001 else "less than 0.1%"


def _change(rate: float, length: int) -> str:
    if np.isnan(rate):
        return "no lag was measured"
    if np.isneginf(rate):
        return "the gradient is exactly zero at every lag"
    change = f"the log norm changes by {per_step(rate)} decades a step"
    return f"{change}, {rate / TENFOLD * length:+.1f} over {length} steps"


def _zeros(metrics: Mapping[str, float]) -> str:
    """Say which share of the pairs is exactly zero, and the lag at which all are; "" if none is."""
    share, lag = metrics.get("jacobian/zero_share", 0), decay.forgotten_lag(metrics)
    if not share > 0 or np.isneginf(metrics["jacobian/decay_rate"]):
        return ""
    all_at = f", all at lag {lag}" if lag < np.inf else ""
    return f"{percent(share)} of the pairs are exactly zero{all_at}"


def with_deviation(number: float, deviation: float, sign: str = "") -> tuple[str, str]:
    """Write a number as precisely as its deviation: one digit of that, or two if it begins with 1.

    Of the larger of the two, at most three digits are written. A deviation below the resolution of
    float32 is rounding: it is 0.

    Args:
        number: to write.
        deviation: of it, not negative.
        sign: "+" to write the sign of the number always.

    Returns:
        The number, and the deviation after a "±".

    Example:
        >>> from gradlab.sentences import with_deviation
        >>> with_deviation(-0.1234, 0.0312)
        ('−0.12', '±0.03')
    """
    if deviation < np.finfo(np.float32).eps * abs(number):
        deviation = 0.0
    largest = max(abs(number), deviation)
    plain = f"±{deviation:.1g}".replace("-", MINUS)
    if not deviation > 0 or not 1e-4 < largest < 1e5:
        return three_digits(number, sign), plain
    power = int(np.floor(np.log10(deviation)))
    decimals = 1 - power if deviation < 2 * 10.0**power else -power
    decimals = max(0, min(decimals, 2 - int(np.floor(np.log10(largest)))))
    rounded = round(number, decimals) + 0.0  # −0.0 + 0.0 is 0.0
    text = f"{rounded:{sign}.{decimals}f}".replace("-", MINUS)
    return text, f"±{deviation:.{decimals}f}"


def three_digits(number: float, sign: str = "") -> str:
    """Write a number with three digits, of whole ones all: "−0.0123", "1234"."""
    form = ".0f" if 100 <= abs(number) < 1e5 else ".3g"
    return f"{number:{sign}{form}}".replace("-", MINUS)
