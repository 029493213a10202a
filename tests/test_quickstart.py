"""The quickstart as a user runs it: one command writes records, W&B runs and a figure."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wandb_reader as reader
from conftest import gradlab

from gradlab import load_gradients, load_runs
from gradlab.records import load_metrics

SMALL = ("task.length=4", "train.steps=6", "train.log_every=3", "model.hidden_size=8")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the printed output of a small quickstart."""
    folder = tmp_path_factory.mktemp("sweep")
    process = gradlab("+experiment=quickstart", *SMALL, "init.gain=0.5,2", folder=folder)
    assert process.returncode == 0, process.stderr
    (sweep,) = (folder / "runs" / "quickstart").iterdir()
    return sweep, process.stdout


def test_every_combination_is_a_row(sweep: tuple[Path, str]) -> None:
    runs = load_runs(sweep[0])
    combinations = runs[["model.name", "init.gain", "clip.threshold"]].drop_duplicates()
    assert len(runs) == len(combinations) == 8
    assert set(runs["status"]) == {"done"}
    assert set(runs["verdict"]) <= {"vanishing", "stable", "exploding"}
    assert runs["eval/accuracy"].between(0, 1).all()


def test_wandb_runs_equal_the_metrics_on_disk(sweep: tuple[Path, str]) -> None:
    for path in load_runs(sweep[0])["path"]:
        metrics = load_metrics(path)
        logged = pd.DataFrame(reader.history(Path(path) / "wandb"))[metrics.columns]
        pd.testing.assert_frame_equal(logged, metrics.astype(float), rtol=1e-12)


def test_gradients_are_measured_before_and_after_training(sweep: tuple[Path, str]) -> None:
    for path in load_runs(sweep[0])["path"]:
        maps = load_gradients(path)["jacobian_log_norm"]
        assert list(maps["step"]) == [0, 1, 4, 6]
        assert maps.sizes == {"step": 4, "sample": 4, "t": 5, "k": 5}
        lower = np.tri(5, dtype=bool)
        assert np.isfinite(maps.to_numpy()[..., lower]).all()
        assert (maps.to_numpy()[..., ~lower] == -np.inf).all()
        np.testing.assert_allclose(np.diagonal(maps, axis1=-2, axis2=-1), 0, atol=1e-6)


def test_it_ends_with_a_table_a_figure_and_the_next_command(
    sweep: tuple[Path, str],
) -> None:
    folder, printed = sweep
    rows = [line.split() for line in printed.splitlines()]
    for number, verdict in enumerate(load_runs(folder)["verdict"]):
        assert any(row[:1] == [str(number)] and verdict in row for row in rows)
    for heading in ("verdict", "decay rate", "decades/step", "horizon", "accuracy"):
        assert heading in printed
    assert "8/8 points" in printed
    assert (folder / "overview.png").stat().st_size > 10_000
    assert f"wandb leet runs/quickstart/{folder.name}/wandb" in printed


def test_a_users_cell_is_chosen_by_its_dotted_path(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from flax import nnx\n"
        "class LeakyCell(nnx.SimpleCell):\n"
        "    def __call__(self, carry, inputs):\n"
        "        new, _ = super().__call__(carry, inputs)\n"
        "        carry = 0.5 * carry + 0.5 * new\n"
        "        return carry, carry\n"
    )
    arguments = ("model.cell._target_=mine.LeakyCell", "model.name=leaky", "wandb=disabled")
    process = gradlab(*arguments, *SMALL, folder=tmp_path)
    assert process.returncode == 0, process.stderr
    (run,) = load_runs(tmp_path / "runs").to_dict("records")
    assert (run["model.name"], run["status"]) == ("leaky", "done")


def test_a_failing_point_leaves_the_others_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from gradlab.clipping import global_norm as working\n"
        "def broken(threshold: float):\n"
        "    raise RuntimeError('no such rule')\n"
    )
    targets = "clip._target_=mine.working,mine.broken"
    process = gradlab(targets, "wandb=disabled", *SMALL, folder=tmp_path)
    assert process.returncode == 1
    assert "1 of 2 points failed" in process.stderr
    assert "Traceback" not in process.stderr
    done, failed = load_runs(tmp_path / "runs").to_dict("records")
    assert done["status"] == "done"
    assert failed["status"] == "failed"
    assert "no such rule" in failed["reason"]
