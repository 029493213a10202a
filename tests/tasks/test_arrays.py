"""A task from a file of one's own: what it makes of arrays and tables, and what it refuses."""

import io
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from conftest import Compose

from gradlab import __main__ as command
from gradlab import load_runs
from gradlab.components import ConfigError
from gradlab.identity import identity, program_key, training_digest
from gradlab.tasks import Task
from gradlab.tasks.arrays import arrays
from gradlab.training.losses import losses, weighted_mean

N, T, F = 40, 6, 3
RNG = np.random.default_rng(7)
INPUTS = RNG.normal(size=(N, T, F))
LABELS = np.arange(N) % 4
LENGTHS = 2 + np.arange(N) % (T - 1)


def task_of(folder: Path, /, **named: Any) -> Task:
    options = {k: named.pop(k) for k in ("targets_are", "test_share", "standardise") if k in named}
    if "targets_are" in options:
        options["targets"] = options.pop("targets_are")
    np.savez(folder / "data.npz", **named)
    return arrays(str(folder / "data.npz"), **options)


def drawn(task: Task, count: int = 500) -> Any:
    return jax.tree.map(np.asarray, task.sample(jax.random.key(0), count))


def test_one_class_a_sequence_is_due_at_its_last_step(tmp_path: Path) -> None:
    padded = np.where(np.arange(T)[:, None] < LENGTHS[:, None, None], INPUTS, np.nan)
    task = task_of(tmp_path, inputs=padded, targets=LABELS, lengths=LENGTHS, test_share=0.25)
    assert (task.features, task.outputs, len(task.test.inputs)) == (F, 4, 10)
    originals = {row[0].astype(np.float32).tobytes(): i for i, row in enumerate(INPUTS)}
    batch = drawn(task)
    held_out = [originals[np.asarray(row[0]).tobytes()] for row in task.test.inputs]
    trained = [originals[row[0].tobytes()] for row in batch.inputs]
    assert set(held_out).isdisjoint(trained)
    assert set(held_out) | set(trained) == set(range(N))
    for i, inputs, targets, weights in zip(trained, *batch, strict=True):
        last = LENGTHS[i] - 1
        np.testing.assert_array_equal(inputs[: last + 1], INPUTS[i, : last + 1].astype(np.float32))
        assert not inputs[last + 1 :].any()
        assert (targets[last], weights[last], weights.sum()) == (LABELS[i], 1, 1)
    np.testing.assert_array_equal(task.test.lengths, LENGTHS[held_out])


@pytest.mark.parametrize("form", ["a sequence", "values a sequence", "a step", "classes a step"])
def test_targets_of_every_form(form: str, tmp_path: Path) -> None:
    given = {
        "a sequence": INPUTS[:, 0, 0],
        "values a sequence": INPUTS[:, 0, :2],
        "a step": INPUTS[..., :1],
        "classes a step": (INPUTS[..., 0] > 0),
    }[form]
    held_out = {"test_inputs": INPUTS[:8] + 1, "test_targets": given[:8]}
    task = task_of(tmp_path, inputs=INPUTS, targets=given, **held_out)
    per_step = form.endswith("a step")
    outputs = {"values a sequence": 2, "classes a step": 2}.get(form, 1)
    assert (task.outputs, len(task.test.inputs)) == (outputs, 8)
    np.testing.assert_array_equal(task.test.weights[:, :-1], float(per_step))
    np.testing.assert_array_equal(task.test.weights[:, -1], 1)
    answers = np.asarray(task.test.targets if per_step else task.test.targets[:, -1])
    np.testing.assert_allclose(answers.reshape(given[:8].shape), given[:8], rtol=1e-6)


