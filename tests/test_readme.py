"""The README's Python runs as it stands there, block after block, in a folder of its own."""

import re
from pathlib import Path

import matplotlib as mpl
import pytest
import wandb

README = (Path(__file__).parent.parent / "README.md").read_text()
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
