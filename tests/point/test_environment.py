"""What else numbers depend on: flags of JAX, and numbers beyond float32."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import Compose
from test_checkpoints import StopAt

from gradlab import load_gradients, records
from gradlab.point import Point, run_point, run_points
from gradlab.records import load_metrics
from gradlab.training.program import Program

SMALL = (
    *("model.hidden_size=5", "task.length=4", "train.batch_size=6", "train.steps=4"),
    *("train.log_every=2", "wandb=disabled", "probe.samples=2"),
)
SWEEP = (
    *SMALL,
    *("model=rnn,lstm,gru", "task=adding", "task.length=12", "task.test_size=20"),
    *("bias=chrono", "clip=global_norm", "clip.threshold=1", "probe=[spectral,lyapunov]"),
)


def test_64_bit_types_change_no_bit_of_a_sweep(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "gradlab", *SWEEP, f"hydra.sweep.dir={name}"],
            cwd=tmp_path,
            env=os.environ | {"JAX_ENABLE_X64": flag},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, flag in (("plain", "0"), ("wide", "1"))
    ]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    for point in ("0", "1", "2"):
        plain, wide = (tmp_path / name / point for name in ("plain", "wide"))
        assert load_metrics(plain).equals(load_metrics(wide))
        assert load_gradients(plain).equals(load_gradients(wide))
        assert records.load_status(wide)["flags"]["jax_enable_x64"] is False


def test_64_bit_types_that_a_module_turns_on_change_no_bit(
    composed: Compose, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("plain", "wide")]
    for folder, wide in zip(folders, (False, True), strict=True):
        jax.config.update("jax_enable_x64", wide)
        try:
            run_point(Point(composed(*SMALL, "model=gru"), folder, folder.name))
        finally:
            jax.config.update("jax_enable_x64", False)
    assert load_metrics(folders[0]).equals(load_metrics(folders[1]))
    assert load_gradients(folders[0]).equals(load_gradients(folders[1]))


def test_flags_are_in_the_status(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    with jax.default_matmul_precision("highest"):
        run_point(Point(composed(*SMALL), tmp_path / "sweep" / "0", "0"))
    flags = json.loads((tmp_path / "sweep" / "0" / "status.json").read_text())["flags"]
    assert flags["jax_default_matmul_precision"] == "highest"
    assert flags["jax_default_prng_impl"] == "threefry2x32"
    assert flags["jax_threefry_partitionable"] is True
    assert flags["XLA_FLAGS"] == "--xla_backend_optimization_level=0"


def test_a_checkpoint_of_other_flags_is_not_gone_on_from(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, whole = (
        Point(composed(*SMALL), tmp_path / "sweep" / name, name) for name in ("broken", "whole")
    )
    assert run_point(broken, StopAt(3))["state"] == "interrupted"
    with jax.default_matmul_precision("highest"), jax.threefry_partitionable(False):
        run_point(broken)
        assert "of other flags of JAX (present ones" in capsys.readouterr().err
        run_point(whole)
        assert load_metrics(broken.folder).equals(load_metrics(whole.folder))


@pytest.fixture
def run(composed: Compose, tmp_path: Path) -> Callable[..., list[dict]]:
    def run_together(*each: tuple[str, ...]) -> list[dict]:
        points = [
            Point(composed(*SMALL, *words), tmp_path / str(i), str(i))
            for i, words in enumerate(each)
        ]
        return run_points(Program(points[0].config), points)

    return run_together


@pytest.mark.parametrize(("model", "optimiser"), [("rnn", "sgd"), ("lstm", "adam")])
def test_a_learning_rate_beyond_float32_diverges(
    run: Callable[..., list[dict]], model: str, optimiser: str
) -> None:
    (status,) = run((f"model={model}", f"optim={optimiser}", "optim.learning_rate=1e30"))
    assert status["state"] == status["summary"]["verdict"] == "diverged"
    assert "at update 1 " in status["reason"]
    assert status["summary"]["train/step"] == 0


@pytest.mark.parametrize(
    ("task", "rate", "worst"), [("digits", "1e10", 87.3), ("adding", "10", 1.83)]
)
def test_training_that_drives_the_loss_beyond_the_worst_answers_has_diverged(
    run: Callable[..., list[dict]], task: str, rate: str, worst: float
) -> None:
    """Not the network whose states grow to such a loss without training."""
    words = (f"task={task}", "task.length=4", "optim=sgd")
    grows = ("+model.cell.activation=identity", "init=identity", "init.gain=1e3")
    diverged, done = run(*((*words, f"optim.learning_rate={x}") for x in (rate, "0.01")))
    summary = diverged["summary"]
    assert diverged["state"] == summary["verdict"] == "diverged"
    assert (summary["train/step"], done["state"]) == (4, "done")
    assert summary["diverged/worst"] == pytest.approx(worst, rel=0.1)
    assert f"{summary['eval/loss']:.6g} after update 4" in diverged["reason"]
    assert f"beyond {summary['diverged/worst']:.6g}, that of the worst" in diverged["reason"]
    (status,) = run((*words, *grows, "optim.learning_rate=1e-30"))
    assert status["summary"]["eval/loss"] > worst
    assert (status["state"], status["summary"]["verdict"]) == ("done", "exploding")


@pytest.mark.parametrize("steps", [0, 4])
def test_a_gain_beyond_float32_has_diverged_before_the_first_update(
    run: Callable[..., list[dict]], tmp_path: Path, steps: int
) -> None:
    steps_word = f"train.steps={steps}"
    diverged, done = run((steps_word, "init.gain=1e30"), (steps_word, "init.gain=1e3"))
    assert diverged["state"] == diverged["summary"]["verdict"] == "diverged"
    assert "after update 0" in diverged["reason"]
    assert done["state"] == "done"
    assert not (tmp_path / "0" / records.GRADIENTS).exists()
    assert list(load_metrics(tmp_path / "0")["train/step"]) == [0]
    assert np.isfinite(load_metrics(tmp_path / "1")["eval/loss"].dropna()).all()


def test_states_beyond_float32_have_diverged(run: Callable[..., list[dict]]) -> None:
    """Weights of 1e10 that are applied four times over: 1e40."""
    linear = ("+model.cell.activation=identity", "train.steps=0", "init=identity")
    statuses = run((*linear, "init.gain=1e15"), (*linear, "init.gain=1e3"))
    assert [status["state"] for status in statuses] == ["diverged", "done"]
    assert "the loss on the held-out sequences" in statuses[0]["reason"]
