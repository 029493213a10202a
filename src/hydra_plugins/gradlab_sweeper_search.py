"""Hydra's sweeper that searches: Optuna chooses each batch of points by the values of those before.

The records are the search's memory: with `sweep.resume` the same command asks for the same points,
finds those that have ended, and goes on.
"""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from hydra_plugins.gradlab_launcher import FusedLauncher
from hydra_plugins.gradlab_sweeper import ProductSweeper
from hydra_plugins.gradlab_sweeper_sobol import Interval, checked_count, interval_of

if TYPE_CHECKING:
    import optuna

    from gradlab.sweeps.objective import Objective
    from gradlab.sweeps.pruning import Pruning

RESULTS = "optimization_results.yaml"  # as Hydra's own sweepers that search call it
OPTIONS = {"TPESampler": {"constant_liar": True}}  # a batch's trials are to differ


class Space(NamedTuple):
    """The keys that a search varies, and the words that its points share."""

    intervals: Mapping[str, Interval]  # by key
    choices: Mapping[str, Sequence[str]]  # values by key
    seeds: Sequence[str]  # words: every trial is run with each
    fixed: Sequence[str]  # words that all points share


class SearchSweeper(ProductSweeper):
    """Searches intervals and lists of values for the best `sweep.objective`."""

    def __init__(
        self,
        n_trials: int,
        n_jobs: int,
        sampler: str,
        seed: int,
        direction: str | None,
        pruner: str | None = None,
        pruner_options: dict[str, Any] | None = None,
        params: dict[str, str] | None = None,
    ) -> None:
        """Take the options of conf/hydra/sweeper/search.yaml."""
        super().__init__(None, params)
        self._trials, self._batch, self._seed = n_trials, n_jobs, seed
        self._sampler, self._direction = sampler, direction
        self._pruner, self._pruner_options = pruner, pruner_options or {}

    def sweep(self, arguments: list[str]) -> Any:
        """Run the search; write its best trial to optimization_results.yaml as it goes.

        Raises:
            ConfigError: the sweep's folder cannot be made, a point or an option is wrong, nothing
                is to be searched, or Optuna is missing.
        """
        from gradlab.components import ConfigError
        from gradlab.sweeps.objective import objective_of

        folder, launcher = self.checked_folder(), self.launcher
        if not isinstance(launcher, FusedLauncher):
            raise ConfigError(
                "hydra/sweeper=search gives its batches to gradlab's launchers: type "
                "hydra/launcher=fused, fused_slurm or fused_ray."
            )
        trials = checked_count("n_trials", self._trials)
        batch = checked_count("n_jobs", self._batch)
        space = _space(self.parsed(arguments))
        goal = objective_of({"direction": self._direction}, self.master.sweep)
        study, pruning = self._study(goal, space)
        launcher.planned = trials * len(space.seeds)
        launched = []
        for first in range(0, trials, batch):
            asked = [_ask(study, space) for _ in range(min(batch, trials - first))]
            points = [
                [*words, seed] if seed else words for _, words in asked for seed in space.seeds
            ]
            if pruning:
                earlier = study.get_trials()
                launcher.judges = [
                    partial(pruning.judge, earlier[: trial.number]) for trial, _ in asked
                ]
            jobs = launcher.launch(points, initial_job_idx=first * len(space.seeds))
            if not jobs:  # of a plan, no more can be known
                break
            for number, (trial, _) in enumerate(asked):
                own = jobs[number * len(space.seeds) :][: len(space.seeds)]
                if pruning:
                    pruning.tell(study, trial, Path(str(own[0].working_dir)))
                else:
                    study.tell(trial, fmean(job.return_value for job in own))
            _write_best(study, goal.worst, folder)
            launched.append(jobs)
        return launched

    def _study(self, goal: "Objective", space: Space) -> "tuple[optuna.Study, Pruning | None]":
        """Return an empty study; its sampler is seeded, so that a search can be repeated.

        Raises:
            ConfigError: Optuna is missing, or has no such sampler or pruner.
        """
        from gradlab.components import ConfigError
        from gradlab.sweeps.pruning import new_study, pruning_of

        try:
            import optuna
        except ImportError as error:
            raise ConfigError(
                "hydra/sweeper=search needs Optuna: type pip install 'gradlab[search]'."
            ) from error
        known = sorted(x for x in optuna.samplers.__all__ if x.endswith("Sampler"))
        if self._sampler not in known:
            raise ConfigError(
                f"hydra.sweeper.sampler must be one of Optuna's {', '.join(known)}; got "
                f"{self._sampler}."
            )
        make: Any = getattr(optuna.samplers, self._sampler)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                sampler = make(seed=self._seed, **OPTIONS.get(self._sampler, {}))
            except (ImportError, TypeError) as error:  # what it needs is missing, or is more
                raise ConfigError(f"hydra.sweeper.sampler={self._sampler}: {error}") from error
        searched = [key.lstrip("+") for key in [*space.intervals, *space.choices]]
        pruning = None
        if self._pruner_options and not self._pruner:
            raise ConfigError(
                "hydra.sweeper.pruner_options are those of a pruner: give hydra.sweeper.pruner too."
            )
        if self._pruner:
            pruning = pruning_of(
                self._pruner, self._pruner_options, goal, self.master.train, space.seeds, searched
            )
        return new_study(goal, pruning and pruning.pruner, sampler), pruning


