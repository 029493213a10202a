"""Checks of somebody's own arrays, and the sequences with an answer at every step made of them."""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from gradlab.tasks.array_files import Arrays, refuse

Kind = Literal["auto", "classes", "values"]


class Sequences(NamedTuple):
    """Sequences with a target and a weight at every step, as a `gradlab.tasks.Batch` has them.

    Attributes:
        inputs: 0 behind a sequence's end.
        targets: classes (integers) or values; 0 where the weight is 0.
        weights: how much a step counts.
        inside: whether a step is within its sequence.
    """

    inputs: Float[np.ndarray, "n time features"]
    targets: Int[np.ndarray, "n time"] | Float[np.ndarray, "n time outputs"]
    weights: Float[np.ndarray, "n time"]
    inside: Bool[np.ndarray, "n time"]

    def at(self, index: Int[np.ndarray, "m"]) -> "Sequences":
        """Return some of the sequences."""
        return Sequences(*(part[index] for part in self))


def checked_sequences(file: Path, read: Arrays, kind: Kind, prefix: str) -> Sequences:
    """Check one set of sequences, and give every step its target and weight.

    Args:
        file: for the sentences.
        read: its inputs and targets, and weights and lengths where it has them.
        kind: what the targets are; "auto": integers are classes.
        prefix: of the arrays' names in the file, "" or "test_".

    Raises:
        ConfigError: shapes or types do not agree, a number is not finite where it counts, or a
            sequence has no answer due.
    """
    inputs = _real(file, read["inputs"], f"{prefix}inputs")
    if inputs.ndim != 3 or 0 in inputs.shape:
        one = f": for one feature write {prefix}inputs[..., None]" if inputs.ndim == 2 else ""
        if one and np.issubdtype(read["inputs"].dtype, np.integer):
            one += f"; for tokens one-hot ones, numpy.eye(count)[{prefix}inputs]"
        refuse(
            file,
            f"{prefix}inputs must have shape (sequences, time, features); got {inputs.shape}{one}.",
        )
    count, time, _ = inputs.shape
    lengths = _lengths(file, read.get("lengths"), count, time, prefix)
    inside = np.arange(time) < lengths[:, None]
    targets, are_classes, for_sequence = _targets(file, read["targets"], kind, count, time, prefix)
    if "weights" in read:
        weights = _weights(file, read["weights"], inside, prefix)
    elif for_sequence:
        weights = (np.arange(time) == lengths[:, None] - 1).astype(float)
    else:
        weights = inside.astype(float)
    due = weights > 0
    if (empty := ~due.any(axis=1)).any():
        refuse(
            file,
            "every sequence must have a step at which an answer is due; sequence "
            f"{np.argmax(empty)} of {prefix}inputs, counted from 0, has none.",
        )
    targets = _finite(file, targets, due, f"{prefix}targets")
    if are_classes and (targets % 1).any():
        refuse(file, f"{prefix}targets must be whole numbers for task.targets=classes.")
    if kind == "auto" and not are_classes and not prefix:
        _check_not_classes(file, targets[due])
    return Sequences(
        _finite(file, inputs, inside, f"{prefix}inputs"),
        targets.astype(np.int32) if are_classes else targets,
        weights.astype(np.float32),
        inside,
    )


def _lengths(
    file: Path, given: Shaped[np.ndarray, "n"] | None, count: int, time: int, prefix: str
) -> Int[np.ndarray, "n"]:
    if given is None:
        return np.full(count, time)
    right = given.shape == (count,) and np.issubdtype(given.dtype, np.integer)
    if not right or given.min() < 1 or given.max() > time:
        shown = f"from {given.min()} to {given.max()}" if right else f"of shape {given.shape}"
        refuse(
            file,
            f"{prefix}lengths must be {count} integers, one a sequence, from 1 to the {time} steps "
            f"of {prefix}inputs; got {given.dtype} {shown}.",
        )
    return given