@pytest.mark.parametrize("classes", [True, False])
def test_the_baseline_is_the_least_loss_of_a_constant_answer(classes: bool, tmp_path: Path) -> None:
    """Against the loss of many constants, as training computes it."""
    weights = RNG.uniform(0.1, 2, size=(N, T))
    steps = np.tile(LABELS[:, None], T) if classes else INPUTS[..., :2]
    task = task_of(tmp_path, inputs=INPUTS, targets=steps, weights=weights, test_share=0.5)

    def loss(constant: Any) -> float:
        outputs = np.broadcast_to(constant, (*task.test.weights.shape, task.outputs))
        return float(weighted_mean(losses(outputs, task.test.targets), task.test))

    if classes:
        shares = [np.sum(task.test.weights * (task.test.targets == c)) for c in range(4)]
        best = np.log(np.array(shares, np.float32))
    else:
        best = np.average(
            np.asarray(task.test.targets).reshape(-1, 2), axis=0, weights=task.test.weights.ravel()
        )
    assert loss(best) == pytest.approx(task.baseline, rel=1e-5)
    for change in 0.1 * RNG.normal(size=(20, task.outputs)):
        assert loss(np.asarray(best + change, np.float32)) > task.baseline


def test_the_baseline_of_one_held_out_class_is_zero(tmp_path: Path) -> None:
    held_out = {"test_inputs": INPUTS[:3], "test_targets": 0 * LABELS[:3]}
    assert str(task_of(tmp_path, **FINE, **held_out).baseline) == "0.0"


def test_targets_count_only_where_an_answer_is_due(tmp_path: Path) -> None:
    steps = np.full((N, T), -1)
    steps[:, 2] = LABELS
    task = task_of(tmp_path, inputs=INPUTS, targets=steps, weights=(steps >= 0).astype(int))
    np.testing.assert_array_equal(np.unique(task.test.weights[:, 2]), 1)
    assert (task.outputs, task.test.weights.sum()) == (4, 8)
    repeated = task_of(tmp_path, inputs=INPUTS, targets=LABELS, weights=steps >= 0)
    np.testing.assert_array_equal(repeated.test.targets[:, 2], task.test.targets[:, 2])


def test_types_may_be_said(tmp_path: Path) -> None:
    values = task_of(tmp_path, inputs=INPUTS, targets=LABELS, targets_are="values")
    assert (values.outputs, values.test.targets.shape[2:]) == (1, (1,))
    classes = task_of(tmp_path, inputs=INPUTS, targets=LABELS / 1, targets_are="classes")
    assert classes.outputs == 4


def test_features_are_scaled_only_where_asked_and_by_training_steps(tmp_path: Path) -> None:
    shifted = INPUTS * [1, 5, 0] + [0, 7, 3]
    data = {"inputs": shifted, "targets": LABELS, "lengths": LENGTHS}
    held_out = {"test_inputs": shifted[:4], "test_targets": LABELS[:4], "test_lengths": LENGTHS[:4]}
    plain = task_of(tmp_path, **data, **held_out)
    np.testing.assert_array_equal(plain.test.inputs[0, 0], shifted[0, 0].astype(np.float32))
    scaled = task_of(tmp_path, **data, **held_out, standardise=True)
    inside = np.arange(T) < LENGTHS[:, None]
    steps = shifted[inside]
    expected = (shifted[0] - steps.mean(axis=0)) / np.where(steps.std(axis=0) > 0, steps.std(0), 1)
    np.testing.assert_allclose(
        scaled.test.inputs[0, : LENGTHS[0]], expected[: LENGTHS[0]], rtol=1e-4, atol=1e-5
    )
    assert not np.asarray(scaled.test.inputs[0, LENGTHS[0] :]).any()


def rows(**columns: Any) -> pd.DataFrame:
    """A table with a row for each step of INPUTS up to its length."""
    sequence, step = np.nonzero(np.arange(T) < LENGTHS[:, None])
    features = {f"x{i}": INPUTS[sequence, step, i] for i in range(F)}
    last = step == LENGTHS[sequence] - 1
    target = pd.Series(LABELS[sequence]).where(last).astype("Int64")
    table = pd.DataFrame({"sequence": sequence, **features, "target": target})
    return table.assign(step=step + 1, last=last).assign(**columns).drop(columns="last")


