"""The skeleton of a new study runs, is drawn and judged as it stands, without any code."""

import runpy
import shutil
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from gradlab.claims.expressions import ClaimError
from gradlab.claims.skeleton import write_skeleton
from gradlab.claims.study import Provenance, load_study
from gradlab.studies.swept import figure

ROOT = Path(__file__).parents[2]


def test_a_new_study_runs_and_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "checkout"
    (root / "analysis").mkdir(parents=True)
    shutil.copy(ROOT / "analysis" / "reproduce.py", root / "analysis")

    def reproduce(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *words])
        runpy.run_path(str(root / "analysis" / "reproduce.py"), run_name="__main__")
        return capsys.readouterr().out

    assert reproduce("--new", "order_of_two").count("written") == 3
    study = load_study(root, "order_of_two")
    assert {claim.provenance for claim in study.claims} == set(get_args(Provenance))
    assert "which of two symbols came first" in study.question
    experiment = root / "conf" / "experiment" / "order_of_two.yaml"
    tiny = {
        "hidden_size: 50": "hidden_size: 4",
        "length: 20, test_size: 1000": "length: 10, test_size: 20",
        "steps: 1000, batch_size: 20, log_every: 100": "steps: 2, batch_size: 4, log_every: 1",
        "0.3,1,3,inf": "1,inf",
        "range(5)": "range(2)",
    }
    text = experiment.read_text()
    for whole, cut in tiny.items():
        assert whole in text
        text = text.replace(whole, cut)
    experiment.write_text(text)
    reproduce("order_of_two", "--bundle")
    page = (root / "experiments" / "order_of_two" / "README.md").read_text()
    for shown in ("## The source", "## What differs from the source", "## What we saw"):
        assert page.count(shown) == 1
    verdicts = [line.rsplit("|", 2)[1].strip() for line in page.splitlines() if "| **ORDER" in line]
    assert verdicts[0] == "inconclusive; about 5 networks would decide it"  # its budget
    assert verdicts[1].startswith("inconclusive") or verdicts[1] == "not reproduced"
    assert verdicts[2:] == ["reproduced", "inconclusive", "observed"]
    with pytest.raises(SystemExit, match="is there already"):
        reproduce("--new", "order_of_two")
    with pytest.raises(SystemExit, match="name a study, or give --all or --new"):
        reproduce("order_of_two", "--new", "another")


@pytest.mark.parametrize("name", ["", "Mine", "../mine", "mine_full", "1st", "a b"])
def test_a_study_needs_a_name_that_is_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(ClaimError, match="no name for a study"):
        write_skeleton(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_a_swept_study_is_drawn_with_the_printed_points() -> None:
    lengths, seeds = [10, 20, 40], range(3)
    rows = [(t, s, m, t + s + m) for t in lengths for s in seeds for m in (0, 100)]
    table = pd.DataFrame(rows, columns=["task.length", "seed", "method", "updates"])
    table = table.astype({"updates": float})
    table.loc[len(table)] = [80, 0, 0, np.inf]
    drawn = figure(table, "task.length", "updates", by="method", printed=[(10, 7), (20, 9)])
    assert isinstance(drawn, Figure)
    (axes,) = (axes for axes in drawn.findobj() if hasattr(axes, "get_xlabel"))
    first, second, printed = axes.get_lines()
    np.testing.assert_array_equal(first.get_xdata(), lengths)
    np.testing.assert_array_equal(first.get_ydata(), [11, 21, 41])  # medians: seed 1
    np.testing.assert_array_equal(second.get_ydata(), [111, 121, 141])
    np.testing.assert_array_equal(printed.get_xydata(), [(10, 7), (20, 9)])
    assert printed.get_label() == "as printed"
    with pytest.raises(ValueError, match=r"asks for 'nosuch'; the results have task\.length"):
        figure(table, "task.length", "nosuch")
