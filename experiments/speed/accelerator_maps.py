"""gradlab's maps and exponents on an accelerator, beside bare matrix products."""

from collections.abc import Callable
from functools import cache, partial
from inspect import signature
from typing import Any

import accelerator_exact as exact  # type: ignore[import-not-found, unused-ignore]
import jax
import numpy as np
from accelerator_memory import (  # type: ignore[import-not-found, unused-ignore]
    MEMORY,
    bytes_of_card,
    watch_memory,
)
from accelerator_reference import (  # type: ignore[import-not-found, unused-ignore]
    GAIN,
    float64_jacobians,
    from_the_start,
    layer_of,
    mean_log_determinant,
    sample_of_map,
)
from accelerator_run import (  # type: ignore[import-not-found, unused-ignore]
    call_first,
    timed,
)
from accelerator_table import (  # type: ignore[import-not-found, unused-ignore]
    Case,
    LeftOut,
    Outcome,
)
from flax import nnx
from timing import (  # type: ignore[import-not-found, unused-ignore]
    FEATURES,
    every_product,
    largest_error,
)

from gradlab import jacobian_log_norms, lyapunov_exponents

NORMS, PRECISIONS = ("frobenius", "spectral"), ("float32", "float64")
FLOOR, PRODUCTS = "every product, at that rate", "every product, measured"
BATCHED, COPIES = "PyTorch, batched reverse", "PyTorch, copies"
AT_ONCE = "PyTorch, copies of all samples"
QR = "PyTorch, torch.linalg.qr in a loop"
COMPILING = {"frobenius": 30.0, "spectral": 70.0}  # seconds that a map may take with it
VECTORS = 16


def gradlabs(norm: str) -> str:
    """Return the name of gradlab's row."""
    return f"gradlab, {norm}"


def maps(length: int, size: int, is_ahead: bool) -> list[Case]:
    """Return gradlab's cases of one layer's map, and the floor at the rate of a large product.

    Args:
        length, size: T and n.
        is_ahead: make the first calls ahead, beside others; else their seconds are exact.
    """
    cases = []
    for precision in PRECISIONS:
        peers = ((PRODUCTS, "float32"), (BATCHED, "float32"), (COPIES, "float32"))
        others = ((FLOOR, precision), *peers)
        for norm in NORMS:
            run = partial(_log_norms, length, size, norm, precision)
            measure = partial(_map, run, length, size, norm)
            ahead = partial(call_first, run) if is_ahead else None
            name = gradlabs(norm)
            case = Case(name, precision, measure, COMPILING[norm], others, ahead=ahead)
            cases.append(case)
    return cases + [floor(length, size, precision) for precision in PRECISIONS]


def floor(length: int, size: int, precision: str) -> Case:
    """Return the case of all T(T+1)/2 products at the rate of the large one."""
    operations = length * (length + 1) / 2 * 2 * size**3
    measure = partial(exact.floor, operations, precision)
    return Case(FLOOR, precision, measure, 0, notes="T(T+1)/2 products of n × n at the rate above")


def products(length: int, size: int) -> list[Case]:
    """Return the case of all products, formed from given step Jacobians."""
    run = partial(_every_product, length, size)
    measure = partial(_products, run, length, size)
    notes = "of given step Jacobians, no norms"
    ahead = partial(call_first, run)
    return [Case(PRODUCTS, "float32", measure, 40, notes=notes, ahead=ahead)]


def _log_norms(length: int, size: int, norm: str, precision: str, memory: int = MEMORY) -> Any:
    options: dict[str, Any] = {"norm": norm, "precision": precision, "memory_budget": memory}
    return jacobian_log_norms(*layer_of(length, size), **options)


def _map(run: Callable[[], Any], length: int, size: int, norm: str) -> Outcome:
    layer_of(length, size)  # is not timed
    log_norms, outcome = timed(run)
    error = largest_error(np.asarray(log_norms), sample_of_map(length, size, norm))
    return outcome._replace(result=f"largest relative error {error:.1e}")


@cache
def _jacobians(length: int, size: int) -> jax.Array:
    return jax.numpy.asarray(float64_jacobians(layer_of(length, size)).astype(np.float32))


def _every_product(length: int, size: int) -> Any:
    return every_product(_jacobians(length, size))


def _products(run: Callable[[], Any], length: int, size: int) -> Outcome:
    _jacobians(length, size)
    _, outcome = timed(run)
    rate = length * (length + 1) * size**3 / float(np.median(outcome.repeats))
    return outcome._replace(result=f"{rate / 1e12:.3g} TFLOP/s")