def test_a_table_says_the_same_as_arrays(tmp_path: Path) -> None:
    by_arrays = task_of(tmp_path, inputs=INPUTS, targets=LABELS, lengths=LENGTHS)
    table = rows()
    shuffled = table.sample(frac=1, random_state=0)
    shuffled = shuffled.sort_values("sequence", kind="stable")  # steps say the order in each
    for written in (table.drop(columns="step"), shuffled):
        written.to_csv(tmp_path / "data.csv", index=False)
        by_table = arrays(str(tmp_path / "data.csv"))
        assert by_table.baseline == pytest.approx(by_arrays.baseline)
        jax.tree.map(np.testing.assert_array_equal, by_table.test, by_arrays.test)


def test_a_table_has_values_weights_and_held_out_sequences(tmp_path: Path) -> None:
    table = rows()
    both = {"target_A": table["x0"], "target_b": table["x1"], "test": table["sequence"] < 3}
    table = table.drop(columns="target").assign(**both, weight=table["step"])
    table.to_csv(tmp_path / "data.csv", index=False)
    task = arrays(str(tmp_path / "data.csv"))
    assert (task.features, task.outputs, len(task.test.inputs)) == (F, 2, 3)
    np.testing.assert_allclose(task.test.targets, task.test.inputs[..., :2], rtol=1e-6)
    expected = np.where(np.arange(T) < LENGTHS[:3, None], np.arange(1, T + 1), 0)
    np.testing.assert_array_equal(task.test.weights, expected)
    whole = rows().assign(target=lambda x: x["target"].astype(float))  # as pandas writes blanks
    whole.to_csv(tmp_path / "data.csv", index=False)
    with pytest.raises(ConfigError, match=r"all of them are whole: give task\.targets=classes or"):
        arrays(str(tmp_path / "data.csv"))
    assert arrays(str(tmp_path / "data.csv"), targets="values").test.targets.ndim == 3
    assert arrays(str(tmp_path / "data.csv"), targets="classes").outputs == 4


