"""A training step against cuDNN, and a sweep of points as one program against one by one."""

from functools import partial
from typing import Any

import jax
from accelerator_table import (  # type: ignore[import-not-found, unused-ignore]
    Case,
    LeftOut,
    Outcome,
    timed,
)

OURS = "gradlab, Program.advance"
DEFAULT = "JAX's default"
TORCH = "PyTorch, nn.{}"


def _training() -> Any:
    """Import the benchmark of a training step, which composes its config with Hydra."""
    try:
        import training  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise LeftOut(f"training programs need what is not installed here ({error})") from error
    return training


def steps(cell: str, n: int, length: int, batch: int, count: int) -> list[Case]:
    """Return the cases of one layer's training step, `count` of them a call."""
    training = _training()
    size = training.Size(n, length, batch)
    torch_name = TORCH.format(cell.upper())
    peers = ((torch_name, "float32"), (torch_name, "TF32"))
    notes = f"{count} steps a call; seconds of one"
    both = _Both(cell, size)
    return [
        Case(OURS, DEFAULT, partial(both.ours, count), 30, peers, notes),
        Case(torch_name, "float32", partial(both.torch, count, tf32=False), 15, notes=notes),
        Case(torch_name, "TF32", partial(both.torch, count, tf32=True), 15, notes=notes),
        Case(OURS, "highest", partial(both.ours, count, "highest"), 30, peers, notes),
    ]


class _Both:
    """A layer's training in gradlab and, from the same weights, in PyTorch."""

    def __init__(self, cell: str, size: Any) -> None:
        self.cell, self.size = cell, size
        self._made: dict[str, Any] = {}

    def _get(self) -> dict[str, Any]:
        if not self._made:
            self._made = _training().prepare(self.cell, self.size, fixed=True)
        return self._made

    def ours(self, count: int, precision: str | None = None) -> Outcome:
        with jax.default_matmul_precision(precision):
            ours = self._get()["gradlab"]
            _, outcome = timed(partial(ours.train, count))
        return _each(outcome, count)

    def torch(self, count: int, tf32: bool) -> Outcome:
        import torch

        if tf32 and not torch.cuda.is_available():
            raise LeftOut("no CUDA device that PyTorch could multiply in TF32 on")
        training, both = _training(), self._get()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        try:
            difference = training.largest_difference(both["gradlab"], both["PyTorch"])
            _, outcome = timed(partial(both["PyTorch"].train, count))
        finally:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        result = f"loss and gradients within {difference:.1e} of gradlab's"
        return _each(outcome, count)._replace(result=result)


def _each(outcome: Outcome, count: int) -> Outcome:
    return outcome._replace(repeats=[x / count for x in outcome.repeats])


def sweep(cell: str, n: int, length: int, batch: int, points: int, count: int) -> list[Case]:
    """Return the cases of `points` points of different seeds: fused, and one after the other."""
    training = _training()
    size = training.Size(n, length, batch)
    name = "one by one"
    notes = f"{count} steps of {points} points"
    fused = partial(_fused, cell, size, points, count)
    each = partial(_one_by_one, cell, size, points, count)
    return [
        Case("fused, vmapped", DEFAULT, fused, 30, ((name, DEFAULT),), notes),
        Case(name, DEFAULT, each, 30, notes=notes),
    ]


def _fused(cell: str, size: Any, points: int, count: int) -> Outcome:
    ours = _training().OurTraining(cell, size, fixed=False)
    return timed(ours.sweep(points, count), repeats=3)[1]


def _one_by_one(cell: str, size: Any, points: int, count: int) -> Outcome:
    ours = _training().OurTraining(cell, size, fixed=False)
    states = []
    for seed in range(points):
        values = ours.hyperparameters | {"seed": jax.numpy.uint32(seed)}
        states.append((values, ours.program.initialise(values)))

    def run() -> list[Any]:
        return [ours.program.advance(values, state, count)[1].loss[-1] for values, state in states]

    return timed(run, repeats=3)[1]
