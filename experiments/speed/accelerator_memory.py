"""What of the card's memory a call takes, and how much there is."""

from collections.abc import Callable
from typing import Any

import jax

GIB = 2**30
MEMORY = 64 * GIB  # bytes that gradlab may take, unless a map needs the whole card


def bytes_of_card() -> int:
    """Return the bytes that JAX may take of the card; `MEMORY` where the device tells none."""
    statistics = jax.devices()[0].memory_stats() or {}
    return int(statistics.get("bytes_limit", MEMORY))


def watch_memory() -> Callable[[], str]:
    """Return a function that says what was taken since now: by programs' plans, and at its peak."""
    known, before = _programs(), _peak()

    def said() -> str:
        fresh = [_bytes_of(x) for x in _programs() if not any(x is y for y in known)]
        largest = max([x for x in fresh if x is not None], default=None)
        parts = [] if largest is None else [f"largest program {largest / GIB:.3g} GiB"]
        after = _peak()
        if after is not None and before is not None:
            peak = f"{after / GIB:.3g} GiB"
            is_ours = after > before
            parts.append(f"peak {peak}" if is_ours else f"peak below that before, {peak}")
        return ", ".join(parts) or "memory unknown"

    return said


def _programs() -> list[Any]:
    try:
        return list(jax.devices()[0].client.live_executables())
    except Exception:  # not every device tells them
        return []


def _peak() -> int | None:
    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use")


def _bytes_of(executable: Any) -> int | None:
    """Return what a program plans to take: arguments, results and all between."""
    try:
        plan = executable.get_compiled_memory_stats()
    except Exception:
        return None
    taken = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    return int(taken - plan.alias_size_in_bytes)
