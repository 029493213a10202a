"""A study made of only a YAML and a claims file, its table, and the bundled studies."""

import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import gradlab
from matplotlib.figure import Figure
from written_studies import claim, write_study

from gradlab import records
from gradlab.claims import results
from gradlab.claims.expressions import ClaimError
from gradlab.claims.pages import write_page
from gradlab.claims.reproduce import Conclusion, compute, conclude, of_largest_scales
from gradlab.claims.study import function_of, load_study, study_names
from gradlab.claims.verdicts import judge
from gradlab.records.table import load_runs
from gradlab.studies import copying

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", study_names(ROOT))
def test_bundled_results_are_redrawn_and_judged(name: str, tmp_path: Path) -> None:
    study = load_study(ROOT, name)
    page = (study.folder / "README.md").read_text()
    scales = results.scales_of(study, study.folder)
    assert scales
    conclusions = []
    for scale in scales:
        table, manifest = results.load_results(study, scale, study.folder)
        assert manifest["rows"] == len(table)
        verdicts = [judge(entry, table) for entry in study.claims]
        conclusions.append(Conclusion(study, scale, verdicts, tmp_path, manifest))
    for verdict in of_largest_scales(conclusions).verdicts:
        assert f"**{verdict.claim.id}**" in page
        assert verdict.outcome != "not run" or scales == ["small"]
    assert study.question


MEASURE = """\
import pandas as pd

def table(top: int = 3) -> pd.DataFrame:
    return pd.DataFrame({"x": range(top), "y": [2 * x for x in range(top)]})
"""
DIRECT = """\
# @package _global_
# Is y twice x?
name: twice
measure: {_target_: mine.table}
hydra: {mode: RUN}
"""
SWEEP = """\
# @package _global_
# Does clipping change a step's length?
name: clipped
train: {steps: 4, batch_size: 8, log_every: 2}
model: {hidden_size: 4}
hydra:
  sweeper:
    params: {clip.threshold: "inf,1e-3", seed: "range(2)"}
"""


def figure(table: pd.DataFrame) -> Figure:
    drawn = Figure()
    drawn.subplots().plot(table.iloc[:, 0])
    return drawn


@pytest.fixture
def own_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """`gradlab.studies.mine`, which draws the figure above."""
    module = ModuleType("gradlab.studies.mine")
    module.figure = figure  # type: ignore[attr-defined]
    monkeypatch.setattr(figure, "__module__", module.__name__)
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.usefixtures("own_figure")
def test_a_study_is_a_yaml_and_a_claims_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(MEASURE)
    monkeypatch.syspath_prepend(str(tmp_path))
    right = claim("error == 0", statistic={"error": "max(abs(y - 2 * x))"})
    wrong = claim("last_y > 4", statistic={"last_y": "last(y)"}, id="X.b")
    changed = [{"what": "was sure", "before": "not reproduced"}]
    write_study(
        tmp_path,
        "twice",
        DIRECT,
        claims=[right.model_dump(), wrong.model_dump() | {"changed": changed}],
        changed=[{"what": "threshold 2, then 1", "before": "inconclusive"}],
        differs=["time is discrete"],
    )
    study = load_study(tmp_path, "twice")
    with pytest.raises(ClaimError, match="leave --resume out"):
        compute(study, "small", study.runs, resume=True)
    compute(study, "small", study.runs)
    conclusion = conclude(study, "small", study.runs, study.runs)
    assert [v.outcome for v in conclusion.verdicts] == ["reproduced", "not reproduced"]
    assert conclusion.manifest["settings"] == {"measure._target_": "mine.table"}
    assert conclusion.figure.stat().st_size > 1000
    page = write_page(conclusion)
    page.write_text(page.read_text() + "\nWhat we think.\n")
    text = write_page(conclusion).read_text()  # written again in place
    assert text.count("| **X.a**") == 1
    assert text.count("## What differs from the source\n\n- time is discrete\n") == 1
    assert text.count("\n- threshold 2, then 1. Before: inconclusive.\n- **X.b** was") == 1
    assert "What we think." in text
    assert "Is y twice x?" in text
    (study.runs / "results" / "small.parquet").write_bytes(b"")
    with pytest.raises(ClaimError, match="sha256"):
        conclude(study, "small", study.runs, study.runs)


@pytest.mark.usefixtures("own_figure")
def test_a_study_of_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MEASURE)
    monkeypatch.syspath_prepend(str(tmp_path))
    statistic = {
        "never": "max(most[clip.threshold == inf])",
        "always": "min(most[clip.threshold < inf])",
    }
    write_study(
        tmp_path,
        "clipped",
        SWEEP,
        points={
            "most": "max(train.clip_fraction[train.clip_fraction >= 0])",
            "never_reached": "first(train.step[eval.loss < 0])",
        },
        claims=[claim("never == 0 and always == 1", statistic=statistic).model_dump()],
    )
    study = load_study(tmp_path, "clipped")
    compute(study, "small", study.runs)
    conclusion = conclude(study, "small", study.runs, study.runs)
    assert [v.outcome for v in conclusion.verdicts] == ["reproduced"]
    assert (results.load_results(study, "small", study.runs)[0]["never_reached"] == np.inf).all()
    assert conclusion.manifest["points"] == 4
    assert conclusion.manifest["settings"]["train.steps"] == 4
    assert str(tmp_path) not in (study.runs / "results" / "small.json").read_text()
    assert [path.name for path in study.folder.iterdir()] == ["claims.yaml"]
    (sweep,) = (path for path in study.runs.iterdir() if path.name.startswith("20"))
    for point, (end, seconds) in enumerate(((10, 10), (12, 10), (20, 5), (19, 1))):
        times = {"finished": f"2026-01-01T00:00:{end}+00:00", "seconds": seconds}
        records.save_status(sweep / str(point), records.load_status(sweep / str(point)) | times)
    results.bundle(study, "small", sweep, study.runs)
    assert results.load_results(study, "small", study.runs)[1]["seconds"] == 12 + 5  # as on a clock
    records.save_status(sweep / "3", {"state": "interrupted", "reason": "so"})
    with pytest.raises(ClaimError, match=r"3 is interrupted.*--resume"):
        results.bundle(study, "small", sweep, study.runs)
    shutil.rmtree(sweep / "3")
    compute(study, "small", study.runs, resume=True)
    assert conclude(study, "small", study.runs, study.runs).manifest["points"] == 4


