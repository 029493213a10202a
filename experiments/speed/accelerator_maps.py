"""Maps and exponents on an accelerator, beside PyTorch on the same card and bare products."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import numpy as np
from accelerator_table import (  # type: ignore[import-not-found, unused-ignore]
    Case,
    Outcome,
    timed,
)
from timing import (  # type: ignore[import-not-found, unused-ignore]
    FEATURES,
    Layer,
    every_product,
    largest_error,
    reference_log_norms,
    sample_pairs,
    tanh_layer,
)

from gradlab import jacobian_log_norms, lyapunov_exponents

GAIN = 1.8  # norms fade slowly, so that none of the peers under- or overflows
NORMS, PRECISIONS = ("frobenius", "spectral"), ("float32", "float64")
MEMORY = 2**36  # bytes that gradlab may take
FLOOR, BATCHED, COPIES = "every product (the floor)", "PyTorch, batched reverse", "PyTorch, copies"
PART = 8  # of the exponents' steps, PyTorch is timed on one in so many

layer_of = cache(partial(tanh_layer, gain=GAIN))


def _gradlab(norm: str) -> str:
    return f"gradlab, {norm}"


def maps(length: int, size: int, with_peers: bool) -> list[Case]:
    """Return the cases of one layer's map: gradlab, the floor, and PyTorch's reverse mode."""
    cases = []
    for precision in PRECISIONS:
        peers = ((BATCHED, "float32"), (COPIES, "float32")) if with_peers else ()
        for norm in NORMS:
            measure = partial(_map, length, size, norm, precision)
            others = ((FLOOR, precision), *peers)
            cases.append(Case(_gradlab(norm), precision, measure, 30, others))
        floor = partial(_floor, length, size, precision)
        notes = "of given step Jacobians, no norms"
        cases.append(Case(FLOOR, precision, floor, 30, notes=notes))
        if precision == "float32":
            for name, precision_ in peers:
                peer = partial(_torch_map, length, size, copies=name == COPIES)
                notes = "Frobenius; a backward pass a t to all h⁽ᵏ⁾"
                cases.append(Case(name, precision_, peer, 20, notes=notes))
    return cases


def _map(length: int, size: int, norm: str, precision: str) -> Outcome:
    layer = layer_of(length, size)
    options: dict[str, Any] = {"norm": norm, "precision": precision, "memory_budget": MEMORY}
    log_norms, outcome = timed(partial(jacobian_log_norms, *layer, **options))
    error = largest_error(np.asarray(log_norms), _reference(length, size, norm))
    return outcome._replace(result=f"largest relative error {error:.1e}")


@cache
def _reference(length: int, size: int, norm: str) -> dict[tuple[int, int], float]:
    reference: dict[tuple[int, int], float] = reference_log_norms(
        float64_jacobians(layer_of(length, size)), sample_pairs(length, columns=3), norm
    )
    return reference


def weight_and_drive(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Return W and the inputs times their weights, in float64 on the CPU."""
    into, recurrent = layer.cell.dense_i, layer.cell.dense_h
    kernel, inputs = np.asarray(into.kernel[...], np.float64), np.asarray(layer.inputs, np.float64)
    drive = inputs @ kernel + np.asarray(into.bias[...], np.float64)
    return np.asarray(recurrent.kernel[...], np.float64).T, drive


def float64_jacobians(layer: Layer) -> np.ndarray:
    """Return the step Jacobians diag(1 − h²) W of the layer, run in float64 on the CPU."""
    weight, drive = weight_and_drive(layer)
    h, jacobians = np.zeros(len(weight)), []
    for x in drive:
        h = np.tanh(weight @ h + x)
        jacobians.append((1 - h**2)[:, None] * weight)
    return np.stack(jacobians)


def _floor(length: int, size: int, precision: str) -> Outcome:
    with jax.enable_x64(precision == "float64"):
        jacobians = jax.numpy.asarray(float64_jacobians(layer_of(length, size)).astype(precision))
        _, outcome = timed(partial(every_product, jacobians))
    products = length * (length + 1) / 2
    rate = products * 2 * size**3 / float(np.median(outcome.repeats))
    return outcome._replace(result=f"{rate / 1e12:.3g} TFLOP/s")


