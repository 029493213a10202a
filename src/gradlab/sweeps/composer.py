"""Composing the points of a sweep.

Hydra takes a tenth of a second to compose a point, mostly to find its parts (model=lstm). Points
that choose the same parts and differ in values alone (seed=3) share that work here.
"""

import copy
from collections.abc import Sequence
from functools import cache

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

Parts = tuple[str, ...]


class Composer:
    """Composes points: the configs, and the errors, of Hydra's `load_sweep_config`."""

    def __init__(self, loader: ConfigLoader, sweep: DictConfig) -> None:
        """Take Hydra's loader and the sweep's own config."""
        self._sweep = sweep
        self._loader = loader
        parser = OverridesParser.create(config_loader=loader)
        # Points share most words.
        self._parse = cache(lambda word: parser.parse_overrides([word])[0])
        self._compose_parts = cache(self._compose)
        self._is_group = cache(lambda key: bool(loader.get_group_options(key)))
        folder = OmegaConf.to_container(sweep.hydra.sweep, resolve=False)
        self._by_words = "override_dirname" in str(folder)  # folders named after all overrides

    def __call__(self, overrides: Sequence[str], number: int) -> DictConfig:
        """Return the config of Hydra's job of that number.

        Raises:
            ConfigCompositionException: an override does not fit; its notes are the options that the
                point chooses ("task=echo"), one of which does not take it.
        """
        parsed = [self._parse(word) for word in overrides]
        values = [] if self._by_words else [x for x in parsed if self._is_value(x)]
        parts = tuple(word for word, x in zip(overrides, parsed, strict=True) if x not in values)
        try:
            config = self._composed(parts, values) or self._compose(tuple(overrides))
        except HydraException as error:
            for override in parsed:
                if self._is_group(override.key_or_group):
                    error.add_note(str(override.input_line))
            raise
        with open_dict(config):
            config.hydra.overrides.task = list(overrides)
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        return config

    def _composed(self, parts: Parts, values: Sequence[Override]) -> DictConfig | None:
        """Return the shared work of `parts` with a point's values; None where one does not fit.

        (To compose all of it then says what is wrong in Hydra's way.)
        """
        config = copy.deepcopy(self._compose_parts(parts))
        try:
            for override in values:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException:
            return None
        return config

    def _is_value(self, override: Override) -> bool:
        return override.type == OverrideType.CHANGE and not self._is_group(override.key_or_group)

    def _compose(self, parts: Parts) -> DictConfig:
        return self._loader.load_sweep_config(self._sweep, list(parts))
