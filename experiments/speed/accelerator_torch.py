"""PyTorch on the same card, each time in part: a few t of a map, the first steps of a loop."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import accelerator_maps as maps  # type: ignore[import-not-found, unused-ignore]
import numpy as np
from accelerator_exact import with_rate  # type: ignore[import-not-found, unused-ignore]
from accelerator_reference import (  # type: ignore[import-not-found, unused-ignore]
    float64_jacobians,
    layer_of,
    weight_and_drive,
)
from accelerator_table import (  # type: ignore[import-not-found, unused-ignore]
    Case,
    LeftOut,
    Outcome,
)
from timing import (  # type: ignore[import-not-found, unused-ignore]
    Layer,
    largest_error,
    reference_log_norms,
)

TIMES = 8  # t of a map whose gradients are timed
STEPS_PART = 16  # of the exponents' steps one in so many is timed
REPEATS, LONGEST = 2, 5.0  # seconds that first call and repeats take at most, the last one over
Result = TypeVar("Result")


def evenly(length: int, count: int = TIMES) -> list[int]:
    """Return a few t from 1 to T, evenly, with the mean of all t."""
    count = min(count, length)
    first = [(2 * i + 1) * length // (2 * count) + 1 for i in range(count // 2)]
    middle = [(length + 1) // 2] * (count % 2)
    return first + middle + [length + 1 - t for t in reversed(first)]


def seconds_of(run: Callable[[], Result]) -> tuple[Result, float]:
    """Return what a function returns and its seconds, those of the card included."""
    import torch

    begin = time.perf_counter()
    result = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - begin


def timed(run: Callable[[], Result], repeats: int = REPEATS) -> tuple[Result, Outcome]:
    """Return what a function returns, and the seconds of its first call and of its repeats."""
    result, first = seconds_of(run)
    seconds: list[float] = []
    while not seconds or (len(seconds) < repeats and first + sum(seconds) < LONGEST):
        seconds.append(seconds_of(run)[1])
    return result, Outcome(first, seconds)


def rates(size: int) -> list[Case]:
    """Return the cases of a square matrix product of `size`."""
    return [
        Case("PyTorch", "float32", partial(_rate, size, tf32=False), 10),
        Case("PyTorch, allow_tf32", "TF32", partial(_rate, size, tf32=True), 5),
    ]


def check_tf32(tf32: bool) -> None:
    """Leave out what is asked for in TF32 where PyTorch has no card that knows it."""
    import torch

    if tf32 and not torch.cuda.is_available():
        raise LeftOut("no CUDA device that PyTorch could multiply in TF32 on")


def _rate(size: int, tf32: bool) -> Outcome:
    import torch
    from torch_peers import device  # type: ignore[import-not-found, unused-ignore]

    check_tf32(tf32)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        left, right = (torch.randn(size, size, device=device()) for _ in range(2))
        _, outcome = timed(partial(torch.matmul, left, right), repeats=5)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    with_it: Outcome = with_rate(outcome, size)[0]
    return with_it


def reverse_modes(length: int, size: int, samples: int = 1) -> list[Case]:
    """Return the cases of the map of one layer: a backward pass a t to all h⁽ᵏ⁾.

    Args:
        length, size: T and n.
        samples: of a batch. A batch of gradients takes one after the other; copies of the network
            can be those of all samples.
    """
    count = len(evenly(length))
    part = f"{count} of {length} t timed, × {length / count:g}"
    batched, copies = partial(_batched, length, size, samples), partial(_copies, length, size)
    if samples == 1:
        return [
            Case(maps.BATCHED, "float32", batched, 8, notes=f"Frobenius; {part}"),
            Case(maps.COPIES, "float32", partial(copies, 1), 8, notes=f"Frobenius; {part}"),
        ]
    one = f"Frobenius; one sample, × {samples}; {part}"
    return [
        Case(maps.BATCHED, "float32", batched, 8, notes=one),
        Case(maps.AT_ONCE, "float32", partial(copies, samples), 8, notes=f"Frobenius; {part}"),
    ]


def _batched(length: int, size: int, samples: int) -> Outcome:
    import torch

    layer = layer_of(length, size)
    components = torch.eye(size, device=_device())
    start, run = torch.zeros(size, device=_device()), partial(_norms, is_batched=True)
    outcome = _reverse(run, layer, _tensors(layer), start, components)
    return outcome.times(samples) if samples > 1 else outcome


def _copies(length: int, size: int, samples: int) -> Outcome:
    """Measure the gradients of n copies of the network of each sample, (samples, n, n)."""
    import torch

    cell, inputs = layer_of(length, size)
    of_samples = np.asarray(maps.samples_of(samples, length)) if samples > 1 else inputs[None]
    layers = [Layer(cell, x) for x in of_samples]
    weight, _ = _tensors(layers[0])
    drive = torch.stack([_tensors(x)[1] for x in layers], dim=1)[:, :, None]
    components = torch.eye(size, device=_device()).expand(samples, size, size)
    start, run = torch.zeros_like(components), partial(_norms, is_batched=False)
    return _reverse(run, layers[0], (weight, drive), start, components)


def _device() -> Any:
    from torch_peers import device

    return device()


def _tensors(layer: Layer) -> tuple[Any, Any]:
    import torch

    arrays = weight_and_drive(layer)
    weight, drive = (torch.tensor(x, dtype=torch.float32, device=_device()) for x in arrays)
    return weight, drive


def _reverse(
    norms: Callable[..., np.ndarray],
    layer: Layer,
    tensors: tuple[Any, Any],
    start: Any,
    components: Any,
) -> Outcome:
    """Time the forward pass, and the backward passes from a few t, and scale up the latter."""
    length = len(layer.inputs)
    times = evenly(length)

    def call() -> tuple[np.ndarray, float, float]:
        trajectory, forward = seconds_of(partial(_forward, *tensors, start))
        found, backward = seconds_of(partial(norms, trajectory, times, components))
        return found, forward + backward, forward + length / len(times) * backward

    found, first, _ = call()
    repeats: list[float] = []
    spent = first
    while not repeats or (len(repeats) < REPEATS and spent < LONGEST):
        _, seconds, whole = call()
        spent += seconds
        repeats.append(whole)
    pairs = {(t, k): i for i, t in enumerate(times) for k in (0, t // 2, t - 1)}
    reference = reference_log_norms(float64_jacobians(layer), pairs, "frobenius")
    error = largest_error(found, {(pairs[t, k], k): value for (t, k), value in reference.items()})
    result = f"largest relative error {error:.1e}"
    return Outcome(first, repeats, result, estimated=len(times) < length)


def _forward(weight: Any, drive: Any, start: Any) -> list[Any]:
    from torch.nn.functional import linear
    from torch_peers import TorchLayer, states

    layer = TorchLayer(weight, drive)
    trajectory: list[Any] = states(layer, start.clone().requires_grad_(), linear, slice(None))
    return trajectory


def _norms(
    trajectory: Sequence[Any], times: Sequence[int], components: Any, is_batched: bool
) -> np.ndarray:
    """Return log ‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖_F of the first sample, a row for each of the t."""
    import torch

    rows = torch.full((len(times), len(trajectory)), -torch.inf)
    for row, t in zip(rows, times, strict=True):
        gradients = torch.autograd.grad(
            trajectory[t],
            trajectory[:t],
            components,
            retain_graph=True,
            is_grads_batched=is_batched,
        )
        norms = torch.linalg.vector_norm(torch.stack(gradients), dim=(-2, -1)).log()
        row[:t] = norms.reshape(t, -1)[:, 0].cpu()
    return rows.numpy()


def exponents(length: int, size: int) -> list[Case]:
    """Return the cases of the exponents by QR in a loop."""
    steps = max(1, length // STEPS_PART)
    notes = f"{steps} of {length} steps timed, × {length / steps:g}"
    return [
        Case(maps.QR, x, partial(_exponents, length, size, steps, x), 8, notes=notes)
        for x in maps.PRECISIONS
    ]


def _exponents(length: int, size: int, steps: int, precision: str) -> Outcome:
    import torch

    dtype = getattr(torch, precision)
    weight, drive = (
        torch.tensor(x, dtype=dtype, device=_device())
        for x in weight_and_drive(layer_of(length, size))
    )
    begin = torch.linalg.qr(torch.randn(size, size, dtype=dtype, device=_device()))[0]

    def run() -> torch.Tensor:
        frame = begin
        h, growth = torch.zeros_like(drive[0]), torch.zeros_like(drive[0])
        for x in drive[:steps]:
            h = torch.tanh(weight @ h + x)
            frame, triangle = torch.linalg.qr((1 - h**2)[:, None] * (weight @ frame))
            growth += triangle.diagonal().abs().log()
        return growth / steps

    with torch.no_grad():
        _, outcome = timed(run)
    return outcome.times(length / steps) if steps < length else outcome