def _torch_layer(layer: Layer) -> Any:
    import torch
    from torch_peers import TorchLayer, device  # type: ignore[import-not-found, unused-ignore]

    arrays = weight_and_drive(layer)
    return TorchLayer(*(torch.tensor(x, dtype=torch.float32, device=device()) for x in arrays))


def _torch_map(length: int, size: int, copies: bool) -> Outcome:
    from torch_peers import reverse_mode

    layer = _torch_layer(layer_of(length, size))
    log_norms, outcome = timed(partial(reverse_mode, layer, copies=copies), repeats=3)
    error = largest_error(log_norms, _reference(length, size, "frobenius"))
    return outcome._replace(result=f"largest relative error {error:.1e}")


def batch(samples: int, length: int, size: int) -> list[Case]:
    """Return the cases of a batch of samples: gradlab's two norms, one sample, and PyTorch."""
    one = _gradlab("frobenius") + ", one sample"
    notes = f"one sample, × {samples}"
    cases = []
    for norm in NORMS:
        others = ((one, "float32"), (BATCHED, "float32"), (COPIES, "float32"))
        measure = partial(_batch, samples, length, size, norm)
        cases.append(Case(_gradlab(norm), "float32", measure, 30, others))
    single = partial(_one_of, samples, partial(_map, length, size, "frobenius", "float32"))
    cases.append(Case(one, "float32", single, 30, notes=notes))
    for name in (BATCHED, COPIES):
        peer = partial(_torch_map, length, size, copies=name == COPIES)
        cases.append(Case(name, "float32", partial(_one_of, samples, peer), 15, notes=notes))
    return cases


def _one_of(samples: int, measure: Callable[[], Outcome]) -> Outcome:
    return measure()._replace(scale=float(samples))


def _batch(samples: int, length: int, size: int, norm: str) -> Outcome:
    cell = layer_of(length, size).cell
    inputs = jax.random.normal(jax.random.key(1), (samples, length, FEATURES))
    options: dict[str, Any] = {"norm": norm, "precision": "float32", "memory_budget": MEMORY}
    _, outcome = timed(partial(jacobian_log_norms, cell, inputs, **options))
    return outcome


def large(length: int, size: int) -> list[Case]:
    """Return the cases of a large map, whose floor follows from the rate of a product."""
    cases = [
        Case(FLOOR, "float32", partial(_computed_floor, length, size), 10, notes="from the rate")
    ]
    for norm in NORMS:
        measure = partial(_large, length, size, norm)
        cases.append(Case(_gradlab(norm), "float32", measure, 60, ((FLOOR, "float32"),)))
    return cases


