"""A training step and a whole run, in gradlab, PyTorch and plain Flax.

    python experiments/speed/training.py            (--sweep N: N points at once; --smoke: tiny)

One layer with FEATURES inputs and a readout at every step; loss, backward pass, clipping by global
norm, Adam. All three start from the same weights and batch, and must agree on loss and gradients
before they are timed. gradlab trains by `Program.advance`, many steps in one call, as a point of a
sweep does; PyTorch and Flax by a loop of steps, as their users write it. All take turns in one
process; seconds are medians.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax_training import FlaxTraining  # type: ignore[import-not-found, unused-ignore]
from hydra import compose, initialize_config_dir
from timing import (  # type: ignore[import-not-found, unused-ignore]
    FEATURES,
    describe,
    load_note,
    machine,
    markdown,
    save,
    time_interleaved,
)
from torch_peers import best_threads, on_threads  # type: ignore[import-not-found, unused-ignore]
from torch_training import TorchTraining  # type: ignore[import-not-found, unused-ignore]

from gradlab import config as configuration
from gradlab.__main__ import CONF
from gradlab.tasks import Batch, Task
from gradlab.training.program import Program, State, hyperparameters_of

CELLS = ("rnn", "lstm", "gru")
OURS, TORCH, FLAX = "gradlab", "PyTorch", "Flax"
AGREE = 1e-4  # largest difference, relative to the largest component
TARGET_MEDIAN = 1.5  # times as fast as each of the others at the median size; faster at every size


class Size(NamedTuple):
    """n units, T steps and the batch size."""

    n: int
    length: int
    batch: int


SIZES = (Size(50, 100, 20), Size(128, 100, 64), Size(32, 64, 32), Size(128, 256, 32))


def running_mean(length: int, batch: int, fixed: bool) -> Task:
    """Return the task to give, at every step, the mean of the first feature of noise so far.

    Args:
        length: T.
        batch: batch size of the test set, and of the training batch if `fixed`.
        fixed: train on the test set, so that a step is timed without drawing a batch.
    """

    def sample(key: jax.Array, batch_size: int) -> Batch:
        inputs = jax.random.normal(key, (batch_size, length, FEATURES))
        steps = jnp.arange(1, length + 1)[:, None]
        return Batch(inputs, jnp.cumsum(inputs[..., :1], 1) / steps, jnp.ones((batch_size, length)))

    test = sample(jax.random.key(0), batch)
    draw = (lambda *_: test) if fixed else sample
    variance = float(jnp.mean(1 / jnp.arange(1, length + 1)))  # of the targets
    return Task(FEATURES, 1, draw, test, baseline=variance)


class OurTraining:
    """Training by gradlab's compiled program."""

    def __init__(self, cell: str, size: Size, fixed: bool) -> None:
        """Compose the config as the command line does, with this benchmark's task."""
        overrides = [f"model={cell}", f"model.hidden_size={size.n}", "clip=global_norm"]
        overrides += [f"train.batch_size={size.batch}", "task.length=8"]
        configuration.register()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = configuration.check(compose("config", overrides))
        task = {"_target_": f"{__name__}.running_mean", "length": size.length}
        self.config = replace(config, task=task | {"batch": size.batch, "fixed": fixed})
        self.program = Program(self.config)
        self.hyperparameters = hyperparameters_of(self.config)
        self.state: State = self.program.initialise(self.hyperparameters)

    def loss_and_gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        """Return the loss and gradients of the first batch, by names that all three share."""
        state, batch = self.state.parameters, self.program.task.test
        loss, gradient = jax.value_and_grad(self.program.loss)(state, batch)
        cell, readout = gradient["cell"], gradient["readout"]
        return float(loss), {
            "input": np.asarray(cell["dense_i"]["kernel"][...]),
            "recurrent": np.asarray(cell["dense_h"]["kernel"][...]),
            "readout": np.asarray(readout["kernel"][...]),
        }

    def train(self, steps: int) -> Any:
        """Train for some steps from the initial state; return the last loss."""
        return self.program.advance(self.hyperparameters, self.state, steps)[1].loss[-1]

    def sweep(self, points: int, steps: int) -> Callable[[], Any]:
        """Return a function that trains points of different seeds as one program."""
        hyperparameters = {
            k: jnp.broadcast_to(v, (points,)) for k, v in self.hyperparameters.items()
        }
        hyperparameters["seed"] = jnp.arange(points, dtype=jnp.uint32)
        states = jax.vmap(self.program.initialise)(hyperparameters)
        together = jax.jit(
            jax.vmap(
                lambda hyperparameters, state: self.program.advance(hyperparameters, state, steps)[
                    1
                ].loss[-1]
            )
        )
        return partial(together, hyperparameters, states)


def agreement(trainings: dict[str, Any]) -> float:
    """Return the largest difference of a loss or gradient from gradlab's.

    It is relative to the gradient's largest component.

    Raises:
        ValueError: a difference is above AGREE.
    """
    differences = {x: largest_difference(trainings[OURS], trainings[x]) for x in (TORCH, FLAX)}
    for name, largest in differences.items():
        if largest > AGREE:
            raise ValueError(f"{name} does not compute what gradlab does: {largest:.1e} apart.")
    return max(differences.values())


def largest_difference(ours: Any, other: Any) -> float:
    """Return the largest difference of two trainings' loss or gradients, as in `agreement`."""
    loss, gradients = ours.loss_and_gradients()
    other_loss, others = other.loss_and_gradients()
    differences = [abs(other_loss / loss - 1)]
    for part, gradient in gradients.items():
        difference = np.max(np.abs(others[part] - gradient))
        differences.append(float(difference / np.max(np.abs(gradient))))
    return max(differences)


