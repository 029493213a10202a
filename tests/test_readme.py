"""The README's Python runs as it stands there, and CONTRIBUTING's diff is one of this code."""

import re
from pathlib import Path

import matplotlib as mpl
import pytest
import wandb

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("equinox", reason="Equinox, whose cell the README measures, is missing")
    pytest.importorskip("torch", reason="PyTorch, whose module the README converts, is missing")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()  # W&B keeps the folder that this process was in when it was first set up
    mpl.use("agg")
    names: dict[str, object] = {}
    for block in BLOCKS:
        if "DATE" not in block:  # a sweep of the reader's
            exec(block.replace("(1000, 8)", "(50, 8)"), names)
    import gradlab

    names["watcher"].finish()  # type: ignore[attr-defined]
    names["run"].finish()  # type: ignore[attr-defined]
    assert list(tmp_path.glob("wandb/offline-run-*"))  # and not in the folder of the tests
    for folder in ("runs/mine", "runs/torch"):
        assert list(gradlab.load_runs(folder)["status"]) == ["done"]
    assert len(names["runs"]) == 6  # type: ignore[arg-type]


def test_the_diff_in_contributing_is_of_the_files_as_they_are() -> None:
    (diff,) = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    shown = 0
    for part in re.split(r"^\+\+\+ b/", diff, flags=re.MULTILINE)[1:]:
        name, *lines = part.splitlines()
        added = [line[1:] for line in lines if line.startswith("+")]
        rest = iter((ROOT / name).read_text().splitlines())
        for line in added:
            assert line in rest, f"{name} has no line {line!r} at this place"  # in their order
        shown += len(added)
    assert shown > 20


def test_cells_of_the_readme_have_their_files() -> None:
    (table,) = re.findall(r"\| `model=` \| the cell \|\n(.*?)\n\n", README, re.DOTALL)
    cells = {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert cells == {path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")}
    networks = {path.stem for path in (ROOT / "conf" / "network").glob("*.yaml")}
    assert cells - {"rnn", "lstm"} <= networks >= {"tanh_glorot", "lstm_forget_1"}