def _computed_floor(length: int, size: int) -> Outcome:
    """Time the extension of a quarter of the products by a step; all take 2 T such steps."""
    rows = max(1, length // 4)
    left = jax.random.normal(jax.random.key(0), (rows * size, size))
    right = jax.random.normal(jax.random.key(1), (size, size))
    product = jax.jit(partial(jax.numpy.matmul, precision=jax.lax.Precision.HIGHEST))
    _, outcome = timed(partial(product, left, right))
    rate = rows * 2 * size**3 / float(np.median(outcome.repeats))
    scale = length * (length + 1) / 2 / rows
    return outcome._replace(result=f"{rate / 1e12:.3g} TFLOP/s", scale=scale)


def _large(length: int, size: int, norm: str) -> Outcome:
    layer = tanh_layer(length, size, GAIN)
    options: dict[str, Any] = {"norm": norm, "precision": "float32", "memory_budget": MEMORY}
    _free()
    log_norms, outcome = timed(partial(jacobian_log_norms, *layer, **options), repeats=1)
    ends = sorted({max(1, length // 2**i) for i in range(8)})
    error = largest_error(np.asarray(log_norms), _from_the_start(layer, ends, norm))
    return outcome._replace(result=f"largest relative error {error:.1e}; {_peak()}")


def _from_the_start(layer: Layer, ends: list[int], norm: str) -> dict[tuple[int, int], float]:
    """Return the log norms of ∂h⁽ᵗ⁾/∂h⁽⁰⁾ at a few t, multiplied in float64 on the CPU."""
    weight, drive = weight_and_drive(layer)
    h, product, log_scale, log_norms = np.zeros(len(weight)), np.eye(len(weight)), 0.0, {}
    for t, x in enumerate(drive, start=1):
        h = np.tanh(weight @ h + x)
        product = (1 - h**2)[:, None] * (weight @ product)
        scale = np.linalg.norm(product)
        product, log_scale = product / scale, log_scale + float(np.log(scale))
        if t in ends:
            value = np.linalg.norm(product, 2) if norm == "spectral" else 1.0
            log_norms[t, 0] = float(np.log(value)) + log_scale
    return log_norms


def _free() -> None:
    """Give back to the card what PyTorch keeps for its next tensors."""
    try:
        import torch
    except ImportError:
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _peak() -> str:
    statistics = jax.devices()[0].memory_stats()
    if not statistics or "peak_bytes_in_use" not in statistics:
        return "this device tells no memory"
    return f"peak of the process so far {statistics['peak_bytes_in_use'] / 2**30:.1f} GiB"


def exponents(length: int, size: int) -> list[Case]:
    """Return the cases of all Lyapunov exponents: gradlab, and the same loop in PyTorch."""
    name = "PyTorch, torch.linalg.qr in a loop"
    peers = tuple((name, precision) for precision in PRECISIONS)
    notes = "all n; products and QR in float64"
    steps = max(1, length // PART)
    cases = [Case("gradlab", "float64", partial(_exponents, length, size), 60, peers, notes)]
    for peer, precision in peers:
        measure = partial(_torch_exponents, length, size, steps, precision)
        notes = f"{steps} steps timed, × {length / steps:g}"
        cases.append(Case(peer, precision, measure, 20, notes=notes))
    return cases


def _exponents(length: int, size: int) -> Outcome:
    layer = tanh_layer(length, size, GAIN)
    found, outcome = timed(partial(lyapunov_exponents, *layer), repeats=3)
    weight, drive = weight_and_drive(layer)
    return outcome._replace(result=_against_determinant(np.asarray(found), weight, drive))


def _against_determinant(found: np.ndarray, weight: np.ndarray, drive: np.ndarray) -> str:
    """Compare the sum of all exponents with the mean of log |det J⁽ᵗ⁾|."""
    h, total = np.zeros(len(weight)), 0.0
    for x in drive:
        h = np.tanh(weight @ h + x)
        total += float(np.sum(np.log1p(-(h**2))))
    expected = total / len(drive) + np.linalg.slogdet(weight)[1]
    error = abs(float(found.sum()) / expected - 1)
    return f"λ₁ = {found[0]:.4f}; their sum against log |det J|: relative error {error:.1e}"


def _torch_exponents(length: int, size: int, steps: int, precision: str) -> Outcome:
    import torch
    from torch_peers import device

    arrays = weight_and_drive(tanh_layer(length, size, GAIN))
    dtype = getattr(torch, precision)
    weight, drive = (torch.tensor(x, dtype=dtype, device=device()) for x in arrays)

    def run() -> torch.Tensor:
        frame = torch.linalg.qr(torch.randn(size, size, dtype=dtype, device=device()))[0]
        h, growth = torch.zeros_like(drive[0]), torch.zeros_like(drive[0])
        for x in drive[:steps]:
            h = torch.tanh(weight @ h + x)
            frame, triangle = torch.linalg.qr((1 - h**2)[:, None] * (weight @ frame))
            growth += triangle.diagonal().abs().log()
        return growth / steps

    with torch.no_grad():
        _, outcome = timed(run, repeats=3)
    return outcome._replace(scale=length / steps)
