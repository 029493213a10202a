"""A trained network is read back as it was, and calls nothing that its reader has not named."""

import importlib
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import Compose
from flax import nnx

import gradlab
from gradlab.components import ConfigError
from gradlab.config import Config
from gradlab.point import Point, run_point
from gradlab.training.program import Program

SMALL = ("model.hidden_size=5", "task.length=4", "train.steps=20", "wandb=disabled")
OWN_CELL = """
from gradlab.cells.elman import Elman

class Own(Elman):
    pass
"""


def trained(config: Config, folder: Path) -> Path:
    assert run_point(Point(config, folder, "0"))["state"] == "done"
    return folder


def test_the_network_has_the_loss_that_was_recorded_at_its_end(
    composed: Compose, tmp_path: Path
) -> None:
    config = composed("model=lstm", "task=echo", "task.delay=2", *SMALL)
    network = gradlab.load_network(trained(config, tmp_path / "0"))
    test = Program(config).task.test
    outputs = np.asarray(network(test.inputs), np.float64)
    log_shares = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
    right = np.take_along_axis(log_shares, np.asarray(test.targets)[..., None], -1)[..., 0]
    weights = np.asarray(test.weights)
    recorded = gradlab.records.load_metrics(tmp_path / "0")["eval/loss"].iloc[-1]
    assert -(weights * right).sum() / weights.sum() == pytest.approx(recorded, rel=1e-5)
    log_norms = gradlab.jacobian_log_norms(network.cell, test.inputs[:4], of="h", wrt="h")
    maps = gradlab.load_gradients(tmp_path / "0")["jacobian_log_norm"].isel(step=-1)
    np.testing.assert_allclose(log_norms, maps, rtol=1e-5, atol=1e-5)


def test_a_point_without_a_checkpoint_says_so(composed: Compose, tmp_path: Path) -> None:
    folder = trained(composed(*SMALL, "train.checkpoint_seconds=inf"), tmp_path / "0")
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        gradlab.load_network(folder)


def test_a_config_that_was_edited_is_not_built(composed: Compose, tmp_path: Path) -> None:
    folder = trained(composed(*SMALL), tmp_path / "0")
    config = folder / gradlab.records.CONFIG
    config.write_text(config.read_text().replace("hidden_size: 5", "hidden_size: 6"))
    with pytest.raises(ValueError, match="damaged"):
        gradlab.load_network(folder)


def test_a_cell_of_somebody_is_built_if_it_is_trusted(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_cells.py").write_text(OWN_CELL)
    monkeypatch.syspath_prepend(tmp_path)
    folder = trained(composed(*SMALL, "model.cell._target_=own_cells.Own"), tmp_path / "0")
    own = sys.modules.pop("own_cells")
    with pytest.raises(ConfigError, match=r"own_cells.Own \(model.cell\).*trust="):
        gradlab.load_network(folder)
    assert "own_cells" not in sys.modules
    network = gradlab.load_network(folder, trust=["own_cells.Own"])
    assert type(network.cell).__name__ == own.Own.__name__


@pytest.mark.parametrize("name", ["sweep", "sweep/1"])
def test_what_is_no_points_folder_is_said_to_be_none(
    composed: Compose, tmp_path: Path, name: str
) -> None:
    trained(composed(*SMALL), tmp_path / "sweep" / "0")
    with pytest.raises(FileNotFoundError, match=r"no point's folder.*load_runs"):
        gradlab.load_network(tmp_path / name)


def test_a_cell_that_was_edited_is_warned_of(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "edited_cells.py"
    path.write_text(OWN_CELL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    own = "edited_cells.Own"
    folder = trained(composed(*SMALL, f"model.cell._target_={own}"), tmp_path / "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradlab.load_network(folder, trust=[own])
    path.write_text(OWN_CELL.replace("pass", "leak = 0.5"))
    importlib.reload(sys.modules["edited_cells"])
    with pytest.warns(UserWarning, match=f"code of {own} has changed") as warned:
        gradlab.load_network(folder, trust=[own])
    assert warned[0].filename == __file__
    status = gradlab.records.load_status(folder)
    del status["sources"], status["seal"]  # as earlier versions wrote it
    gradlab.records.save_status(folder, status)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradlab.load_network(folder, trust=[own])


def test_a_loop_that_was_watched_has_no_network_to_load(tmp_path: Path) -> None:
    with gradlab.watch(np.ones((2, 5, 3)), folder=tmp_path / "mine") as watcher:
        watcher(0, nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"gradlab\.watch has measured: .* weights are yours"):
        gradlab.load_network(tmp_path / "mine")
