"""Hydra's sweeper over all combinations of values, with combinations left out on request."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.gradlab_launcher import FusedLauncher, remove_if_empty


class ProductSweeper(BasicSweeper):
    """Hydra's own sweeper, with combinations left out on request.

    It skips Hydra's trial composition where the launcher composes every point itself.
    """

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

        Raises:
            ConfigError: the sweep's folder cannot be made, or the points are given in batches to a
                launcher that checks them together.
        """
        from gradlab.components import ConfigError
        from gradlab.records import MULTIRUN

        folder = Path(_checked_folder(self._master))
        if self._master.sweep.plan_only and not isinstance(self.launcher, FusedLauncher):
            raise ConfigError("--dry needs a launcher that sees all points: hydra/launcher=fused.")
        if self.max_batch_size is not None and isinstance(self.launcher, FusedLauncher):
            raise ConfigError(
                "hydra.sweeper.max_batch_size must be null, since all points are checked before "
                f"the first runs; got {self.max_batch_size}. sweep.chunk=N limits how many run "
                "together."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"hydra.sweep.dir={folder} cannot be made: {error.strerror}; choose another folder."
            ) from error
        is_whole = not self._master.sweep.resume or (folder / MULTIRUN).exists()
        try:
            return super().sweep(arguments)
        except ConfigError:
            if not is_whole:  # Hydra has written it to a folder that may be no sweep's
                (folder / MULTIRUN).unlink(missing_ok=True)
            remove_if_empty(folder)
            raise

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

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose and check the points of all batches, unless the launcher does that itself.

        Raises:
            ConfigError: points share a folder, or an option that is swept over has its own sweep.
        """
        if isinstance(self.launcher, FusedLauncher) or self.batch_index > 1:
            return
        from gradlab.sweep import refusals
        from gradlab.sweep.composer import Composer

        assert self.overrides is not None
        assert self.hydra_context is not None
        points = [point for batch in self.overrides for point in batch]
        compose = Composer(self.hydra_context.config_loader, self._master)
        composed = [compose(point, number) for number, point in enumerate(points)]
        refusals.check_options(self._master, points, composed)
        folders = []
        for config in composed:
            HydraConfig.instance().set_config(config)  # interpolations may look into it
            folders.append(str(config.hydra.sweep.subdir))
        names = refusals.describe(range(len(points)), points)
        refusals.check_folders(str(self._master.hydra.sweep.dir), names, folders)

    @property
    def _master(self) -> DictConfig:
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
    whole = sweep_folder(Path(folder) / "point")
    if resumed and whole != Path(folder):
        raise ConfigError(
            f"sweep.resume must be the folder of a sweep; got {folder!r}, a part of {str(whole)!r}."
        )
    return folder


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
