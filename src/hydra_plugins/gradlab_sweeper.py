"""Hydra's sweeper over all combinations of values, with combinations left out on request.

Sweepers that build on it are in modules whose names begin with this one's: Hydra executes all
modules of this folder anew, in alphabetical order, and a class made before its base is another's.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep, Sweep
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.gradlab_launcher import FusedLauncher, write_multirun


class ProductSweeper(BasicSweeper):
    """Hydra's own sweeper, with combinations left out on request and checks before it writes."""

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, str] | None = None,
        skip: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Sweep over all combinations of `params` except those that match an entry of `skip`."""
        super().__init__(max_batch_size, params)
        self._skip = skip or []

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep of `params` and the command's words.

        Hydra's own makes the sweep's folder first. Here a folder is made, and multirun.yaml
        written, once every point has been checked: by `launch` where the launcher sees all points.

        Raises:
            ConfigError: the sweep's folder cannot be made, the points are given in batches to a
                launcher that checks them together, or a point is wrong.
        """
        folder = self.checked_folder()
        batches = self.split_arguments(self.parsed(arguments), self.max_batch_size)
        if self.is_fused:
            return self._launch(batches)
        from gradlab import records
        from gradlab.sweeps import ledger

        points = self._check_points(folder, [point for batch in batches for point in batch])
        with ledger.locked(folder):
            for point in points:
                records.unshare_config(folder / point)
            write_multirun(self.master, folder)
            return self._launch(batches)

    def checked_folder(self) -> Path:
        """Return the sweep's folder, once the sweeper's own options are checked.

        Raises:
            ConfigError: the folder cannot be made, or an option is wrong.
        """
        from gradlab.components import ConfigError

        folder = Path(_checked_folder(self.master))
        if self.master.sweep.plan_only and not self.is_fused:
            raise ConfigError("--dry needs a launcher that sees all points: hydra/launcher=fused.")
        if self.max_batch_size is not None and self.is_fused:
            raise ConfigError(
                "hydra.sweeper.max_batch_size must be null, since all points are checked before "
                f"the first runs; got {self.max_batch_size}. sweep.chunk=N limits how many run "
                "together."
            )
        if not isinstance(self.params, Mapping):
            raise ConfigError(
                f"hydra.sweeper.params must be keys with their values; got {self.params}."
            )
        is_list = isinstance(self._skip, Sequence) and not isinstance(self._skip, str)
        if not is_list or not all(isinstance(entry, Mapping) for entry in self._skip):
            raise ConfigError(
                "hydra.sweeper.skip must be a list of keys with their values, such as "
                f"[{{seed:[1,2]}}]; got {self._skip}."
            )
        return folder

    def parsed(self, arguments: Sequence[str]) -> list[Override]:
        """Return `params` and the command's words."""
        parser = OverridesParser.create(config_loader=self._context.config_loader)
        return parser.parse_overrides([*self._parse_config(), *arguments])

    def _launch(self, batches: list[list[list[str]]]) -> list[Sequence[JobReturn]]:
        launched: list[Sequence[JobReturn]] = []
        for batch in batches:
            assert self.launcher is not None
            launched.append(self.launcher.launch(batch, initial_job_idx=sum(map(len, launched))))
            for job in launched[-1]:
                _ = job.return_value  # raises the error of a job that failed
        return launched

    def split_arguments(  # type: ignore[override]  # Hydra's is static
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """Return the points, in batches.

        Raises:
            ConfigError: a key has no value, or all points are left out.
        """
        from gradlab.components import ConfigError

        for override in overrides:
            line, is_sweep = override.input_line, override.is_sweep_override()
            if is_sweep and not override.is_discrete_sweep():
                raise ConfigError(f"{line} names no values: type A,B,C or range(START,STOP,STEP).")
            if (
                is_sweep
                and override.key_or_group.startswith("sweep.")
                and override.key_or_group != "sweep.retry"
            ):
                raise ConfigError(f"{line}: give {override.key_or_group} one value for all points.")
            if isinstance(value := override.value(), RangeSweep) and value.step == 0:
                raise ConfigError(f"{line} has steps of 0: give a step, range(START,STOP,STEP).")
            if any(isinstance(x, Sweep) for x in getattr(value, "list", ())):
                raise ConfigError(f"{line} has a range among its values: type them all, A,B,C.")
            if is_sweep and not any(override.sweep_string_iterator()):
                raise ConfigError(f"{line} has no value: give one, or several.")
        batches = super().split_arguments(overrides, max_batch_size)
        skip = [_values(combination) for combination in self._skip]
        keys = {override.get_key_element() for override in overrides}
        if unknown := [key for combination in skip for key in combination if key not in keys]:
            raise ConfigError(
                f"hydra.sweeper.skip names {unknown[0]}, which no point is given; they are given "
                f"{', '.join(sorted(keys)) or 'nothing'}."
            )
        remaining = [
            [point for point in batch if not _is_skipped(point, skip)] for batch in batches
        ]
        if not any(remaining):
            raise ConfigError("hydra.sweeper.skip leaves out every point of this sweep.")
        return [batch for batch in remaining if batch]

    def _check_points(self, folder: Path, points: Sequence[Sequence[str]]) -> list[str]:
        """Compose and check all points, where the launcher does not do that itself.

        Returns:
            Their folders below the sweep's.

        Raises:
            ConfigError: a point's config is wrong, points share a folder, a folder holds another
                point or one that runs, or an option that is swept over has its own sweep.
        """
        from gradlab.components import ConfigError
        from gradlab.config import check
        from gradlab.identity import identity
        from gradlab.records import MULTIRUN, WANDB, leases
        from gradlab.sweeps import ledger, refusals
        from gradlab.sweeps.composer import Composer
        from gradlab.sweeps.groups import Built, program_of

        resumes = bool(self.master.sweep.resume and ledger.read(folder))
        names = refusals.describe(range(len(points)), points)
        compose = Composer(self._context.config_loader, self.master)
        composed = [compose(point, number) for number, point in enumerate(points)]
        refusals.check_options(self.master, points, composed)
        folders, programs, runs = [], dict[str, Built](), []
        for name, config in zip(names, composed, strict=True):
            HydraConfig.instance().set_config(config)  # interpolations may look into it
            checked, own = check(config), str(config.hydra.sweep.subdir)
            runs.append(checked.wandb)
            if checked.measure is None:
                program_of(checked, programs)
            holds = ledger.status_in(folder / own).get("identity") if resumes else None
            if other := leases.holder(folder / own):  # Hydra would write beside it
                raise ConfigError(f"{other} runs {name}: end it there ({other.end}), or wait.")
            if holds not in (None, identity(checked)):
                raise ConfigError(
                    f"{name} has the folder {own!r}, which holds another point of this sweep: "
                    "repeat the command as it was."
                )
            folders.append(own)
        refusals.check_run_id(runs)
        refusals.check_folders(str(folder), names, folders)
        if not resumes:
            refusals.check_unused(folder, [*folders, MULTIRUN, WANDB])
        return folders

    @property
    def is_fused(self) -> bool:
        """Return whether the launcher sees all points at once."""
        return isinstance(self.launcher, FusedLauncher)

    @property
    def _context(self) -> HydraContext:
        assert self.hydra_context is not None
        return self.hydra_context

    @property
    def master(self) -> DictConfig:
        """Return the sweep's own config, which Hydra gives at `setup`."""
        assert self.config is not None
        return self.config


def _checked_folder(master: DictConfig) -> str:
    """Return the sweep's folder as it was typed."""
    from gradlab.components import ConfigError
    from gradlab.records import sweep_folder

    words: Any = OmegaConf.to_container(master.hydra.overrides.hydra)  # interpolations stay
    if any(word.startswith("hydra.run.dir=") for word in words):
        raise ConfigError("hydra.run.dir is not a sweep's folder: type hydra.sweep.dir=FOLDER.")
    folder = str(master.hydra.sweep.dir)
    if not folder:
        raise ConfigError("hydra.sweep.dir must be a folder; got ''.")
    resumed = master.sweep.resume
    if resumed and Path(resumed) != Path(folder):
        raise ConfigError(
            f"sweep.resume={resumed} goes on in that folder: leave hydra.sweep.dir={folder} out."
        )
    check_folder("sweep.resume" if resumed else "hydra.sweep.dir", Path(folder), master)
    whole = sweep_folder(Path(folder) / "point")
    if resumed and whole != Path(folder):
        raise ConfigError(
            f"sweep.resume must be the folder of a sweep; got {folder!r}, a part of {str(whole)!r}."
        )
    return folder


def check_folder(key: str, folder: Path, config: DictConfig) -> None:
    """Check that a command may make its folder, or write into it; nothing is made.

    Args:
        key: what names the folder, for the sentence.
        folder: the folder of a sweep or of a single job.
        config: the command's.

    Raises:
        ConfigError: it cannot be made or written to, or it holds points that are not resumed.
    """
    from gradlab.components import ConfigError
    from gradlab.config import LONGEST_NAME, too_long
    from gradlab.records import CONFIG, MULTIRUN, STATUS, SWEEP

    if config.hydra.output_subdir != CONFIG.parent.name:
        raise ConfigError(f"hydra.output_subdir must be {CONFIG.parent.name}: leave it out.")
    if long := too_long(folder):
        raise ConfigError(
            f"{key} has a name of {len(long)} characters, {long[:40]!r}…; a file system takes "
            f"{LONGEST_NAME}: choose another."
        )
    try:
        above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise ConfigError(f"{key}={folder} cannot be used: {error.strerror}.") from error
    writable = config.sweep.plan_only or os.access(above, os.W_OK | os.X_OK)
    if not above.is_dir() or not writable:
        reason = "may not be written to" if above.is_dir() else "is no folder"
        raise ConfigError(f"{key}={folder} cannot be made: {above} {reason}; choose another.")
    if config.sweep.resume:
        return
    if (folder / STATUS).exists():
        raise ConfigError(f"{str(folder)!r} is the folder of a point: choose another.")
    others = folder.rglob(str(CONFIG)) if (folder / MULTIRUN).exists() else ()  # by no record
    numbered = (path.parent for path in folder.glob(f"*/{STATUS}") if path.parent.name.isdigit())
    if (folder / SWEEP).exists() or any(others) or any(numbered):
        raise ConfigError(f"{str(folder)!r} holds a sweep: go on with it by sweep.resume.")


def _values(combination: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the values of each key of an entry of `skip`, as the points of a sweep have them."""
    parser = OverridesParser.create()
    values: dict[str, list[str]] = {}
    for key, given in combination.items():
        is_list = isinstance(given, Sequence) and not isinstance(given, str)
        text = ",".join(map(str, given)) if is_list else given
        (override,) = parser.parse_overrides([f"{key}={text}"])
        is_several = override.is_discrete_sweep()
        one = override.get_value_element_as_str
        values[key] = list(override.sweep_string_iterator()) if is_several else [one()]
    return values


def _is_skipped(point: Sequence[str], skip: Sequence[Mapping[str, Sequence[str]]]) -> bool:
    given = dict(override.split("=", 1) for override in point)
    return any(
        all(any(_same(given[key], value) for value in values) for key, values in entry.items())
        for entry in skip
    )


def _same(given: str, value: str) -> bool:
    """Return whether two values of a key are the same, 1 and 1.0 too."""
    try:
        return given == value or float(given) == float(value)
    except ValueError:
        return False
