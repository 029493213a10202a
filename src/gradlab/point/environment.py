"""Versions, device and flags of JAX and XLA, which change a point's numbers beside its config."""

import os
from functools import cache
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp

VERSIONS = ("gradlab", "jax", "flax", "optax", "numpy")
# Flags that change the random numbers or the precision of products, with JAX's own defaults.
DECISIVE = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_default_matmul_precision": None,
}
# Flags that can change the last bits; 64-bit types are off in a point, whatever is asked for.
OTHERS = (
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_disable_jit",
    "jax_disable_most_optimizations",
    "jax_optimization_level",
    "jax_exec_time_optimization_effort",
    "jax_use_direct_linearize",
    "jax_softmax_custom_jvp",
)
VARIABLES = ("XLA_FLAGS", "NVIDIA_TF32_OVERRIDE", "LIBTPU_INIT_ARGS")  # of the environment


def environment() -> dict[str, Any]:
    """Return the entries of status.json on which numbers depend: device, cores, versions, flags."""
    return {
        "device": str(jnp.zeros(()).device),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "versions": dict(_versions()),
        "flags": {name: _flag(name) for name in (*DECISIVE, *OTHERS) if _has(name)}
        | {name: os.environ[name] for name in VARIABLES if os.environ.get(name)},
    }


@cache  # to look one up takes as long as to write a file
def _versions() -> tuple[tuple[str, str], ...]:
    return tuple((package, version(package)) for package in VERSIONS)


def unusual_flags() -> dict[str, Any]:
    """Return the decisive flags that do not have JAX's default value."""
    values = {name: _flag(name) for name in DECISIVE if _has(name)}
    return {name: value for name, value in values.items() if value != DECISIVE[name]}


def _has(name: str) -> bool:
    return hasattr(jax.config, name)  # versions of JAX differ


def _flag(name: str) -> Any:
    """Return a flag as this thread has it, as plain data."""
    value = getattr(jax.config, name)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