def prepare(cell: str, size: Size, fixed: bool) -> dict[str, Any]:
    """Return the three trainings, with the same initial weights."""
    ours = OurTraining(cell, size, fixed)
    network = ours.program.merge(ours.state.parameters)
    hyperparameters = (ours.config.clip["threshold"], ours.config.optim["learning_rate"])
    batch = ours.program.task.test
    draw = None if fixed else ours.program.task.sample
    flax = FlaxTraining(cell, network, batch, draw, *hyperparameters)
    return {
        OURS: ours,
        TORCH: TorchTraining(cell, network, batch, fixed, *hyperparameters),
        FLAX: flax,
    }


def measure(cell: str, size: Size, fixed: bool, steps: int, repeats: int) -> dict[str, Any]:
    """Return a row: the seconds of a step in each library."""
    trainings = prepare(cell, size, fixed)
    error = agreement(trainings)
    threads = best_threads(partial(trainings[TORCH].train, max(1, steps // 5)))
    runs = {name: partial(training.train, steps) for name, training in trainings.items()}
    runs[TORCH] = partial(on_threads, threads, runs[TORCH])
    _, seconds, others = time_interleaved(runs, repeats)
    per_step = {name: [x / steps for x in values] for name, values in seconds.items()}
    return {
        "cell": cell,
        "size": size._asdict(),
        "what": "step" if fixed else "run",
        "seconds": {name: median(values) for name, values in per_step.items()},
        "repeats": per_step,
        "threads": threads,
        "disagreement": error,
        "others": others,
    }


def measure_sweep(cell: str, size: Size, points: int, steps: int, repeats: int) -> dict[str, Any]:
    """Return a row: the seconds of a step of a point, in a sweep and in one PyTorch run."""
    trainings = prepare(cell, size, fixed=False)
    threads = best_threads(partial(trainings[TORCH].train, max(1, steps // 5)))
    runs = {
        OURS: trainings[OURS].sweep(points, steps),
        TORCH: partial(on_threads, threads, partial(trainings[TORCH].train, steps)),
    }
    _, seconds, others = time_interleaved(runs, repeats)
    per_step = {
        name: [x / steps / (points if name == OURS else 1) for x in values]
        for name, values in seconds.items()
    }
    return {
        "cell": cell,
        "size": size._asdict(),
        "what": f"run of {points} points",
        "seconds": {name: median(values) for name, values in per_step.items()},
        "repeats": per_step,
        "threads": threads,
        "others": others,
    }


def ratios(row: dict[str, Any]) -> dict[str, float]:
    """Return the seconds of the others relative to gradlab's."""
    return {k: x / row["seconds"][OURS] for k, x in row["seconds"].items() if k != OURS}


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row of the table as text."""
    seconds, slower = row["seconds"], ratios(row)
    times = [f"{1e3 * seconds[x]:.3g}" if x in seconds else "" for x in (OURS, TORCH, FLAX)]
    faster = [f"{slower[x]:.2f}" if x in slower else "" for x in (TORCH, FLAX)]
    sizes = [str(x) for x in row["size"].values()]
    return [row["what"], row["cell"], *sizes, *times, *faster, str(row["threads"])]


def verdicts(rows: list[dict[str, Any]]) -> str:
    """Return a line for each target, with the measured value."""
    lines = []
    for what in ("step", "run"):
        for peer in (TORCH, FLAX):
            values = [ratios(row)[peer] for row in rows if row["what"] == what]
            for goal, value, target in (
                ("faster at every size", min(values), 1.0),
                ("the median", median(values), TARGET_MEDIAN),
            ):
                verdict = "met" if value > target else "missed"
                lines.append(
                    f"- {what}, against {peer}, {goal}: {value:.2f} (target {target:g}), {verdict}"
                )
    return "\n".join(lines)


HEADER = "what|cell|n|T|batch|gradlab, ms a step|PyTorch, ms|Flax, ms|PyTorch / gradlab"
HEADER += "|Flax / gradlab|PyTorch's threads"


def main() -> None:
    """Measure, print and save the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50, help="steps of training a repeat")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--sweep", type=int, metavar="N", help="throughput of N points at once")
    parser.add_argument("--smoke", action="store_true", help="one tiny case; nothing is kept")
    options = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory too
    cases = [(cell, size) for size in SIZES for cell in CELLS]
    if options.smoke:
        options.steps, options.repeats, cases = 2, 1, [("lstm", Size(4, 5, 2))]
    timed = (options.steps, options.repeats)
    if options.sweep:
        rows = [measure_sweep(cell, size, options.sweep, *timed) for cell, size in cases]
    else:
        rows = [measure(*case, fixed, *timed) for fixed in (True, False) for case in cases]
    facts = machine("torch", "optax")
    title = f"{options.steps} steps a repeat, median of {options.repeats}"
    parts = [title, markdown(HEADER.split("|"), map(cells, rows))]
    parts += [] if options.sweep else [verdicts(rows)]
    parts += [describe(facts), load_note(max(row["others"] for row in rows))]
    text = "\n\n".join(parts)
    if options.smoke:
        print(text)
        return
    stem = "training" + (f"_sweep{options.sweep}" if options.sweep else "")
    save(stem, text, vars(options) | {"machine": facts, "rows": rows})


if __name__ == "__main__":
    main()