def _weights(
    file: Path, given: Shaped[np.ndarray, "n time"], inside: Bool[np.ndarray, "n time"], prefix: str
) -> Float[np.ndarray, "n time"]:
    weights = _real(file, given, f"{prefix}weights")
    if weights.shape != inside.shape:
        refuse(
            file,
            f"{prefix}weights must have shape (sequences, time), here {inside.shape}; got "
            f"{weights.shape}.",
        )
    weights = _finite(file, weights, inside, f"{prefix}weights")
    if (weights < 0).any():
        refuse(file, f"{prefix}weights must be at least 0; got {weights.min():g}.")
    return weights


def _targets(
    file: Path, given: Shaped[np.ndarray, "n *rest"], kind: Kind, count: int, time: int, prefix: str
) -> tuple[Float[np.ndarray, "n time *outputs"], bool, bool]:
    """Return each step's target, whether these are classes, and if a sequence has but one."""
    name = f"{prefix}targets"
    numbers = _real(file, given, name)
    is_whole = given.dtype == bool or np.issubdtype(given.dtype, np.integer)
    are_classes = kind == "classes" or (kind == "auto" and is_whole)
    if are_classes:
        forms = "(sequences,) or (sequences, time)"
        steps = numbers[..., 0] if numbers.ndim == 3 and numbers.shape[2] == 1 else numbers
        steps = steps[:, None] if steps.ndim == 1 else steps
    else:
        forms = "(sequences,), (sequences, outputs) or (sequences, time, outputs)"
        if numbers.shape == (count, time) and time > 1:
            refuse(
                file,
                f"real {name} of shape {numbers.shape} may be one value a step or {time} values a "
                f"sequence: write {name}[..., None] for the first, {name}[:, None] for the second.",
            )
        steps = numbers[:, None] if numbers.ndim == 1 else numbers
        steps = steps[:, None] if steps.ndim == 2 else steps
    dims = 2 if are_classes else 3
    if steps.ndim != dims or steps.shape[:2] not in ((count, 1), (count, time)) or not steps.size:
        refuse(
            file,
            f"{name} ({'classes' if are_classes else 'values'}) must have shape {forms}, here of "
            f"{count} sequences and {time} steps; got {given.shape}"
            f"{' (task.targets=values takes integers as values).' if is_whole else '.'}",
        )
    per_step = np.broadcast_to(steps, (count, time, *steps.shape[2:]))
    return per_step, are_classes, steps.shape[1] == 1


def _check_not_classes(file: Path, due: Float[np.ndarray, "answers outputs"]) -> None:
    """Refuse real targets that may as well be classes, such as pandas' integers beside blanks."""
    if (due % 1).any():
        return
    if due.shape[1] == 1:
        refuse(
            file,
            "targets are real numbers, and all of them are whole: give task.targets=classes or "
            "task.targets=values.",
        )
    if (due >= 0).all() and (due.sum(axis=1) == 1).all():
        refuse(
            file,
            "targets look like one-hot classes: write targets.argmax(axis=-1), or give "
            "task.targets=values.",
        )


def _real(file: Path, given: Shaped[np.ndarray, "*dims"], name: str) -> Float[np.ndarray, "*dims"]:
    """Return an array of booleans, integers or reals in float64."""
    if given.dtype.kind not in "biuf":
        text = given.dtype.kind in "US" and name.endswith("targets")
        remedy = f": number them by numpy.unique({name}, return_inverse=True)" if text else ""
        refuse(file, f"{name} must be an array of real numbers; got {given.dtype}{remedy}.")
    return given.astype(float)


def _finite(
    file: Path,
    values: Float[np.ndarray, "n time *rest"],
    used: Bool[np.ndarray, "n time"],
    name: str,
) -> Float[np.ndarray, "n time *rest"]:
    """Return values in float32, 0 where they are not used; all others must be finite."""
    mask = used.reshape(used.shape + (1,) * (values.ndim - 2))
    with np.errstate(over="ignore"):
        rounded = np.where(mask, values, 0).astype(np.float32)
    if (wrong := ~np.isfinite(rounded)).any():
        place = np.unravel_index(np.argmax(wrong), wrong.shape)
        refuse(
            file,
            f"{name} must be finite numbers that float32 holds; {name}"
            f"[{', '.join(map(str, place))}] is {values[place]:g}.",
        )
    return rounded
