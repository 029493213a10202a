"""Points from config to records: alone, and in lock-step with neighbours."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Compose

from gradlab import load_gradients, load_runs, records
from gradlab.point import Point, checkpoints, run_point, run_points
from gradlab.records import load_metrics
from gradlab.training.program import Program

SMALL = (
    "model.hidden_size=5",
    "task.length=4",
    "train.batch_size=6",
    "train.steps=5",
    "train.log_every=2",
    "optim=sgd",
    "wandb=disabled",
)


def points(folder: Path, composed: Compose, *each: str) -> list[Point]:
    return [
        Point(composed(*SMALL, overrides), folder / str(i), overrides)
        for i, overrides in enumerate(each)
    ]


def test_points_in_lock_step_are_the_points_alone(composed: Compose, tmp_path: Path) -> None:
    each = ("seed=1", "init.gain=2", "clip.threshold=0.05", "optim.learning_rate=3e38")
    together = points(tmp_path / "together", composed, *each)
    statuses = run_points(Program(together[0].config), together)
    assert [status["state"] for status in statuses] == ["done"] * 3 + ["diverged"]
    for point, status in zip(points(tmp_path / "alone", composed, *each), statuses, strict=True):
        single = run_point(point)
        folder = tmp_path / "together" / point.folder.name
        assert (status["state"], status.get("reason")) == (single["state"], single.get("reason"))
        expected = load_metrics(point.folder)
        metrics = load_metrics(folder)
        assert list(metrics) == list(expected)
        np.testing.assert_allclose(metrics, expected, rtol=1e-5, atol=1e-6)
        maps, alone = load_gradients(folder), load_gradients(point.folder)
        np.testing.assert_allclose(
            maps["jacobian_log_norm"], alone["jacobian_log_norm"], rtol=1e-5, atol=1e-5
        )


def test_one_whose_records_fail_leaves_those_in_lock_step(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = records.save_gradients

    def full(folder: Path, *content: object) -> None:
        if folder.name == "1":
            raise OSError(28, "No space left on device")
        save(folder, *content)  # type: ignore[arg-type]

    monkeypatch.setattr(records, "save_gradients", full)
    together = points(tmp_path, composed, "seed=1", "seed=2", "seed=3")
    statuses = run_points(Program(together[0].config), together)
    assert [status["state"] for status in statuses] == ["done", "failed", "done"]
    runs = load_runs(tmp_path)
    assert list(runs["status"]) == ["done", "failed", "done"]
    assert "No space left on device" in runs["reason"][1]
    for folder in runs["path"]:
        assert list(load_metrics(folder)["train/step"]) == [0, 1, 2, 4, 5]


def test_a_state_that_only_a_probe_finds_infinite_has_diverged_after_an_update(
    composed: Compose, tmp_path: Path
) -> None:
    linear = ("task=echo", "task.length=16", "+model.cell.activation=identity", "train.log_every=5")
    each = ("optim.learning_rate=1e-9", "optim.learning_rate=1e12")
    configs = [composed(*SMALL, *linear, x) for x in each]
    together = [Point(x, tmp_path / "a" / "b" / str(i), "") for i, x in enumerate(configs)]
    alone = Point(configs[1], tmp_path / "c" / "d" / "0", "")
    statuses = [*run_points(Program(configs[0]), together), run_point(alone)]
    assert [status["state"] for status in statuses] == ["done", "diverged", "diverged"]
    for point, status in ((together[1], statuses[1]), (alone, statuses[2])):
        assert status["reason"].startswith("after update 1, the state is not finite at step ")
        last = load_metrics(point.folder).iloc[-1]
        assert last["train/step"] == last["diverged/update"] == 1
        assert last["train/grad_norm"] > 0
        state = checkpoints.load(point.folder, point.config, Program(point.config).abstract_state)
        assert state is not None
        assert state.diverged  # so that nobody goes on from it


def test_a_state_that_is_infinite_before_training_is_a_failure(
    composed: Compose, tmp_path: Path
) -> None:
    saturated = ("model.hidden_size=1", "model.readout=sigmoid", "+model.cell.activation=identity")
    config = composed(*SMALL, "task=adding", *saturated, "init=identity", "init.gain=1e18")
    status = run_point(Point(config, tmp_path / "a" / "b" / "0", ""))
    assert status["state"] == "failed"
    assert "not finite at step" in status["reason"]