def batch(samples: int, length: int, size: int) -> list[Case]:
    """Return gradlab's cases of a batch of samples, and of one of them."""
    one = gradlabs("frobenius") + ", one sample"
    others = tuple((name, "float32") for name in (one, BATCHED, AT_ONCE))
    cases = []
    for norm in NORMS:
        run = partial(_batch, samples, length, size, norm)
        measure, ahead = partial(_timed, run), partial(call_first, run)
        cases.append(Case(gradlabs(norm), "float32", measure, COMPILING[norm], others, ahead=ahead))
    run = partial(_log_norms, length, size, "frobenius", "float32")
    notes = f"one sample, × {samples}"
    single, ahead = partial(_one_of, samples, run), partial(call_first, run)
    return [*cases, Case(one, "float32", single, 30, notes=notes, ahead=ahead)]


def samples_of(samples: int, length: int) -> jax.Array:
    """Return the inputs of a batch of samples."""
    return jax.random.normal(jax.random.key(1), (samples, length, FEATURES))


def _batch(samples: int, length: int, size: int, norm: str) -> Any:
    options: dict[str, Any] = {"norm": norm, "precision": "float32", "memory_budget": MEMORY}
    return jacobian_log_norms(layer_of(length, size).cell, samples_of(samples, length), **options)


def _timed(run: Callable[[], Any]) -> Outcome:
    outcome: Outcome = timed(run)[1]
    return outcome


def _one_of(samples: int, run: Callable[[], Any]) -> Outcome:
    return _timed(run).times(samples)


def large(length: int, size: int) -> list[Case]:
    """Return the cases of a large map, which has the card to itself, and its floor."""
    cases = []
    for norm in NORMS:
        measure, seconds = partial(_large, length, size, norm), COMPILING[norm] + 20
        cases.append(Case(gradlabs(norm), "float32", measure, seconds, ((FLOOR, "float32"),)))
    # The reference takes the CPU some seconds, and serves both.
    reference = partial(from_the_start, length, size)
    cases[0] = cases[0]._replace(ahead=reference, again=cases[0].seconds)
    return [*cases, floor(length, size, "float32")]


def _large(length: int, size: int, norm: str) -> Outcome:
    layer_of(length, size)
    memory = watch_memory()
    run = partial(_log_norms, length, size, norm, "float32", bytes_of_card())
    log_norms, outcome = timed(run, repeats=1)
    taken = memory()
    error = largest_error(np.asarray(log_norms), from_the_start(length, size)[norm])
    return outcome._replace(result=f"largest relative error {error:.1e}; {taken}")


def sampled(units: int, length: int) -> list[Case]:
    """Return the case of norms of a wide LSTM from random vectors."""
    measure = partial(_sampled, units, length)
    notes = f"a carry of {2 * units} numbers, {VECTORS} vectors"
    return [Case("gradlab, sampled, rms", "float32", measure, 45, notes=notes)]


def _sampled(units: int, length: int) -> Outcome:
    if "method" not in signature(jacobian_log_norms).parameters:
        raise LeftOut("this version of jacobian_log_norms has no method='sampled'")
    rngs = nnx.Rngs(0)
    kernel = jax.nn.initializers.normal(GAIN / np.sqrt(units))
    cell = nnx.OptimizedLSTMCell(FEATURES, units, recurrent_kernel_init=kernel, rngs=rngs)
    inputs = jax.random.normal(rngs(), (length, FEATURES))
    options: dict[str, Any] = {"norm": "rms", "method": "sampled", "vectors": VECTORS}
    memory = watch_memory()
    run = partial(jacobian_log_norms, cell, inputs, memory_budget=MEMORY, **options)
    (log_norms, errors), outcome = timed(run, repeats=2)
    value, error = float(log_norms[-1, 0]), float(errors[-1, 0])
    result = f"log norm at lag {length}: {value:.2f} ± {error:.2f}; {memory()}"
    return outcome._replace(result=result)


def exponents(length: int, size: int) -> list[Case]:
    """Return gradlab's case of all Lyapunov exponents."""
    others = tuple((QR, precision) for precision in PRECISIONS)
    notes = "all n; products and QR in float64"
    return [Case("gradlab", "float64", partial(_exponents, length, size), 60, others, notes)]


def _exponents(length: int, size: int) -> Outcome:
    layer = layer_of(length, size)
    found, outcome = timed(partial(lyapunov_exponents, *layer), repeats=1)
    error = abs(float(np.sum(found)) / mean_log_determinant(layer) - 1)
    result = (
        f"λ₁ = {float(found[0]):.4f}; their sum against log |det J|: relative error {error:.1e}"
    )
    return outcome._replace(result=result)
