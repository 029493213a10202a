"""A part of somebody's own that is edited between a sweep and its resume is told of."""

import importlib
import linecache
import sys
from pathlib import Path

import pytest
from conftest import Compose
from test_sweep_folders import gradlab

from gradlab import load_runs, records
from gradlab.point import Point, run_point
from gradlab.point.sources import sources

CELL = """
from flax import nnx

class Leaky(nnx.SimpleCell):
    def __call__(self, carry, inputs):
        new, _ = super().__call__(carry, inputs)
        return {slope} * new, {slope} * new
"""
NAME = "leaky_of_resumes"
OWN = f"model.cell._target_={NAME}.Leaky"
TOLD = f"The code of {NAME}.Leaky has changed"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    return tmp_path / f"{NAME}.py"


def write(module: Path, slope: float) -> None:
    """Write the cell, and import it anew as a new process would."""
    module.write_text(CELL.format(slope=slope))
    if NAME in sys.modules:
        importlib.reload(sys.modules[NAME])


def test_a_resume_says_which_points_earlier_code_ran(
    module: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def resume(*words: str) -> str:
        gradlab(monkeypatch, module.parent, "--multirun", OWN, "sweep.resume=runs", *words)
        return capsys.readouterr().out

    write(module, 1.0)
    gradlab(monkeypatch, module.parent, "--multirun", OWN, "seed=0,1", "hydra.sweep.dir=runs")
    assert TOLD not in capsys.readouterr().out + resume("seed=0,1,2")
    write(module, 0.5)
    said = resume("seed=0,1,2,3")
    assert f"{TOLD}: 3 of 4 points were run by the earlier code. To run all" in said
    assert "delete the folders 0, 1, 4 in " in said
    for name in ("0", "1", "4"):
        (module.parent / "runs" / name).rename(module.parent / f"deleted{name}")
    resume("seed=0,1,2,3")
    assert TOLD not in resume("seed=0,1,2,3")
    assert set(load_runs(module.parent / "runs")["status"]) == {"done"}


def test_a_point_that_goes_on_from_a_checkpoint_is_of_earlier_code(
    module: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = ("--multirun", OWN, "seed=0,1", "train.checkpoint_seconds=600")
    write(module, 1.0)
    gradlab(monkeypatch, module.parent, *kept, "hydra.sweep.dir=runs")
    folder = module.parent / "runs" / "1"
    before = records.load_status(folder)["sources"]
    assert f"{NAME}.Leaky" in before
    records.save_status(folder, records.load_status(folder) | {"state": "interrupted"})
    write(module, 0.5)
    capsys.readouterr()
    for going_on in (" (1 from a checkpoint, then by the present code)", ""):
        gradlab(monkeypatch, module.parent, *kept, "sweep.resume=runs")
        said = capsys.readouterr().out
        assert f"{TOLD}: 2 of 2 points were run by the earlier code{going_on}." in said
        assert records.load_status(folder)["sources"] == before


def test_a_launcher_that_is_not_gradlabs_tells_it_too(
    module: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--multirun", OWN, "seed=0", "hydra/launcher=basic")
    write(module, 1.0)
    gradlab(monkeypatch, module.parent, *words, "hydra.sweep.dir=runs")
    write(module, 0.5)
    assert TOLD not in capsys.readouterr().out
    gradlab(monkeypatch, module.parent, *words, "sweep.resume=runs")
    assert f"{TOLD}: 1 of 1 points were run by the earlier code. To run" in capsys.readouterr().out


def test_gradlabs_own_parts_are_not_recorded(composed: Compose, tmp_path: Path) -> None:
    words = ("task.length=4", "train.steps=0", "model.hidden_size=4", "wandb=disabled")
    status = run_point(Point(composed(*words), tmp_path / "0", "0"))
    assert not [x for x in status.get("sources", {}) if x.startswith("gradlab.")]


def test_a_class_of_a_notebook_is_known_by_its_methods(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which has no file: a notebook's cells are in linecache."""
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    config, digests = composed("task.length=4"), []
    config.model.cell = {"_target_": "__main__.Leaky"}
    for number, slope in enumerate((1.0, 0.5, 0.5)):
        text, name = CELL.format(slope=slope), f"<cell {number}>"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        names = {"__name__": "__main__"}
        exec(compile(text, name, "exec"), names)
        monkeypatch.setattr(sys.modules["__main__"], "Leaky", names["Leaky"], raising=False)
        digests.append(sources(config)["__main__.Leaky"])
    assert digests[0] != digests[1] == digests[2]
