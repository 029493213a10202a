"""Measure whether a start reaches as far as the task needs, and which other start would."""

from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx

from gradlab import decay
from gradlab.advice.growth import Profile
from gradlab.advice.recommendation import Recommendation, Trial
from gradlab.advice.starts import Start, layers_of, starts
from gradlab.advice.windows import ByLag
from gradlab.jacobian import credit
from gradlab.sentences import counted

Measure = Callable[..., Profile]  # of a cell and norm=
NAME = "reach of the start"
MOST = 0.95  # of the gradient


def reach(
    worst: Profile, by_lag: ByLag, *, lag: int | None, cell: Any, measure: Measure
) -> Recommendation:
    """Compare the horizon with the lag that the task demands, and try starts if it falls short.

    Without a lag nothing is recommended. Where gradients vanish, the loss's gradient lies at short
    lags because it vanishes, so it cannot tell whether the task needs longer ones.

    Args:
        worst: profile of the spectral norm, of the cell as it is.
        by_lag: sums of the terms by lag of the present gradient.
        lag: that the task demands, in steps; None if it is not known.
        cell: as it is.
        measure: measures another cell's profile on the same sequences.
    """
    horizon, steps = decay.horizon(worst), len(worst) - 1
    numbers: dict[str, Any] = {"horizon": horizon}
    if lag is None:
        return Recommendation(NAME, {}, _without_lag(horizon, steps, by_lag, numbers), "", numbers)
    numbers |= {"lag": lag, "worst": float(worst[lag])}
    present = (
        f"the norm of ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ is {_factor(worst[lag])} at the task's lag of "
        f"{counted(lag, 'step')}, with a horizon of {_steps(horizon, steps)}"
    )
    if horizon >= lag:
        grows = ", and grows on the way" if worst[lag] > decay.TENFOLD else ""
        return Recommendation(NAME, {}, f"{present}: it reaches{grows}.", "", numbers)
    trials = tried(cell, lag, measure)
    if not trials:
        reason = (
            f"{present}: it does not reach. No other start was tried, since gradlab does not know "
            "where this step keeps recurrent weights or gate biases."
        )
        return Recommendation(NAME, {}, reason, "", numbers)
    best = trials[0]
    after = f"with {best.name} the horizon is {_steps(best.horizon, steps)}"
    if best.horizon < lag:
        reason = f"{present}: it does not reach, and no start that was tried does: {after}."
        return Recommendation(NAME, {}, reason, "", numbers, trials)
    reason = (
        f"{present}: it does not reach. {after[0].upper()}{after[1:]}, and the norm at lag {lag} "
        f"is {_factor(best.worst)} (RMS, the typical case: {_factor(best.typical)})."
    )
    numbers |= {"horizon_after": best.horizon, "worst_after": best.worst}
    return Recommendation(NAME, best.settings, reason, f"{best.cost}.", numbers, trials)


def tried(cell: Any, lag: int, measure: Measure) -> tuple[Trial, ...]:
    """Measure other starts of a cell; return them, the best first; none of an unknown cell.

    Those that reach come first, and among them the one whose RMS norm at the lag is closest to 1:
    all directions keep their norm there (dynamical isometry), where a spectral norm of 1 may be
    that of a single one. Of those that do not reach, the further one comes first.
    """
    if not isinstance(cell, nnx.RNNCellBase) or not layers_of(cell):
        return ()

    def reaches(cell: nnx.RNNCellBase) -> bool:
        try:
            return decay.horizon(measure(cell, norm="spectral")) >= lag
        except FloatingPointError:  # it reaches, and explodes beyond float32
            return True

    def rank(trial: Trial) -> tuple[int, float]:
        return (0, abs(trial.typical)) if trial.horizon >= lag else (1, -trial.horizon)

    try:
        trials = [_trial(start, lag, measure) for start in starts(cell, lag, reaches)]
    except ValueError:  # the layers have no gate biases
        return ()
    return tuple(sorted(trials, key=rank))


def _trial(start: Start, lag: int, measure: Measure) -> Trial:
    worst, typical = (measure(start.cell, norm=norm) for norm in ("spectral", "rms"))
    name, settings, cost, cell = start
    at_lag = float(worst[lag]), float(typical[lag])
    return Trial(name, settings, cost, decay.horizon(worst), *at_lag, cell)


def _without_lag(horizon: float, steps: int, by_lag: ByLag, numbers: dict[str, Any]) -> str:
    """Describe the reach, and which lags carry the gradient, where no demand is known."""
    if horizon > steps:
        within = counted(steps, "step")
        return f"the norm of ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ does not fall to 1/e within {within}: it reaches."
    share = np.cumsum(credit(by_lag, np.inf).share)
    furthest = int(np.flatnonzero(share < MOST).max(initial=-1)) + 1
    numbers["gradient_lag"] = furthest
    return (
        f"the norm of ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ falls to 1/e in {horizon:.1f} steps. Lags up to {furthest} carry "
        f"{MOST:.0%} of the loss's gradient, but a gradient that vanishes on the way cannot show "
        "which lags the task needs: pass lag=, the steps between a cause and its answer, to have "
        "starts tried that reach it."
    )


def _factor(log_norm: float) -> str:
    return f"{np.exp(log_norm):.2g}"


def _steps(horizon: float, steps: int) -> str:
    return f"{horizon:.1f} steps" if horizon < np.inf else f"more than {counted(steps, 'step')}"
