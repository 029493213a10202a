"""Compiled programs: kept on disk for the next sweep, released when they fill a process."""

import os
from pathlib import Path

import jax

MIN_COMPILE_SECONDS = 0.3  # a program that compiles faster is not worth its file


def keep_programs() -> None:
    """Let JAX keep compiled programs in the user's cache folder, unless another is configured.

    Where that folder cannot be written, nothing is kept and nothing is said.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradlab" / "xla"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(cache, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)


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
        jax.clear_caches()