class Runs:
    """An object whose unpickling would leave a mark."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def with_one(array: np.ndarray, place: tuple[int, ...], value: Any) -> np.ndarray:
    changed = np.array(array)
    changed[place] = value
    return changed


FINE: dict[str, Any] = {"inputs": INPUTS, "targets": LABELS}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a typo": (
        {"weigths": LABELS},
        r"weigths is unknown \(did you mean weights\?\): the names are",
    ),
    "no targets": ({"targets": None}, "targets is missing: write it too"),
    "objects": ({"inputs": np.array([Runs()])}, "an archive of plain arrays, .*; it holds objects"),
    "two axes": (
        {"inputs": INPUTS[..., 0]},
        r"got \(40, 6\): for one feature write inputs\[..., N",
    ),
    "words": (
        {"inputs": np.full((N, T, F), "a")},
        "inputs must be an array of real numbers; got <U",
    ),
    "names": (
        {"targets": np.array(["a", "b"] * (N // 2))},
        r"got <U1: number them by numpy\.unique\(targets, return_inverse=True\)",
    ),
    "tokens": (
        {"inputs": np.tile(LABELS[:, None], T)},
        r"for tokens one-hot ones, numpy\.eye\(count\)\[inputs\]",
    ),
    "whole reals": ({"targets": LABELS / 1}, r"give task\.targets=classes or task\.targets=values"),
    "one-hot": ({"targets": np.eye(4)[LABELS]}, r"write targets\.argmax\(axis=-1\), or give"),
    "complex": (
        {"targets": LABELS * 1j},
        "targets must be an array of real numbers; got complex128",
    ),
    "NaN": ({"inputs": with_one(INPUTS, (3, 2, 1), np.nan)}, r"inputs\[3, 2, 1\] is nan"),
    "float32": ({"inputs": with_one(INPUTS, (3, 2, 1), 1e39)}, r"float32 holds; .* is 1e\+39"),
    "counts": (
        {"targets": LABELS[:-1]},
        r"targets .classes. must have shape .* of 40 seq.*\(39,\)",
    ),
    "axes": ({"targets": np.ones((N, T, 2), int)}, r"\(sequences,\) or \(sequences, time\)"),
    "ambiguous": ({"targets": INPUTS[..., 0]}, r"one value a step or 6 values a sequence: write t"),
    "negative": ({"targets": LABELS - 1}, r"classes must be .* from 0; its 4 are from -1 to 2"),
    "years": ({"targets": LABELS + 2020}, r"its 4 are from 2020 to 2023: number them by numpy.uni"),
    "one class": ({"targets": 0 * LABELS}, "classes must be at least two"),
    "lengths": (
        {"lengths": LENGTHS + 9},
        r"lengths must be 40 integers, .* 1 to the 6 steps .* 15",
    ),
    "weights": ({"weights": np.ones(N)}, r"weights must have shape .*\(40, 6\); got \(40,\)"),
    "below 0": ({"weights": -np.ones((N, T))}, "weights must be at least 0; got -1"),
    "none due": ({"weights": with_one(np.ones((N, T)), (5,), 0)}, "sequence 5 of inputs, .* none"),
    "half a test": ({"test_inputs": INPUTS}, "test_targets is missing"),
    "a test of other steps": (
        {"test_inputs": INPUTS[:, :3], "test_targets": LABELS},
        r"test_inputs must be like inputs, .* \(6, 3\); theirs is \(3, 3\)",
    ),
    "classes never trained": (
        {"targets": LABELS % 2, "test_inputs": INPUTS, "test_targets": LABELS % 2 + 5},
        "the classes of test_targets must be among those of targets; 5 is not",
    ),
    "one sequence": ({"inputs": INPUTS[:1], "targets": LABELS[:1]}, "there must be two sequences"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_used_is_refused_in_a_sentence(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changed, sentence = REFUSED[case]
    given = {name: array for name, array in (FINE | changed).items() if array is not None}
    with pytest.raises(ConfigError, match=rf"task\.path=data\.npz: .*{sentence}") as refused:
        task_of(tmp_path, **given)
    assert "\n" not in str(refused.value)
    assert not Path("ran").exists()


REFUSED_TABLES = {
    "no rows": ("sequence,x,target\n", "there must be rows"),
    "no target": (
        "sequence,x\n0,1\n",
        "must name the columns sequence, target .* it has sequence, x",
    ),
    "words": (
        "sequence,x,target\n0,1,1\n1,high,0\n",
        "column x must have numbers; line 3 has 'high'",
    ),
    "a blank": ("sequence,x,target\n0,,1\n", "column x must have numbers; line 2 is blank"),
    "a gap": ("sequence,step,x,target\n0,1,1,1\n0,3,1,1\n", "follow each other, .* of sequence 0"),
    "half held out": (
        "sequence,x,target,test\n0,1,1,0\n0,1,1,1\n",
        "the column test must have one",
    ),
    "nothing due": ("sequence,x,target\n0,1,1\n0,2,\n1,1,\n", "sequence 1 of inputs"),
    "a wide table": ("sequence,x1,x2,target\n0,1,2,1\n1,3,4,0\n", "write a row for each step"),
    "semicolons": ("sequence;x;target\n0;1;1\n", "separated by commas; .* it has sequence;x;tar"),
    "an index": (
        ",sequence,x,target\n0,0,1,1\n",
        "pandas' index, write it with index=False",
    ),
    "an index read again": ("Unnamed: 0,sequence,x,target\n0,0,1,1\n", "with index=False"),
    "an index without a name": (
        "sequence,x,target\n0,0,1,1\n1,1,1,0\n",
        "as many fields as the first, 3; line 2 has 4",
    ),
    "a cut line": (
        "sequence,x,target\n0,1,1\n\n1,1\n",
        "as many fields as the first, 3; line 4 has 2",
    ),
    "twice a name": ("sequence,x,target,target\n0,1,1,1\n", "two are target"),
    "two kinds of targets": (
        "sequence,x,target,target_1\n0,1,1,1\n",
        "must be target alone, or .* they are target, target_1",
    ),
    "a gap in the targets": (
        "sequence,x,target_1,target_3\n0,1,1,1\n",
        "without a gap; they are target_1, target_3",
    ),
    **{
        f"the column {name}": (
            f"sequence,x,target,{name}\n0,1,1,1\n",
            rf"the column {name} is unknown{likely}: they are sequence, step",
        )
        for name, likely in {
            "weights": r" \(did you mean weight\?\)",
            "targets": r" \(did you mean target\?\)",
            "lengths": "",
            "inputs": "",
            "test_targets": "",
            **{
                name: rf" \(did you mean {name.lower()}\?\)"
                for name in ("Step", "Test", "Weight", "Sequence", "Target", "Target_1")
            },
        }.items()
    },
    "no text": ("\udcff", "it cannot be read as a CSV file"),
    "nothing": ("", "it cannot be read as a CSV file"),
}


@pytest.mark.parametrize("case", REFUSED_TABLES)
def test_a_table_that_cannot_be_used_is_refused_in_a_sentence(case: str, tmp_path: Path) -> None:
    text, sentence = REFUSED_TABLES[case]
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=rf"task\.path=data\.csv: .*{sentence}"):
        arrays(str(path))


def an_array() -> bytes:
    np.save(file := io.BytesIO(), INPUTS)
    return file.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"x,target", b"PK\x03\x04 cut", b"\x80\x04K\x01.", an_array()]
)
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"it must be an archive of .*; it is no \.npz archive"):
        arrays(str(tmp_path / "data.npz"))


def test_a_point_is_known_by_its_data_wherever_that_lies(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task_of(tmp_path, **FINE)
    shutil.copy("data.npz", "copy.npz")
    task_of(tmp_path, inputs=INPUTS, targets=LABELS[::-1])
    now, copy = (composed("task=arrays", f"task.path={name}.npz") for name in ("data", "copy"))
    assert now.task["path"] == str(tmp_path / "data.npz")
    assert identity(now) != identity(copy)
    assert training_digest(now) != training_digest(copy)
    shutil.copy("copy.npz", "data.npz")
    before = composed("task=arrays", "task.path=data.npz")
    assert identity(before) == identity(copy)
    assert program_key(before) == program_key(copy)
    with pytest.raises(ConfigError, match="has other contents now than when the sweep began"):
        arrays(**{k: v for k, v in now.task.items() if k != "_target_"})
    with pytest.raises(ConfigError, match=r"task\.path has no value: type task\.path=VALUE"):
        composed("task=arrays")
    with pytest.raises(ConfigError, match=r"task\.path must be a file that ends in \.npz or \.csv"):
        composed("task=arrays", "task.path=nowhere.npz")


TINY = ("train.steps=2", "model.hidden_size=4", "train.batch_size=4", "wandb=disabled")


def test_a_sweep_goes_on_with_the_same_data_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> str:
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.setattr(sys, "argv", ["gradlab", *words])
        command.main()
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    task_of(tmp_path, **FINE)
    words = ("task=arrays", "task.path=data.npz", *TINY)
    run(*words, "seed=1,2", "hydra.sweep.dir=s")
    runs = load_runs("s")
    assert list(runs["status"]) == ["done", "done"]
    assert math.isfinite(runs["eval/loss"].iloc[0])
    shutil.rmtree("s/1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "1 point to run" in run("sweep.resume=../s", "--dry")
    shutil.move("../data.npz", "data.npz")
    assert "1 point to run" in run("sweep.resume=../s", "--dry")
    shutil.copy("data.npz", "moved.npz")
    shutil.move("data.npz", "../elsewhere.npz")
    with pytest.raises(
        SystemExit, match=r"there is no file .*repeat its whole command with the new task"
    ):
        run("sweep.resume=../s", "--dry")
    anew = (*words[:1], "task.path=moved.npz", *words[2:], "seed=1,2", "sweep.resume=../s")
    assert "1 point to run" in run(*anew, "--dry")
    task_of(tmp_path, inputs=-INPUTS, targets=LABELS)
    for again in (("sweep.resume=../s",), (*words, "seed=1,2", "sweep.resume=../s")):
        shutil.copy("../data.npz", "data.npz")
        with pytest.raises(SystemExit, match=r"contents of task\.path=.*data\.npz have changed"):
            run(*again)