def test_wrong_claims_files_get_one_sentence(tmp_path: Path) -> None:
    write_study(
        tmp_path, "one", DIRECT, claims=[claim("1 < 2").model_dump() | {"provenance": "sure"}]
    )
    with pytest.raises(ClaimError, match=r"claims\.0\.provenance"):
        load_study(tmp_path, "one")
    write_study(tmp_path, "two", DIRECT, claims=[claim("1 < 2").model_dump() | {"test": "1 <"}])
    with pytest.raises(ClaimError, match="not an expression"):
        load_study(tmp_path, "two")
    with pytest.raises(ClaimError, match="the studies are one, two"):
        load_study(tmp_path, "three")
    for changes, sentence in (
        ({"provenance": "own"}, "X.a is our own observation; it has no `test`"),
        ({"test": None}, "X.a needs `test` and `expected`, or provenance: own"),
    ):
        entry = claim("1 < 2").model_dump() | changes
        write_study(tmp_path, "one", DIRECT, claims=[entry])
        with pytest.raises(ClaimError, match=sentence):
            load_study(tmp_path, "one")


FOREIGN = ("os.system", "mine.figure", "gradlab.records.load_runs", "gradlab.figures._x")
NO_FIGURES = (
    "gradlab.figures.command.sys.exit",
    "gradlab.figures.save",
    "gradlab.figures.style.Path",
    "gradlab.figures.nosuch",
)


@pytest.mark.parametrize("target", [*FOREIGN, *NO_FIGURES])
def test_claims_call_figures_and_tables_of_gradlab_only(target: str, tmp_path: Path) -> None:
    write_study(tmp_path, "one", DIRECT, claims=[], figure={"_target_": target})
    with pytest.raises(ClaimError, match=re.escape(target)):
        function_of(load_study(tmp_path, "one").figure, "Figure")
    with pytest.raises(ClaimError, match="'odd'"):
        function_of({"_target_": "gradlab.studies.copying.figure", "odd": 1}, "Figure")
    if target in FOREIGN:
        write_study(tmp_path, "two", DIRECT, claims=[], rows={"_target_": target})
        with pytest.raises(ClaimError, match=r"rows.*gradlab\.figures or gradlab\.studies"):
            load_study(tmp_path, "two")


def test_a_direct_measurement_is_not_swept(tmp_path: Path) -> None:
    process = gradlab(
        "--multirun", "+experiment=error_surface", "measure.grid=3,5", folder=tmp_path
    )
    assert process.returncode == 1
    assert "measure is computed directly" in process.stderr
    assert not list(tmp_path.rglob("status.json"))


def write_training(folder: Path, metrics: pd.DataFrame, **choices: str) -> None:
    """Write what a sweep leaves of one point, of which Hydra chose these options."""
    record = {"hydra": {"runtime": {"choices": choices | {"hydra/launcher": "fused"}}}}
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(record))
    status = {"state": "done", "summary": {}}
    records.save_config(folder, {"seed": 0, "model": {"name": choices["model"]}}, status)
    records.save_metrics(folder, metrics, status)


def test_rows_of_a_sweep_stand_beside_the_columns_of_their_training(tmp_path: Path) -> None:
    metrics = pd.DataFrame({"train/step": [0, 1], "train/loss": [2.0, 1.0]})
    for number, network in enumerate(("irnn", "lstm_chrono")):
        model = network.partition("_")[0]
        choices = {"network": network, "model": model, "experiment": "adding"}
        write_training(tmp_path / str(number), metrics, **choices)
    assert records.load_choices(tmp_path / "0") == {
        "network": "irnn",
        "model": "irnn",
        "experiment": "adding",
    }
    trainings = results.collect(tmp_path, {})
    assert list(trainings["network"]) == ["irnn", "lstm_chrono"]
    assert not {"model", "experiment"} & set(trainings)  # model.name says the one
    rows = results.collect(tmp_path, {}, {"_target_": "gradlab.figures.training_table"})
    assert list(rows["network"]) == ["irnn"] * 2 + ["lstm_chrono"] * 2
    assert list(rows["value"]) == [2, 1, 2, 1]
    assert list(rows["seed"]) == [0] * 4
    assert "point" not in rows


def test_losses_and_log_norms_of_the_copying_problem_are_rows(tmp_path: Path) -> None:
    lags = {"jacobian/log_norm/lag_1": [0.5, np.nan], "jacobian/log_norm/lag_16": [-2.0, np.nan]}
    metrics = pd.DataFrame({"train/step": [0, 100], "eval/loss": [3.0, np.inf], **lags})
    write_training(tmp_path / "0", metrics, network="irnn", model="rnn")
    table = copying.curves(load_runs(tmp_path)).sort_values("value")
    assert list(table["value"]) == [-2, 0.5, 3]
    assert list(table["quantity"]) == ["jacobian/log_norm"] * 2 + ["eval/loss"]
    np.testing.assert_array_equal(table["lag"], [16, 1, np.nan])
    assert set(table["step"]) == {0}
