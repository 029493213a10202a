"""The curve of a setting: the mean over its seeds where none is exactly zero, with its interval."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gradlab import decay
from gradlab.figures import bands
from gradlab.figures.explorer.words import numbers
from gradlab.figures.units import Unit, from_nats


class Reading(NamedTuple):
    """One network at one training step."""

    log_norms: Float[np.ndarray, "pairs"]  # its map at the kept pairs (t, k); nats, mean of samples
    profile: decay.Profile
    zero_share: float  # of its pairs k < t

    def ends(self) -> bool:
        """Return whether the curve ends before the longest lag since all is exactly zero there."""
        rest = self.profile[np.argmax(np.isfinite(self.profile)) :]
        return self.zero_share > 0 and not np.isfinite(rest).all()


def mean_curve(
    readings: Sequence[Reading], lags: Sequence[int], stride: int, unit: Unit
) -> dict[str, Any]:
    """Return the curve of one network, or of the seeds of a setting, ready for JSON.

    Args:
        readings: of each.
        lags: those to show, in steps.
        stride: steps from one entry of a profile to the next.
        unit: of log norms and rates.

    Returns:
        `curve` (`bands.mean_and_limits` at the lags, null where it is not finite); `numbers` in
        words; `horizon`, the lag and log norm at which the mean has fallen to 1/e, or null; from
        four seeds on, `low` and `high` (95 % bootstrap interval of the mean).
    """
    profiles = np.stack([x.profile for x in readings])
    several = len(readings) >= bands.FEW
    mean, *limits = bands.mean_and_limits(profiles.T, "ci" if several else "none")
    at = np.asarray(lags) // stride
    curve = {
        "curve": _json(from_nats(mean[at], unit)),
        "horizon": _horizon(mean, stride, unit),
        "numbers": numbers(profiles, [x.zero_share for x in readings], mean, stride, unit),
    }
    if several:
        low, high = (_json(from_nats(limit[at], unit)) for limit in limits)
        curve |= {"low": low, "high": high}
    return curve


def share(count: int, seeds: int) -> str:
    """Say of how many of a setting's seeds a mean is, as "2 of 5 seeds"."""
    return f"{seeds} seeds" if count == seeds else f"{count} of {seeds} seeds"


def note(readings: Sequence[Reading], seeds: int) -> str:
    """Say what the curve of a setting shows.

    Args:
        readings: of the seeds that were measured.
        seeds: of the setting.
    """
    count, ended = len(readings), sum(x.ends() for x in readings)
    if count == 1:
        shown = share(count, seeds)
    elif count < bands.FEW:
        shown = f"mean of {share(count, seeds)}, each a thin line"
    else:
        shown = f"mean of {share(count, seeds)}; band: 95 % bootstrap interval of the mean"
    if ended:
        verb = "is" if ended == 1 else "are"
        shown += (
            f"; {ended} of {count} seeds {verb} exactly zero from some lag on: the mean ends where "
            "the first is, the others go on as thin lines"
        )
    return shown


def _horizon(mean: decay.Profile, stride: int, unit: Unit) -> list[float] | None:
    """Return the lag and the height of the horizon's mark; None if it is not on the curve."""
    measured = np.flatnonzero(np.isfinite(mean))
    reach = decay.horizon(mean)
    if not (measured.size and reach <= measured[-1]):
        return None
    height = from_nats(mean[measured[0]] - 1, unit)
    return [round(reach * stride, 3), round(float(height), 3)]


def _json(curve: Float[np.ndarray, "lags"]) -> list[float | None]:
    return [round(float(x), 3) if np.isfinite(x) else None for x in curve]
