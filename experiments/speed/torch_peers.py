"""The norms of all pairs by PyTorch's automatic differentiation."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from timing import Layer, Pair  # type: ignore[import-not-found, unused-ignore]
from torch import Tensor
from torch.nn.functional import linear

CORES = len(os.sched_getaffinity(0))
WORTHWHILE = 0.8  # of the time on one thread, below which more threads are used
Result = TypeVar("Result")
Affine = Callable[[Tensor, Tensor], Tensor]  # (h, W) to W h, of one state or a batch of them
Differentiate = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


class TorchLayer(NamedTuple):
    """A tanh layer in PyTorch: h⁽ᵗ⁾ = tanh(W h⁽ᵗ⁻¹⁾ + drive⁽ᵗ⁾)."""

    weight: Tensor
    drive: Tensor

    @property
    def initial(self) -> Tensor:
        """The state h⁽⁰⁾."""
        return torch.zeros_like(self.drive[0])


def device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the number of PyTorch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_threads(count: int, run: Callable[[], Result]) -> Result:
    """Run a function with this number of PyTorch's threads."""
    with threads(count):
        return run()


def best_threads(trial: Callable[[], object]) -> int:
    """Return the number of threads to use: one per core if that is clearly faster, else one.

    With small matrices, several threads mostly wait for each other, and lose more time to other
    processes than a single one.
    """
    seconds = {count: on_threads(count, partial(_quickest, trial)) for count in (1, CORES)}
    return CORES if seconds[CORES] < WORTHWHILE * seconds[1] else 1


def _quickest(trial: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        trial()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def torch_layer(layer: Layer) -> TorchLayer:
    """Copy a Flax layer; the inputs are multiplied by their weights here, outside the timing."""
    weight = np.asarray(layer.cell.dense_h.kernel[...]).T
    drive = np.asarray(layer.cell.dense_i(layer.inputs))
    return TorchLayer(*(torch.tensor(x.copy(), device=device()) for x in (weight, drive)))


def matrix_vector(state: Tensor, weight: Tensor) -> Tensor:
    """Return W h, written as on paper."""
    return weight @ state


def states(layer: TorchLayer, start: Tensor, affine: Affine, steps: slice) -> list[Tensor]:
    """Return the states from `start` on, which is the first."""
    trajectory = [start]
    for drive in layer.drive[steps]:
        trajectory.append(torch.tanh(affine(trajectory[-1], layer.weight) + drive))
    return trajectory


def reverse_mode(layer: TorchLayer, affine: Affine = linear, copies: bool = False) -> np.ndarray:
    """Return the log norms of all pairs by one backward pass for each t, to every h⁽ᵏ⁾.

    Args:
        layer: the layer that is differentiated.
        affine: multiplies a state by the weights.
        copies: run n copies of the network, one for each component of h⁽ᵗ⁾, instead of asking
            autograd for a batch of gradients (`is_grads_batched`).
    """
    length, n = layer.drive.shape
    components = torch.eye(n, device=layer.drive.device)
    start = torch.zeros_like(components) if copies else layer.initial
    trajectory = states(layer, start.requires_grad_(), affine, slice(None))
    norms = torch.zeros((length + 1, length + 1), device=components.device)
    for t in range(1, length + 1):
        jacobians = torch.autograd.grad(
            trajectory[t],
            trajectory[:t],
            components,
            retain_graph=True,
            is_grads_batched=not copies,
        )
        norms[t, :t] = torch.stack(torch._foreach_norm(jacobians))
    return norms.log().cpu().numpy()


def pair_by_pair(
    layer: TorchLayer, differentiate: Differentiate, pairs: Sequence[Pair]
) -> np.ndarray:
    """Return the log norms of some pairs, one call for each function h⁽ᵏ⁾ ↦ h⁽ᵗ⁾; nan elsewhere."""
    length = len(layer.drive)
    with torch.no_grad():
        trajectory = states(layer, layer.initial, linear, slice(None))
    log_norms = np.full((length + 1, length + 1), np.nan)
    for t, k in pairs:
        jacobian = differentiate(_onward(layer, slice(k, t)), trajectory[k])
        log_norms[t, k] = torch.linalg.matrix_norm(jacobian).log().item()
    return log_norms


def _onward(layer: TorchLayer, steps: slice) -> Callable[[Tensor], Tensor]:
    return lambda start: states(layer, start, linear, steps)[-1]


def vectorised_jacobian(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Return the Jacobian by torch.autograd.functional.jacobian, in its faster mode."""
    return torch.autograd.functional.jacobian(function, at, vectorize=True)


def functional_jacrev(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Return the Jacobian by torch.func.jacrev."""
    return torch.func.jacrev(function)(at)
