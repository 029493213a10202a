"""Sweeps started from Python: composed, checked, run and recorded as by `python -m gradlab`."""

import logging
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.errors import HydraException

from gradlab.__main__ import CONF, is_told_in_a_sentence, run
from gradlab.components import ConfigError
from gradlab.explain.errors import sentence
from gradlab.explain.values import words_of
from gradlab.explain.words import arguments, replaced
from gradlab.printable import quoted
from gradlab.records import flatten
from gradlab.records.table import load_runs

RUNNING = threading.Lock()  # Hydra has one config a process
CONFIG_DIR = "--config-dir"


def sweep(
    *overrides: str,
    config_dir: str | Path | None = None,
    folder: str | Path | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Run a sweep in this process, of one point or of every combination, and read it back.

    It is that of `python -m gradlab`: the same configs, checks, launcher, records and identities,
    and the same display, which a notebook shows in place. Programs stay compiled, so a second sweep
    of networks of the same shapes compiles nothing; a cell that was defined anew is compiled anew.
    Ctrl-C has the running points keep a checkpoint.

    Args:
        overrides: words of the command line, such as "model=rnn,lstm", "init.gain=0.5,1,2" or
            "sweep.resume=FOLDER".
        config_dir: a folder with config groups and experiments of your own.
        folder: where the records go; by default runs/NAME/DATE below the working folder.
        settings: the same as Python values, keys with dots by `**{"task.length": 20}` or as
            `task={"length": 20}`. A list, a range or an array is swept over; a tuple is one value
            that is a list, as in `probe=("spectral", "lyapunov")`. A function or class of yours is
            a part: `model={"cell": MyCell}`, `init=my_rule`, `probe=("spectral", my_probe)`, with
            arguments `task={"_target_": my_task, "length": [20, 40]}`.
            `experiment="quickstart"` is the command's `+experiment=quickstart`.

    Returns:
        One row per point, as `gradlab.load_runs` gives it. Points that failed have the status
        "failed" and the reason; that some did is warned of. With "--dry", which shows the plan and
        runs nothing, an empty table.

    Raises:
        ConfigError: a word or value is wrong, in the sentence that the command line prints; then
            nothing has run. (A ValueError, in `gradlab.components`.)
        RuntimeError: another sweep runs in this process, or a part of yours ends the process.
        KeyboardInterrupt: the sweep was interrupted; the message says how to go on with it.

    Example:
        >>> runs = gradlab.sweep(
        ...     "model=rnn", "init.gain=0.5,1", task="echo", seed=range(2), train={"steps": 20},
        ...     model={"hidden_size": 8}, wandb="disabled", folder="runs/two",
        ... )
        >>> len(runs), list(runs.groupby("init.gain")["jacobian/decay_rate"].mean().round(1))
        (4, [-1.2, -0.5])
    """
    config_dir, folder = _path("config_dir", config_dir), _path("folder", folder)
    confs = [CONF, *([config_dir] if config_dir else [])]
    words = words_of(flatten(dict(settings)), confs, overrides)
    words += [f"hydra.sweep.dir={quoted(str(folder))}"] if folder else []
    try:
        words = _checked(words, config_dir)
        place = _run(words, config_dir)
    except SystemExit as error:
        raise RuntimeError(f"a part of the sweep ended the process: {error.code}") from error
    except Exception as error:
        is_system_error = isinstance(error, OSError) and not isinstance(error, HydraException)
        if is_system_error or not is_told_in_a_sentence(error):
            raise
        told = str(error) if isinstance(error, ConfigError) else sentence(error)
        remedy = _about_tuples(told, settings)
        if isinstance(error, ConfigError) and not remedy:
            raise
        raise ConfigError(told + remedy) from error
    return load_runs(place) if place else pd.DataFrame()


def _path(name: str, path: str | Path | None) -> Path | None:
    """Return a folder that was given, ~ being the home folder.

    Raises:
        ConfigError: it is no path.
    """
    if path is not None and not isinstance(path, str | Path):
        raise ConfigError(f"{name} must be the path of a folder; got {path!r:.80}.")
    return None if path is None else Path(path).expanduser()


def _about_tuples(sentence: str, settings: Mapping[str, Any]) -> str:
    """Return what to type for a tuple that was meant as a sweep, if the sentence is about one."""
    for key, value in flatten(dict(settings)).items():
        if isinstance(value, tuple) and re.match(rf"{re.escape(key)}\b", sentence):
            return f" A tuple is one value; to sweep over its entries give a list, {[*value]!r}."
    return ""


def _checked(words: Sequence[str], config_dir: str | Path | None) -> list[str]:
    """Return the words as Hydra takes them, without options.

    Raises:
        ConfigError: a word is no KEY=VALUE.
    """
    for word in words:
        if not isinstance(word, str):
            raise ConfigError(
                f"a word of the command line is a text, such as 'task=echo'; got {word!r:.80}."
            )
        if word.startswith("-") and word != "--dry":
            raise ConfigError(
                f"{word!r} is an option of the command line: gradlab.sweep takes KEY=VALUE, "
                "config_dir=FOLDER and folder=FOLDER."
            )
    option = [CONFIG_DIR, str(config_dir)] if config_dir is not None else []
    try:
        checked = arguments([*words, *option], CONF)
        for warning in replaced(checked):
            warnings.warn(warning, stacklevel=3)
    except ValueError as error:
        raise ConfigError(str(error).replace(CONFIG_DIR, "config_dir")) from error
    return checked[: len(checked) - len(option)]


def _run(words: list[str], config_dir: str | Path | None) -> Path | None:
    """Run the sweep of some words; return its folder, or None if only the plan was asked for."""
    from hydra.types import RunMode

    from gradlab.sweeps import Incomplete
    from gradlab.sweeps.interrupts import as_guest
    from hydra_plugins.gradlab_commands import commands

    if not RUNNING.acquire(blocking=False):
        raise RuntimeError("another sweep runs in this process: wait until it has ended.")
    try:
        with hydra_apart(), as_guest():
            hydra = commands(CONF, config_dir)
            config = hydra.compose_config(
                "config", words, RunMode.MULTIRUN, validate_sweep_overrides=False
            )
            folder = Path(str(config.hydra.sweep.dir))
            if not {"hydra.sweep.dir", "sweep.resume"} & {word.partition("=")[0] for word in words}:
                folder = _unused(folder)
                words = [*words, f"hydra.sweep.dir={quoted(str(folder))}"]
            try:
                if config.hydra.mode == RunMode.RUN:
                    hydra.run("config", run, words)
                else:
                    hydra.multirun("config", run, words)
            except Incomplete as ended:
                if ended.interrupted:
                    raise KeyboardInterrupt(ended.sentence) from None
                warnings.warn(ended.sentence, stacklevel=3)
            return None if config.sweep.plan_only else folder
    finally:
        RUNNING.release()


def _unused(folder: Path) -> Path:
    """Return the folder, or one beside it if it is there: two sweeps may begin in one second."""
    number, place = 1, folder
    while place.exists():
        number += 1
        place = folder.with_name(f"{folder.name}_{number}")
    return place


@contextmanager
def hydra_apart() -> Iterator[None]:
    """Give the block a Hydra of its own, and leave the process's own and its logging as it was."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.singleton import Singleton
    from hydra.core.utils import JobRuntime
    from hydra.version import VersionBase
    from omegaconf.basecontainer import BaseContainer

    own = (GlobalHydra, HydraConfig, JobRuntime, VersionBase)
    instances: dict[type, Any] = Singleton._instances
    before: dict[type, Any] = {kind: instances.pop(kind) for kind in own if kind in instances}
    resolvers, root = dict(BaseContainer._resolvers), logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        yield
    finally:
        for kind in own:
            instances.pop(kind, None)
        instances.update(before)
        BaseContainer._resolvers.clear()
        BaseContainer._resolvers.update(resolvers)
        root.setLevel(level)
        root.handlers[:] = handlers
