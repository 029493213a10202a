"""Pruning: a point of a search ends early where its curve is worse than those of earlier trials.

Optuna's pruners decide, whenever a point is logged, by the trials of earlier batches: their records
are complete. So each decision is the same on every launcher, and again when a search is resumed.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gradlab import records
from gradlab.components import ConfigError
from gradlab.point import Judge
from gradlab.schedule import logged_steps
from gradlab.sweeps import ledger
from gradlab.sweeps.objective import Objective

if TYPE_CHECKING:
    import optuna

PRUNERS = {  # Optuna's classes
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
}
ALONG_THE_WAY = ("eval/", "train/")  # metrics that every logged update has
WARM_UP = 4  # the part of training after which trials are first compared at every logged update
CURVE = ("train.steps", "train.log_every")  # keys that decide which updates a curve has


class Pruning(NamedTuple):
    """A pruner of Optuna's, and the values that it compares."""

    goal: Objective
    pruner: Any
    steps: Sequence[int]  # the updates after which points have a value

    def judge(self, earlier: Sequence["optuna.trial.FrozenTrial"]) -> Judge:
        """Return the function that judges a point by its rows, each time that there are more.

        Args:
            earlier: all trials asked for before the point's; those of its batch have no values.
        """
        import optuna

        study = new_study(self.goal, deepcopy(self.pruner), optuna.samplers.RandomSampler())
        study.add_trials(earlier)
        trial, judged = study.ask(), set[int]()

        def reason(rows: Sequence[Mapping[str, float]]) -> str:
            for step, value in self._values(rows).items():
                if step in judged:
                    continue
                judged.add(step)
                if _is_pruned(trial, step, value):
                    by = type(self.pruner).__name__
                    return f"{self.goal.name} {value:.4g} after update {step}: by Optuna's {by}"
            return ""

        return reason

    def tell(self, study: "optuna.Study", trial: "optuna.Trial", folder: Path) -> None:
        """Tell Optuna a point's curve and how it has ended, from its records.

        One that a rule ended, that diverged or failed has its last value, or the worst, at all
        later steps, so that others are compared with it there too.

        Args:
            study: the search's.
            trial: the point's.
            folder: the point's; it has ended.
        """
        import optuna

        status = ledger.status_in(folder)
        try:
            values = self._values(records.load_metrics(folder).to_dict("records"))
        except FileNotFoundError:  # it failed before its first row
            values = {}
        end, is_pruned = self.goal.of(status), status["state"] == "pruned"
        last = max(values, default=0)
        values |= {step: end for step in self.steps if step > last and not is_pruned}
        for step, value in values.items():
            _is_pruned(trial, step, value)  # for what Optuna keeps of a trial, such as rungs
        if is_pruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, end)

    def _values(self, rows: Sequence[Mapping[Any, Any]]) -> dict[int, float]:
        """Return the objective by update; the one before training is none of a trial's."""
        name = self.goal.name
        known = {int(row["train/step"]): float(row[name]) for row in rows if name in row}
        return {step: value for step, value in known.items() if step > 0 and value == value}


def pruning_of(
    name: str,
    options: Mapping[str, Any],
    goal: Objective,
    train: Any,
    seeds: Sequence[str],
    searched: Sequence[str],
) -> Pruning:
    """Return the pruning of a search.

    Args:
        name: of PRUNERS.
        options: of Optuna's class, in updates where it says steps or resources.
        goal: the search's objective.
        train: the config's section, of all points.
        seeds: of every trial.
        searched: the keys that differ from trial to trial.

    Raises:
        ConfigError: there is no such pruner, an option is wrong, or the trials have no curves that
            could be compared.
    """
    steps, log_every = int(train.steps), int(train.log_every)
    _check(name, goal, steps, log_every, seeds, searched)
    import optuna

    if name == "hyperband" and optuna.__version__.startswith("2."):
        raise ConfigError(
            "hydra.sweeper.pruner=hyperband needs Optuna 3 or newer, which draws the same brackets "
            f"in every process: type pip install 'optuna>=3'; this one is {optuna.__version__}."
        )
    defaults: Mapping[str, Mapping[str, Any]] = {
        "median": {"n_warmup_steps": steps // WARM_UP},
        "percentile": {"percentile": 25.0, "n_warmup_steps": steps // WARM_UP},
        "halving": {"min_resource": log_every},
        "hyperband": {"min_resource": log_every, "max_resource": steps},
    }
    try:
        make: Any = getattr(optuna.pruners, PRUNERS[name])
        pruner = make(**{**defaults[name], **options})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"hydra.sweeper.pruner={name}: {error}") from error
    return Pruning(goal, pruner, sorted(logged_steps(steps, log_every) - {0}))


def _check(
    name: str,
    goal: Objective,
    steps: int,
    log_every: int,
    seeds: Sequence[str],
    searched: Sequence[str],
) -> None:
    remedy, given = "or leave hydra.sweeper.pruner out", "hydra.sweeper.pruner"
    if name not in PRUNERS:
        raise ConfigError(f"{given} must be one of {', '.join(PRUNERS)}; got {name}.")
    if not goal.name.startswith(ALONG_THE_WAY):
        raise ConfigError(
            f"{given}={name} compares values from along the way, and sweep.objective={goal.name} "
            f"is known at the end: choose one that begins with eval/ or train/, {remedy}."
        )
    if len(seeds) > 1:
        raise ConfigError(
            f"{given}={name} judges trials of one point: give one seed instead of {len(seeds)}, "
            f"{remedy}."
        )
    if keys := [key for key in CURVE if key in searched]:
        raise ConfigError(
            f"{given}={name} compares trials at the same updates: give {keys[0]} one value, "
            f"{remedy}."
        )
    if log_every >= steps:
        raise ConfigError(
            f"{given}={name} needs a value before the last of {steps} updates: train.log_every "
            f"must be below that; got {log_every}."
        )


def new_study(goal: Objective, pruner: Any, sampler: Any) -> "optuna.Study":
    """Return an empty study; its name is always the same, as Hyperband draws brackets by it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = optuna.study.StudyDirection
    direction = directions.MAXIMIZE if goal.maximised else directions.MINIMIZE
    return optuna.create_study(
        study_name="gradlab", sampler=sampler, pruner=pruner, direction=direction
    )


def _is_pruned(trial: "optuna.Trial", step: int, value: float) -> bool:
    trial.report(value, step)
    with np.errstate(invalid="ignore"):  # the values of trials that diverged are infinite
        return trial.should_prune()
