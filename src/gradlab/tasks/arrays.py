"""Somebody's own sequences, read from a file of arrays or a table: a task without code."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from pydantic import Field

from gradlab.config import NonNegative
from gradlab.tasks import Batch, Task
from gradlab.tasks.array_files import PARTS, SUFFIXES, Arrays, read_arrays, refuse
from gradlab.tasks.array_sequences import Kind, Sequences, checked_sequences
from gradlab.tasks.user_files import checked_content, existing_file

SPLIT_SEED = 0  # which sequences are held out is the same for every seed of a run
SPARSE = 2  # class numbers beyond this times the count of distinct ones are no class numbers


def arrays(
    path: Annotated[str, existing_file("a file that ends in .npz or .csv", *SUFFIXES)],
    digest: str | None = None,
    targets: Kind = "auto",
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    standardise: bool = False,
    tolerance: NonNegative | None = None,
) -> Task:
    """Learn sequences of one's own from a file; nothing in the file is run.

    A .npz file, as `numpy.savez(path, inputs=…, targets=…)` writes it, has

    - inputs (sequences, time, features), real;
    - targets: integers are classes from 0, real numbers are values (if all of them are whole, say
      which by the argument targets). One answer for a sequence, due
      at its last step: (sequences,), or values (sequences, outputs). One for every step:
      (sequences, time), or values (sequences, time, outputs);
    - weights (sequences, time), optional: how much each step counts, 0 for no answer due. With one
      answer for a sequence, they say at which steps it is due instead of the last;
    - lengths (sequences,), optional: the steps of each sequence; what lies behind is not read;
    - test_inputs, test_targets, test_weights and test_lengths, optional: the held-out sequences.

    A .csv file has a row for each step, and columns by the names in its first line: sequence (which
    one), target (blank where no answer is due; target_1, target_2, … for several values), and one
    for each feature by any name; optional are step (whole numbers that follow each other; else the
    order of the rows counts), weight, and test (1 in all rows of a held-out sequence, else 0).

    Where the file holds nothing out, a random choice of `test_share` is, the same for every seed.
    Baseline: the loss of the best constant answer to the held-out sequences: the entropy of their
    classes in nats, or the variance of their values.

    Args:
        path: the file; a relative path starts at the working folder.
        digest: `config.file_digest` of the file as it is expected; None: not checked.
        targets: "classes" (whole numbers) or "values", where the numbers' type does not say which.
        test_share: share of the sequences that is held out, above 0 and below 1.
        standardise: scale each feature to mean 0 and variance 1 over the training sequences.
        tolerance: largest error of a right value; None: values are not judged right or wrong.

    Raises:
        ConfigError: the file has changed since its digest was taken, or cannot be used; the
            sentence says what is allowed.

    Example:
        >>> from gradlab.tasks.arrays import arrays
        >>> random = np.random.default_rng(0)
        >>> np.savez("data.npz", inputs=random.normal(size=(90, 20, 3)), targets=np.arange(90) % 2)
        >>> task = arrays("data.npz", test_share=0.1)
        >>> task.test.inputs.shape, task.outputs
        ((9, 20, 3), 2)
    """
    content = checked_content(path, digest)
    return _task(path, content, targets, test_share, standardise, tolerance)


@lru_cache(maxsize=2)  # the programs of a sweep share the arrays
def _task(
    path: str,
    content: str,
    kind: Kind,
    test_share: float,
    standardise: bool,
    tolerance: float | None,
) -> Task:
    del content  # only tells files apart
    file = Path(path)
    training, test = _training_and_test(file, read_arrays(file), kind, test_share)
    if standardise:
        training, test = _standardised(training, test)
    classes = training.targets.ndim == 2
    outputs = _class_count(file, training, test) if classes else training.targets.shape[2]
    kept = Batch(*(jnp.asarray(part) for part in training[:3]))

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        index = jax.random.randint(key, (batch_size,), 0, len(kept.inputs))
        return Batch(*(part[index] for part in kept))

    return Task(
        features=kept.inputs.shape[2],
        outputs=outputs,
        sample=sample,
        test=Batch(*(jnp.asarray(part) for part in test[:3])),
        baseline=_best_constant(test),
        tolerance=tolerance,
    )


def _training_and_test(
    file: Path, read: Arrays, kind: Kind, test_share: float
) -> tuple[Sequences, Sequences]:
    """Return the sequences to train on and those held out, by the file or by `test_share`."""
    named = {name: read[name] for name in PARTS if name in read}
    held_out = {name: read[f"test_{name}"] for name in PARTS if f"test_{name}" in read}
    training = checked_sequences(file, named, kind, "")
    if held_out:
        if missing := {"inputs", "targets"} - held_out.keys():
            refuse(file, f"test_{missing.pop()} is missing: held-out sequences need both.")
        test = checked_sequences(file, held_out, kind, "test_")
        for part in ("inputs", "targets"):
            here, there = (getattr(x, part).shape[1:] for x in (training, test))
            if here != there:
                refuse(
                    file,
                    f"test_{part} must be like {part}, whose shape after the first axis is {here}; "
                    f"theirs is {there}. (Pad with zeros, and give lengths and test_lengths.)",
                )
        _check_known(file, training, test)
        return training, test
    count = len(training.inputs)
    if count < 2:
        refuse(
            file,
            "there must be two sequences at least, one of them to hold out; it has one: cut a long "
            "one into several.",
        )
    order = np.random.default_rng(SPLIT_SEED).permutation(count)
    size = min(max(round(test_share * count), 1), count - 1)
    return training.at(np.sort(order[size:])), training.at(np.sort(order[:size]))


def _check_known(file: Path, training: Sequences, test: Sequences) -> None:
    """Refuse held-out classes that are never due in training."""
    if training.targets.ndim != 2:
        return  # values
    known, held_out = (part.targets[part.weights > 0] for part in (training, test))
    new = np.setdiff1d(held_out, known)
    if len(new):
        refuse(
            file,
            f"the classes of test_targets must be among those of targets; {new[0]} is not: hold "
            "out other sequences, or none, and task.test_share says how many are chosen.",
        )


def _standardised(training: Sequences, test: Sequences) -> tuple[Sequences, Sequences]:
    """Scale features by their mean and deviation over the training steps; padding stays 0."""
    steps = training.inputs[training.inside].astype(float)
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1)  # a constant feature becomes 0

    def scaled(sequences: Sequences) -> Sequences:
        inputs = np.where(sequences.inside[..., None], (sequences.inputs - mean) / scale, 0)
        return sequences._replace(inputs=inputs.astype(np.float32))

    return scaled(training), scaled(test)


def _class_count(file: Path, *parts: Sequences) -> int:
    """Return the number of classes, those from 0 to the largest that is due."""
    known = np.unique(np.concatenate([part.targets[part.weights > 0] for part in parts]))
    count = int(known[-1]) + 1
    if known[0] < 0 or len(known) < 2 or count > SPARSE * len(known):
        refuse(
            file,
            f"classes must be at least two, numbered from 0; its {len(known)} are from {known[0]} "
            f"to {known[-1]}: number them by numpy.unique(targets, return_inverse=True), or give "
            "task.targets=values (steps at which no answer is due have weights of 0).",
        )
    return count


def _best_constant(test: Sequences) -> float:
    """Return the loss of the best constant answer to sequences, in nats or as a squared error."""
    due, weights = test.targets[test.weights > 0], test.weights[test.weights > 0].astype(float)
    if due.ndim == 1:
        totals = np.bincount(due, weights)
        shares = totals[totals > 0] / totals.sum()
        return float(np.sum(shares * np.log(1 / shares)))  # 0, not −0, for one class
    mean = np.average(due, axis=0, weights=weights)
    return float(np.mean(np.average((due - mean) ** 2, axis=0, weights=weights)))
