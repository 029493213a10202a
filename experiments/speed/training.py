"""A training step and a whole run, in gradlab, PyTorch and plain Flax.

    python experiments/speed/training.py            (--sweep N: N points at once; --smoke: tiny)

One layer, FEATURES inputs and a readout at every step; loss, backward pass, clip by global norm,
Adam. All begin at the same weights and batch, and must agree on loss and gradients before any is
timed. gradlab trains by `Program.advance`, many steps a dispatch, as a point of a sweep does;
PyTorch and Flax by a loop of steps, as their users write it. Seconds are medians, and all take
turns in one process.
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
    disturbance,
    interleaved,
    keep,
    machine,
    markdown,
    sentence,
)
from torch_peers import best_threads, on_threads  # type: ignore[import-not-found, unused-ignore]
from torch_training import TorchTraining  # type: ignore[import-not-found, unused-ignore]

from gradlab import config as configuration
from gradlab.__main__ import CONF
from gradlab.tasks import Batch, Task
from gradlab.training.program import Program, State, hyperparameters_of

CELLS = ("rnn", "lstm", "gru")
OURS, TORCH, FLAX = "gradlab", "PyTorch", "Flax"
AGREE = 1e-4  # of the largest component
TARGET_MEDIAN = 1.5  # times as fast as each of the others at the median size; faster at every size


class Size(NamedTuple):
    """n units, T steps, a batch."""

    n: int
    length: int
    batch: int


SIZES = (Size(50, 100, 20), Size(128, 100, 64), Size(32, 64, 32), Size(128, 256, 32))


def running_mean(length: int, batch: int, fixed: bool) -> Task:
    """Noise, of whose first feature the mean so far is wanted at every step.

    Args:
        length: T.
        batch: of the one batch that is always the same, if `fixed`.
        fixed: draw nothing while training, so that a step is timed alone.
    """

    def sample(key: jax.Array, batch_size: int) -> Batch:
        inputs = jax.random.normal(key, (batch_size, length, FEATURES))
        steps = jnp.arange(1, length + 1)[:, None]
        return Batch(inputs, jnp.cumsum(inputs[..., :1], 1) / steps, jnp.ones((batch_size, length)))

    batch_of_zero = sample(jax.random.key(0), batch)
    draw = (lambda *_: batch_of_zero) if fixed else sample
    variance = float(jnp.mean(1 / jnp.arange(1, length + 1)))  # of the mean so far
    return Task(FEATURES, 1, draw, batch_of_zero, baseline=variance)


class OurTraining:
    """gradlab's compiled run of one setting."""

    def __init__(self, cell: str, size: Size, fixed: bool) -> None:
        """Compose the config as the command line does, with the task of this study."""
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

    def losses_and_gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        """Of the first batch, the gradients by the names that all three share."""
        state, batch = self.state.parameters, self.program.task.test
        loss, gradient = jax.value_and_grad(self.program.loss)(state, batch)
        cell, readout = gradient["cell"], gradient["readout"]
        return float(loss), {
            "input": np.asarray(cell["dense_i"]["kernel"][...]),
            "recurrent": np.asarray(cell["dense_h"]["kernel"][...]),
            "readout": np.asarray(readout["kernel"][...]),
        }

    def train(self, steps: int) -> Any:
        """So many steps from the start."""
        return self.program.advance(self.hyperparameters, self.state, steps)[1].loss[-1]

    def sweep(self, points: int, steps: int) -> Callable[[], Any]:
        """So many points, of different seeds, as one program."""
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
    """Largest difference of a loss or gradient from gradlab's, relative to its largest component.

    Raises:
        ValueError: they do not compute the same.
    """
    loss, gradients = trainings[OURS].losses_and_gradients()
    worst = 0.0
    for name in trainings.keys() - {OURS}:
        other_loss, others = trainings[name].losses_and_gradients()
        differences = {"loss": abs(other_loss / loss - 1)}
        for part, gradient in gradients.items():
            difference = np.max(np.abs(others[part] - gradient))
            differences[part] = float(difference / np.max(np.abs(gradient)))
        found = max(differences.values())
        if found > AGREE:
            raise ValueError(f"{name} does not compute what gradlab does: {differences}.")
        worst = max(worst, found)
    return worst


