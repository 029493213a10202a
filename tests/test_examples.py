"""Every script of docs/examples runs as it stands, and leaves records that a figure draws."""

import subprocess
import sys
from pathlib import Path

import pytest

from gradlab import load_gradients, load_runs
from gradlab.figures import heatmap_figure

EXAMPLES = sorted((Path(__file__).parents[1] / "docs" / "examples").glob("*.py"))
NEEDS = {"equinox": "equinox", "torch": "torch", "lightning": "lightning", "haiku": "haiku"}


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_its_folder_is_drawn(script: Path, tmp_path: Path) -> None:
    for word, package in NEEDS.items():
        if word in script.stem:
            pytest.importorskip(package, reason=f"{package}, which {script.name} uses, is missing")
    command = [sys.executable, str(script)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    runs = load_runs(tmp_path / "runs")
    assert set(runs["status"]) == {"done"}
    for path in runs["path"]:
        maps = load_gradients(path)["jacobian_log_norm"]
        assert maps.sizes["step"] > 1
    drawn = heatmap_figure(runs)
    assert len(drawn.table) > 0
