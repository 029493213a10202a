"""Programs: kept in a process and on disk for the next sweep, released when they fill a process."""

import os
from collections import OrderedDict
from pathlib import Path

import jax

from gradlab.config import Config
from gradlab.training.program import Program
from gradlab.training.source_key import SourceKey

MIN_COMPILE_SECONDS = 0.3  # a program that compiles faster is not worth its file
MOST_KEPT = 32  # programs that a process keeps from sweep to sweep
_kept: OrderedDict[SourceKey, Program] = OrderedDict()


def kept_program(config: Config) -> Program:
    """Return the program of a config: that of an earlier sweep of this process if it is the same.

    It is another one if a function that the config names was defined anew, or a file that it names
    was written since.

    Raises:
        ConfigError: the parts of the config do not fit together.
    """
    key = SourceKey(config)
    if key not in _kept:
        _kept[key] = Program(config)
    _kept.move_to_end(key)
    while len(_kept) > MOST_KEPT:
        _kept.popitem(last=False)
    return _kept[key]


def keep_programs() -> None:
    """Let JAX keep compiled programs in the user's cache folder, unless another is configured.

    Where that folder cannot be written, nothing is kept and nothing is said.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    cache = _own_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(cache, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)


def programs_folder() -> Path | None:
    """Return the folder of compiled programs; None if the one that is configured is no folder."""
    configured = jax.config.values["jax_compilation_cache_dir"]
    if not configured:
        return _own_folder()
    return None if "://" in configured else Path(configured)  # JAX takes a bucket's address too


def _own_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradlab" / "xla"


def release_programs() -> None:
    """Release compiled programs once they take half the memory mappings that a process may have.

    Each compiled CPU program takes several hundred, Linux allows 65,530, and past that XLA's next
    compilation is a segmentation fault. Call it when a group of points has ended: a program that
    still runs is compiled again at its next call.
    """
    maps, limit = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
    if (
        maps.exists()
        and limit.exists()
        and maps.read_text().count("\n") > int(limit.read_text()) / 2
    ):
        _kept.clear()
        jax.clear_caches()
