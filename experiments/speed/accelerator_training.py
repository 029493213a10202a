"""A training step against cuDNN, and a sweep of points as one program against one by one."""

import threading
from functools import cache, partial
from typing import Any, NamedTuple

import jax
from accelerator_run import (  # type: ignore[import-not-found, unused-ignore]
    call_first,
    timed,
)
from accelerator_table import (  # type: ignore[import-not-found, unused-ignore]
    Case,
    LeftOut,
    Outcome,
)

OURS = "gradlab, Program.advance"
DEFAULT = "JAX's default"
COMPILING = 40.0  # seconds that a case may take with it
_setting_up = threading.Lock()  # Hydra composes one config at a time


class Step(NamedTuple):
    """A training step: the cell, n units, T steps, the batch size; and how many steps a call."""

    cell: str
    n: int
    length: int
    batch: int
    a_call: int


def _torch_name(step: Step) -> str:
    return f"PyTorch, nn.{step.cell.upper()}"


def _training() -> Any:
    """Import the benchmark of a training step, which composes its config with Hydra."""
    try:
        import training  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise LeftOut(f"training programs need what is not installed here ({error})") from error
    return training


def steps(step: Step) -> list[Case]:
    """Return gradlab's cases of a training step."""
    peers = tuple((_torch_name(step), precision) for precision in ("TF32", "float32"))
    cases = []
    for precision in (DEFAULT, "highest"):
        run = partial(_train, step, None if precision == DEFAULT else precision)
        measure, ahead = partial(_each, step, run), partial(_ahead, step, run)
        case = Case(OURS, precision, measure, COMPILING, peers, _notes(step), ahead)
        cases.append(case)
    return cases


def peers(step: Step) -> list[Case]:
    """Return PyTorch's cases of a training step."""
    name, notes = _torch_name(step), _notes(step)
    return [
        Case(name, precision, partial(_peer, step, precision == "TF32"), 8, notes=notes)
        for precision in ("float32", "TF32")
    ]


def _notes(step: Step) -> str:
    return f"{step.a_call} steps a call; seconds of one"


def _both(step: Step) -> dict[str, Any]:
    """Return a layer's training in gradlab and, from the same weights, in PyTorch."""
    with _setting_up:
        made: dict[str, Any] = _made(step)
    return made


@cache
def _made(step: Step) -> dict[str, Any]:
    training = _training()
    size = training.Size(step.n, step.length, step.batch)
    made: dict[str, Any] = training.prepare(step.cell, size, fixed=True)
    return made


class _Known(NamedTuple):
    """A training whose loss and gradients are computed already."""

    known: tuple[float, dict[str, Any]]

    def loss_and_gradients(self) -> tuple[float, dict[str, Any]]:
        return self.known


@cache
def _expected(step: Step) -> _Known:
    """Return gradlab's loss and gradients, in full precision."""
    with jax.default_matmul_precision("highest"):
        return _Known(_both(step)["gradlab"].loss_and_gradients())


def _train(step: Step, precision: str | None) -> Any:
    with jax.default_matmul_precision(precision):
        return _both(step)["gradlab"].train(step.a_call)


def _ahead(step: Step, run: Any) -> None:
    _both(step)
    call_first(run)
    _expected(step)


def _each(step: Step, run: Any) -> Outcome:
    _both(step)
    _, outcome = timed(run)
    repeats = [x / step.a_call for x in outcome.repeats]
    each: Outcome = outcome._replace(repeats=repeats)
    return each


def _peer(step: Step, tf32: bool) -> Outcome:
    import torch
    from accelerator_torch import (  # type: ignore[import-not-found, unused-ignore]
        check_tf32,
    )
    from accelerator_torch import timed as timed_by_torch

    check_tf32(tf32)
    training, theirs = _training(), _both(step)["PyTorch"]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        difference = training.largest_difference(_expected(step), theirs)
        _, outcome = timed_by_torch(partial(theirs.train, step.a_call), repeats=5)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    result = f"loss and gradients within {difference:.1e} of gradlab's"
    repeats = [x / step.a_call for x in outcome.repeats]
    each: Outcome = outcome._replace(result=result, repeats=repeats)
    return each


def sweep(step: Step, points: int) -> list[Case]:
    """Return the cases of `points` points of different seeds: fused, and one after the other."""
    name, notes = "one by one", f"{step.a_call} steps of {points} points"
    rows = (("fused, vmapped", _fused, ((name, DEFAULT),)), (name, _one_by_one, ()))
    cases = []
    for title, way, others in rows:
        run = partial(way, step, points)
        measure, ahead = (
            partial(_swept, step, points, run),
            partial(_sweep_ahead, step, points, run),
        )
        cases.append(Case(title, DEFAULT, measure, COMPILING, others, notes, ahead))
    return cases


class _Sweep(NamedTuple):
    """A sweep as one program of all points, and its points, each with its state."""

    program: Any
    together: Any
    points: list[tuple[Any, Any]]


def _sweep(step: Step, points: int) -> _Sweep:
    with _setting_up:
        made: _Sweep = _made_sweep(step, points)
    return made


@cache
def _made_sweep(step: Step, points: int) -> _Sweep:
    training = _training()
    size = training.Size(step.n, step.length, step.batch)
    ours = training.OurTraining(step.cell, size, fixed=False)
    each = []
    for seed in range(points):
        values = ours.hyperparameters | {"seed": jax.numpy.uint32(seed)}
        each.append((values, ours.program.initialise(values)))

    @jax.jit
    def stacked(trees: list[Any]) -> Any:
        return jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *trees)

    @jax.jit
    @jax.vmap
    def train(point: tuple[Any, Any]) -> Any:
        return ours.program.advance(*point, step.a_call)[1].loss[-1]

    return _Sweep(ours.program, partial(train, stacked(each)), each)


def _fused(step: Step, points: int) -> Any:
    return _sweep(step, points).together()


def _one_by_one(step: Step, points: int) -> Any:
    program, _, each = _sweep(step, points)
    return [program.advance(*point, step.a_call)[1].loss[-1] for point in each]


def _sweep_ahead(step: Step, points: int, run: Any) -> None:
    _sweep(step, points)  # is not timed
    call_first(run)


def _swept(step: Step, points: int, run: Any) -> Outcome:
    _sweep(step, points)
    outcome: Outcome = timed(run, repeats=3)[1]
    return outcome
