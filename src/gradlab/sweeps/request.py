"""The points that a command asks for: composed, checked, and matched with those on record."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gradlab.components import ConfigError
from gradlab.config import Config, check
from gradlab.identity import identity
from gradlab.records import SWEEP
from gradlab.sweeps import ledger, refusals, trust
from gradlab.sweeps.composer import Composer
from gradlab.sweeps.groups import Built, program_of
from gradlab.sweeps.ledger import Entry


@dataclass(frozen=True)
class Request:
    """A command's points.

    Attributes:
        loader: Hydra's.
        command: the command's own config, with Hydra's section.
        folder: the sweep's.
        programs: those of the points that were checked.
    """

    loader: ConfigLoader
    command: DictConfig
    folder: Path
    programs: dict[str, Built] = field(default_factory=dict)

    def recorded(self) -> list[Entry]:
        """Return the points of the sweep's record; what their own folders lack is composed."""
        entries = ledger.read(self.folder)
        if all(entry.config for entry in entries):
            return entries
        composed = self._compose_recorded(entries)
        programs: dict[str, Built] = {}
        checked = [check_point(config, programs)[1] for config in composed]
        ledger.check_unchanged(entries, checked)
        return [
            replace(entry, identity=now.identity, config=now.config)
            for entry, now in zip(entries, checked, strict=True)
        ]

    def compose(
        self, job_overrides: Sequence[Sequence[str]], first: int, recorded: Sequence[Entry]
    ) -> list[DictConfig]:
        """Compose the points of the command or, where it only resumes, the recorded ones.

        Args:
            job_overrides: each point's words.
            first: the number of the first, if the record has none of it or of a later one.
            recorded: the points on record.
        """
        if self.command.sweep.resume and all(map(ledger.only_bookkeeping, job_overrides)):
            return self._compose_recorded(recorded, job_overrides)
        first = max([first, *(entry.number + 1 for entry in recorded)])
        compose = Composer(self.loader, self.command)
        composed = [compose(overrides, first + i) for i, overrides in enumerate(job_overrides)]
        refusals.check_options(self.command, job_overrides, composed)
        return composed

    def check(self, composed: Sequence[DictConfig]) -> tuple[list[Config], list[Entry]]:
        """Check composed points; return their configs, and the points as the record keeps them."""
        configs, entries = zip(*(check_point(x, self.programs) for x in composed), strict=True)
        return list(configs), list(entries)

    def match(
        self, recorded: Sequence[Entry], requested: Sequence[Entry], may_differ: bool
    ) -> list[Entry]:
        """Return each point's recorded entry, or its new one, if the folder may hold them."""
        entries = ledger.match(recorded, requested)
        if self.command.sweep.resume:
            if not may_differ:
                ledger.check_same(recorded, entries)
        elif not recorded and (self.folder / SWEEP).exists():
            raise ConfigError(f"{str(self.folder)!r} holds a sweep: go on with it by sweep.resume.")
        return entries

    def _compose_recorded(
        self, recorded: Sequence[Entry], added: Sequence[Sequence[str]] = ((),)
    ) -> list[DictConfig]:
        """Compose the points of a record that may be anybody's.

        Args:
            recorded: the points.
            added: overrides of the command, each for all points.

        Raises:
            ConfigError: they would do more than set the keys of a point, or call what is foreign.
        """
        typed, options = list(self.command.hydra.overrides.task), self.loader.get_group_options
        trust.check_words((entry.overrides for entry in recorded), self.folder, options)
        compose = Composer(self.loader, self.command)
        words = [x for given in added for x in ledger.repeat_overrides(given, recorded)]
        composed = [compose(overrides, number) for number, overrides in enumerate(words)]
        for config, entry in zip(composed, cycle(recorded), strict=False):
            ledger.keep_data_path(config, entry)
        known = trust.known_targets(self.loader, typed)
        trust.check_targets(composed, known, self.command.sweep.trust, self.folder)
        if not {"wandb=online", "wandb.mode=online"} & {word.lstrip("+") for word in typed}:
            trust.keep_offline(composed, self.command.wandb)
        return composed


def check_point(composed: DictConfig, programs: dict[str, Built]) -> tuple[Config, Entry]:
    """Check a point, and that its parts fit together.

    Args:
        composed: the point's config, with Hydra's.
        programs: those of the points before it; its own is added.

    Returns:
        The checked config, and the point as the sweep's record keeps it.
    """
    # Interpolations look into it; set_config copies.
    HydraConfig.instance().cfg = composed  # type: ignore[assignment]
    config = check(composed)
    if config.measure is not None:
        raise ConfigError("measure is computed directly: leave --multirun and sweeps out.")
    program_of(config, programs)
    overrides = [x for x in composed.hydra.overrides.task if not x.startswith("sweep.")]
    number, subdir = composed.hydra.job.num, str(composed.hydra.sweep.subdir)
    return config, Entry(number, subdir, overrides, identity(config), asdict(config))
