"""Wall time per activity, compilation counted separately, even where threads compile at once."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

import jax

COMPILING = "/jax/core/compile/"  # JAX's events of tracing, lowering and compiling

Stopwatch = dict[str, float]  # seconds by name


@contextlib.contextmanager
def timing(what: str, timers: Sequence[Stopwatch]) -> Iterator[None]:
    """Add the block's seconds to the timers, an equal share to each.

    Seconds that this thread spent compiling go under "compile", the others under `what`.
    """
    start = time.perf_counter()
    compiled: list[tuple[float, float]] = []
    outer, _here.compiled = getattr(_here, "compiled", None), compiled
    try:
        yield
    finally:
        _here.compiled = outer
        compiling = sum(end - begin for begin, end in compiled)
        working = time.perf_counter() - start - compiling
        for timer in timers:
            for name, seconds in (("compile", compiling), (what, working)):
                timer[name] = timer.get(name, 0.0) + seconds / len(timers)


def times(timer: Stopwatch) -> dict[str, float]:
    """Return the seconds as metrics: "time/train_seconds", "time/probe_seconds", …"""
    return {f"time/{name}_seconds": round(seconds, 3) for name, seconds in timer.items()}


_here = threading.local()


def _on_event(event: str, duration_secs: float, **_: str | int) -> None:
    compiled: list[tuple[float, float]] | None = getattr(_here, "compiled", None)
    if compiled is None or not event.startswith(COMPILING):
        return
    end = time.perf_counter()
    while compiled and compiled[-1][0] >= end - duration_secs:  # a function traced within another
        compiled.pop()
    compiled.append((end - duration_secs, end))


jax.monitoring.register_event_duration_secs_listener(_on_event)
