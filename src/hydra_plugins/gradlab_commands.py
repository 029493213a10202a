"""Hydra as gradlab runs it: nothing is written before its checks, and it tells the first error.

`__main__` puts `Commands` in the place of Hydra's own class. Hydra imports every module of this
folder at each start, so heavy imports wait.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode, TaskFunction
from hydra.version import setbase
from omegaconf import DictConfig

from hydra_plugins.gradlab_sweeper import check_folder


def commands(conf: Path, own: str | Path | None = None) -> "Commands":
    """Return Hydra for a call from Python, set up as `hydra.main` does it for a command.

    Args:
        conf: gradlab's folder of config groups.
        own: the user's; it is searched first.
    """
    from gradlab.config import register
    from gradlab.tracking.environment import defaults

    setbase("1.3")
    register(defaults(os.environ))
    search_path = create_automatic_config_search_path(None, "gradlab", str(conf))
    if own is not None:
        schema = SearchPathQuery(provider="schema")
        search_path.prepend("command-line", f"file://{Path(own).absolute()}", anchor=schema)
    return Commands.create_main_hydra2("gradlab", search_path)


class Loader(ConfigLoaderImpl):
    """Composes configs; a sweep's own without the words that only some of its points take."""

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose a config.

        A sweep's own config has the default of each group that is swept over, to which a word such
        as task.delay=5 need not fit. Where it does not, the sweep's config does without such words:
        each point is composed with them, and says which of them it does not take.

        Raises:
            ConfigCompositionException: a word does not fit.
        """
        rest = (run_mode, from_shell, validate_sweep_overrides)
        try:
            return super().load_configuration(config_name, overrides, *rest)
        except ConfigCompositionException:
            shared = self._of_the_sweep(overrides)
            if run_mode != RunMode.MULTIRUN or shared == overrides:
                raise
        config = super().load_configuration(config_name, shared, *rest)
        parsed = OverridesParser.create().parse_overrides(overrides)
        task = [str(x.input_line) for x in parsed if not x.is_hydra_override()]
        config.hydra.overrides.task = task
        return config

    def _of_the_sweep(self, overrides: Sequence[str]) -> list[str]:
        from gradlab.config import ROLES

        def is_shared(override: Override) -> bool:
            section = override.key_or_group.split(".")[0]
            return (
                override.is_hydra_override()
                or (section in ROLES and ROLES[section].bookkeeping)
                or bool(self.get_group_options(override.key_or_group))
            )

        parsed = OverridesParser.create().parse_overrides(list(overrides))
        return [word for word, x in zip(overrides, parsed, strict=True) if is_shared(x)]


class Commands(Hydra):
    """Hydra's run of a command."""

    @classmethod
    def create_main_hydra2(cls, task_name: str, config_search_path: ConfigSearchPath) -> "Commands":
        """Return it with gradlab's loader."""
        hydra = cls(task_name=task_name, config_loader=Loader(config_search_path))
        GlobalHydra.instance().initialize(hydra)
        return hydra

    def get_mode(self, config_name: str | None, overrides: list[str]) -> Any:
        """Return whether the config asks for one job or for a sweep.

        (Hydra takes a config that it cannot compose for one job, and reports the next error.)
        """
        sweep = self.compose_config(
            config_name, overrides, RunMode.MULTIRUN, validate_sweep_overrides=False
        )
        return sweep.hydra.mode

    def run(
        self,
        config_name: str | None,
        task_function: TaskFunction,
        overrides: list[str],
        with_log_configuration: bool = True,
    ) -> JobReturn:
        """Check the config of a single job, then run it; with --dry only say what would run.

        Raises:
            ConfigError: the config is wrong; then no folder has been made.
        """
        from gradlab.components import ConfigError
        from gradlab.config import check
        from gradlab.sweeps.refusals import check_unused

        composed = self.compose_config(config_name, overrides, RunMode.RUN)
        HydraConfig.instance().set_config(composed)  # interpolations may look into it
        config = check(composed)
        if config.sweep.resume:
            raise ConfigError("sweep.resume goes on with a sweep, and this is a single job.")
        if config.sweep.plan_only and config.measure is None:
            raise ConfigError("--dry shows the plan of a sweep: leave hydra.mode=RUN out.")
        folder = Path(str(composed.hydra.run.dir))
        check_folder("hydra.sweep.dir", folder, composed)
        check_unused(folder.parent, [folder.name])
        if config.sweep.plan_only:
            print(f"1 table to compute, by {config.measure['_target_']}.")
            return JobReturn()
        return super().run(config_name, task_function, overrides, with_log_configuration)
