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
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

Parts = tuple[str, ...]


class Composer:
    """Composes points: the configs, and the errors, of Hydra's `load_sweep_config`."""

    def __init__(self, loader: ConfigLoader, sweep: DictConfig) -> None:
        """Take Hydra's loader and the sweep's own config."""
        self._sweep = sweep
        self._loader = loader
        self._parser = OverridesParser.create(config_loader=loader)
        self._compose_parts = cache(self._compose)
        self._is_group = cache(lambda key: bool(loader.get_group_options(key)))
        folder = OmegaConf.to_container(sweep.hydra.sweep, resolve=False)
        self._by_words = "override_dirname" in str(folder)  # folders named after all overrides

    def __call__(self, overrides: Sequence[str], number: int) -> DictConfig:
        """Return the config of Hydra's job of that number.

        Raises:
            ConfigCompositionException: an override does not fit.
        """
        parsed = self._parser.parse_overrides(list(overrides))
        values = [] if self._by_words else [x for x in parsed if self._is_value(x)]
        parts = tuple(word for word, x in zip(overrides, parsed, strict=True) if x not in values)
        try:
            config = copy.deepcopy(self._compose_parts(parts))
            for override in values:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException:
            config = self._compose(tuple(overrides))  # says what is wrong in Hydra's way
        with open_dict(config):
            config.hydra.overrides.task = list(overrides)
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        return config

    def _is_value(self, override: Override) -> bool:
        return override.type == OverrideType.CHANGE and not self._is_group(override.key_or_group)

    def _compose(self, parts: Parts) -> DictConfig:
        return self._loader.load_sweep_config(self._sweep, list(parts))
