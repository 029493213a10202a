"""Maps on the accelerator against those of the same weights on the CPU, in a process of its own."""

import os
import subprocess
import sys
import tempfile
import threading
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from accelerator_run import (  # type: ignore[import-not-found, unused-ignore]
    call_first,
    timed,
)
from accelerator_table import Case, Outcome  # type: ignore[import-not-found, unused-ignore]
from flax import nnx
from timing import FEATURES  # type: ignore[import-not-found, unused-ignore]

from gradlab.jacobian import jacobian_log_norms

AGREE = 1e-4  # largest relative error of a norm between two devices
GAIN = 1.2  # driven by noise the network is not chaotic: rounding errors do not grow
PATIENCE = 60.0  # seconds
CELLS: dict[str, Any] = {"RNN": nnx.SimpleCell, "LSTM": nnx.OptimizedLSTMCell}
NORMS = ("frobenius", "spectral")
DEFAULT = "default"  # of each device: float64 on a CPU, which an accelerator may be slow in
What = tuple[str, str, str]  # cell, norm, precision


def whats() -> list[What]:
    """Return what is compared."""
    return [(kind, norm, x) for x in (DEFAULT, "float32") for norm in NORMS for kind in CELLS]


def agreement(length: int, size: int) -> list[Case]:
    """Return the cases of the maps of an RNN and an LSTM on both devices."""
    on_cpu = _OnCpu(length, size)
    cases = []
    for what in whats():
        kind, norm, precision = what
        run = partial(_map, what, length, size)
        case = Case(
            f"{kind}, {norm}",
            precision,
            partial(_compared, run, on_cpu, what),
            70 if norm == "spectral" else 30,
            notes=f"T = {length}, n = {size}",
            ahead=partial(_ahead, run, on_cpu),
        )
        cases.append(case)
    return cases


def _ahead(run: Any, on_cpu: "_OnCpu") -> None:
    on_cpu.start()
    call_first(run)


def _compared(run: Any, on_cpu: "_OnCpu", what: What) -> Outcome:
    on_cpu.start()
    here, outcome = timed(run)
    return outcome._replace(result=_verdict(np.asarray(here), on_cpu.map(what)))


def _verdict(here: np.ndarray, there: np.ndarray) -> str:
    if not np.array_equal(np.isfinite(here), np.isfinite(there)):
        return "finite entries differ from the CPU's: DISAGREES"
    finite = np.isfinite(there)
    errors = np.abs(np.expm1(here[finite].astype(np.float64) - there[finite]))
    verdict = f"≤ {AGREE:g}, agrees" if errors.max() <= AGREE else f"> {AGREE:g}, DISAGREES"
    return f"largest relative error {errors.max():.1e}, median {np.median(errors):.1e}: {verdict}"


def _map(what: What, length: int, size: int) -> Any:
    kind, norm, precision = what
    options: dict[str, Any] = {"norm": norm}
    options |= {} if precision == DEFAULT else {"precision": precision}
    return jacobian_log_norms(*_network(kind, length, size), **options)


@cache
def _network(kind: str, length: int, size: int) -> tuple[nnx.Module, jax.Array]:
    """Return a layer and the noise that drives it, drawn on the CPU, where both processes agree."""
    with jax.default_device(jax.devices("cpu")[0]):
        rngs = nnx.Rngs(0)
        kernel = jax.nn.initializers.normal(GAIN / np.sqrt(size))
        cell = CELLS[kind](FEATURES, size, recurrent_kernel_init=kernel, rngs=rngs)
        inputs = jax.random.normal(rngs(), (length, FEATURES), np.float32)
    here = jax.devices()[0]
    nnx.update(cell, jax.device_put(nnx.state(cell), here))
    return cell, jax.device_put(inputs, here)


class _OnCpu:
    """The CPU's maps, which a process without an accelerator measures meanwhile."""

    def __init__(self, length: int, size: int) -> None:
        self._sizes = (str(length), str(size))
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory()
        self._maps = Path(self._folder.name) / "maps.npz"

    def start(self) -> None:
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, __file__, *self._sizes, str(self._maps)],
                    env=os.environ | {"JAX_PLATFORMS": "cpu"},
                    stderr=subprocess.PIPE,
                    text=True,
                )

    def map(self, what: What) -> np.ndarray:
        assert self._process is not None
        if not self._maps.exists():
            _, errors = self._process.communicate(timeout=PATIENCE)
            if self._process.returncode:
                raise RuntimeError(f"the CPU's maps: {(errors.splitlines() or [''])[-1]}")
        with np.load(self._maps) as maps:
            found: np.ndarray = maps[" ".join(what)]
        return found


def measure_here(length: int, size: int, path: str) -> None:
    """Measure all maps and write them."""
    maps: dict[str, Any] = {" ".join(x): np.asarray(_map(x, length, size)) for x in whats()}
    written = Path(path).with_suffix(".part.npz")
    np.savez(written, **maps)
    written.rename(path)


if __name__ == "__main__":
    measure_here(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
