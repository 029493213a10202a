"""The objective of a search: the number that each point returns to the sweeper that chose it."""

import re
from collections.abc import Iterable, Mapping
from math import inf, isnan
from typing import Any, NamedTuple

from gradlab.components import ConfigError
from gradlab.config import Sweep
from gradlab.point import Status

NO_SEARCHES = (  # sweepers that choose all points before the first runs
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "hydra_plugins.gradlab_sweeper.ProductSweeper",
    "hydra_plugins.gradlab_sweeper_sobol.SobolSweeper",
)
HIGHER_IS_BETTER = ("eval/accuracy", "jacobian/horizon", "success/solved")
LOWER_IS_BETTER = ("eval/", "train/", "success/first_hit", "time/")
BEST_AT_ZERO = ("jacobian/decay_rate", "jacobian/log_norm/", "lyapunov/max")
OF_A_LENGTH = re.compile(r"^eval/length_\d+/")  # metrics at one of task.test_lengths


class Objective(NamedTuple):
    """A number of a point's summary, and whether the sweeper looks for the highest."""

    name: str
    maximised: bool

    @property
    def worst(self) -> float:
        """Return the value of a point without a result: no sweeper comes back to it."""
        return -inf if self.maximised else inf

    def best(self, values: Iterable[float]) -> float:
        """Return the best of several points' values."""
        return (max if self.maximised else min)(values)

    def of(self, status: Status) -> float:
        """Return a point's value: of measures that are best at zero, such as decay rates, |x|.

        Points that failed, diverged or were pruned have the worst, and those whose value is NaN.

        Args:
            status: the point's, as in status.json.

        Raises:
            ConfigError: the point is done, and has no such number.
        """
        if status["state"] != "done":
            return self.worst
        summary = status["summary"]
        if self.name not in summary:
            known = ", ".join(sorted(name for name in summary if "/" in name))
            raise ConfigError(f"sweep.objective={self.name} is no number of these points: {known}.")
        value = float(summary[self.name])
        if isnan(value):
            return self.worst
        return abs(value) if self.name.startswith(BEST_AT_ZERO) else value


def is_search(sweeper: Mapping[str, Any]) -> bool:
    """Return whether a sweeper chooses points by the values of others.

    Args:
        sweeper: the section `hydra.sweeper`.
    """
    return sweeper["_target_"] not in NO_SEARCHES


def objective_of(sweeper: Mapping[str, Any], settings: Sweep) -> Objective:
    """Return the objective of a search.

    Args:
        sweeper: the section `hydra.sweeper`; its `direction`, minimize or maximize, is that of
            Optuna's sweeper. Without one, the metric says what is better; unknown ones are
            minimised.
        settings: the config's sweep section.

    Raises:
        ConfigError: the sweeper looks for the worst values of a known metric, or for several
            objectives at once.
    """
    name, given = settings.objective, sweeper.get("direction")
    highest = OF_A_LENGTH.sub("eval/", name) in HIGHER_IS_BETTER
    known = highest or name.startswith((*LOWER_IS_BETTER, *BEST_AT_ZERO))
    if given is None:
        return Objective(name, highest)
    direction = getattr(given, "name", given)  # an enumeration's, or a text
    if direction not in ("minimize", "maximize"):
        raise ConfigError(
            f"hydra.sweeper.direction must be minimize or maximize, for the one number that "
            f"sweep.objective names; got {given}."
        )
    if known and highest != (direction == "maximize"):
        better, remedy = ("higher", "maximize") if highest else ("lower", "minimize")
        raise ConfigError(
            f"sweep.objective={name} is better the {better} it is: type "
            f"hydra.sweeper.direction={remedy}."
        )
    return Objective(name, direction == "maximize")


def ends_with(tried: int, planned: int | None, sweeper: Mapping[str, Any]) -> bool:
    """Return whether a search ends after so many points; true of sweepers that do not say.

    Args:
        tried: number of points so far.
        planned: number of all points, if its sweeper has said so.
        sweeper: the section `hydra.sweeper`, whose `n_trials` else is that number.
    """
    total = planned or sweeper.get("n_trials")
    return total is None or tried >= total