def prepared(cell: str, size: Size, fixed: bool) -> dict[str, Any]:
    """The three, at the same weights."""
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


def measured(cell: str, size: Size, fixed: bool, steps: int, repeats: int) -> dict[str, Any]:
    """One line: seconds a step of each."""
    trainings = prepared(cell, size, fixed)
    error = agreement(trainings)
    threads = best_threads(partial(trainings[TORCH].train, max(1, steps // 5)))
    runs = {name: partial(training.train, steps) for name, training in trainings.items()}
    runs[TORCH] = partial(on_threads, threads, runs[TORCH])
    _, seconds, others = interleaved(runs, repeats)
    each = {name: [x / steps for x in values] for name, values in seconds.items()}
    return {
        "cell": cell,
        "size": size._asdict(),
        "what": "step" if fixed else "run",
        "seconds": {name: median(values) for name, values in each.items()},
        "repeats": each,
        "threads": threads,
        "disagreement": error,
        "others": others,
    }


def swept(cell: str, size: Size, points: int, steps: int, repeats: int) -> dict[str, Any]:
    """One line: seconds a step of a point, of N points at once and of one PyTorch run."""
    trainings = prepared(cell, size, fixed=False)
    threads = best_threads(partial(trainings[TORCH].train, max(1, steps // 5)))
    runs = {
        OURS: trainings[OURS].sweep(points, steps),
        TORCH: partial(on_threads, threads, partial(trainings[TORCH].train, steps)),
    }
    _, seconds, others = interleaved(runs, repeats)
    each = {
        name: [x / steps / (points if name == OURS else 1) for x in values]
        for name, values in seconds.items()
    }
    return {
        "cell": cell,
        "size": size._asdict(),
        "what": f"run of {points} points",
        "seconds": {name: median(values) for name, values in each.items()},
        "repeats": each,
        "threads": threads,
        "others": others,
    }


def ratios(row: dict[str, Any]) -> dict[str, float]:
    """How many times as long the others take."""
    return {k: x / row["seconds"][OURS] for k, x in row["seconds"].items() if k != OURS}


def cells(row: dict[str, Any]) -> list[str]:
    """One line of the table."""
    seconds, found = row["seconds"], ratios(row)
    times = [f"{1e3 * seconds[x]:.3g}" if x in seconds else "" for x in (OURS, TORCH, FLAX)]
    faster = [f"{found[x]:.2f}" if x in found else "" for x in (TORCH, FLAX)]
    sizes = [str(x) for x in row["size"].values()]
    return [row["what"], row["cell"], *sizes, *times, *faster, str(row["threads"])]


def verdicts(rows: list[dict[str, Any]]) -> str:
    """Each target with what was found."""
    lines = []
    for what in ("step", "run"):
        for peer in (TORCH, FLAX):
            found = [ratios(row)[peer] for row in rows if row["what"] == what]
            for goal, value, target in (
                ("faster at every size", min(found), 1.0),
                ("the median", median(found), TARGET_MEDIAN),
            ):
                verdict = "met" if value > target else "missed"
                lines.append(
                    f"- {what}, against {peer}, {goal}: {value:.2f} (target {target:g}), {verdict}"
                )
    return "\n".join(lines)


HEADER = "what|cell|n|T|batch|gradlab, ms a step|PyTorch, ms|Flax, ms|PyTorch / gradlab"
HEADER += "|Flax / gradlab|PyTorch's threads"


def main() -> None:
    """Measure, print, and keep the results."""
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
        rows = [swept(cell, size, options.sweep, *timed) for cell, size in cases]
    else:
        rows = [measured(*case, fixed, *timed) for fixed in (True, False) for case in cases]
    facts = machine("torch", "optax")
    title = f"{options.steps} steps a repeat, median of {options.repeats}"
    parts = [title, markdown(HEADER.split("|"), map(cells, rows))]
    parts += [] if options.sweep else [verdicts(rows)]
    parts += [sentence(facts), disturbance(max(row["others"] for row in rows))]
    text = "\n\n".join(parts)
    if options.smoke:
        print(text)
        return
    stem = "training" + (f"_sweep{options.sweep}" if options.sweep else "")
    keep(stem, text, vars(options) | {"machine": facts, "rows": rows})


if __name__ == "__main__":
    main()
