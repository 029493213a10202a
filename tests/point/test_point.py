"""Points from config to records: alone, and in lock-step with neighbours."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Compose

from gradlab import load_gradients, load_runs, records
from gradlab.point import Point, run_point, run_points
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