def _space(words: Sequence[Override]) -> Space:
    """Return what is searched, and what is given.

    Raises:
        ConfigError: nothing is searched, or an interval is wrong.
    """
    from gradlab.components import ConfigError

    seeds, fixed = list[str](), list[str]()
    intervals, choices = dict[str, Interval](), dict[str, list[str]]()
    for word in words:
        key = word.get_key_element()
        if interval := interval_of(word):
            intervals[key] = interval
        elif not word.is_sweep_override():
            fixed.append(str(word.input_line))
        elif word.key_or_group == "seed":
            seeds = [f"{key}={x}" for x in word.sweep_string_iterator()]
        else:
            choices[key] = list(word.sweep_string_iterator())
    if not intervals and not choices:
        raise ConfigError(
            "hydra/sweeper=search has nothing to search: give a key an interval, such as "
            "'init.gain=interval(0.5,2)' or 'optim.learning_rate=tag(log,interval(1e-4,1e-1))', "
            "or several values."
        )
    return Space(intervals, choices, seeds or [""], fixed)


def _ask(study: "optuna.Study", space: Space) -> tuple["optuna.Trial", list[str]]:
    """Return a new trial, and its point's words.

    Raises:
        ConfigError: the sampler needs a library that is missing.
    """
    from gradlab.components import ConfigError

    try:
        return _asked(study.ask(), space)
    except ModuleNotFoundError as error:
        sampler, name = type(study.sampler).__name__, error.name
        raise ConfigError(
            f"hydra.sweeper.sampler={sampler} needs {name}: type pip install {name}."
        ) from error


def _asked(trial: "optuna.Trial", space: Space) -> tuple["optuna.Trial", list[str]]:
    words = list(space.fixed)
    for key, values in space.choices.items():
        words.append(f"{key}={trial.suggest_categorical(key, values)}")
    for key, interval in space.intervals.items():
        suggest: Any = trial.suggest_int if interval.is_whole else trial.suggest_float
        words.append(interval.word(suggest(key, interval.low, interval.high, log=interval.is_log)))
    return trial, words


def _write_best(study: "optuna.Study", worst: float, folder: Path) -> None:
    """Write the best trial, if one has a value, in the form of Hydra's Optuna sweeper."""
    import optuna

    if not study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE]):
        return
    best = study.best_trial
    if best.value == worst:
        return
    result = {"name": "optuna", "best_params": best.params, "best_value": best.value}
    OmegaConf.save(OmegaConf.create(result), folder / RESULTS)
