"""Studies: the language of claims, verdicts, and a study made of only a YAML and a claims file."""

import io
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import gradlab
from matplotlib.figure import Figure
from rich.console import Console
from scipy import stats

from gradlab import records
from gradlab.claims import results
from gradlab.claims.expressions import ClaimError, NoRows, evaluate
from gradlab.claims.report import terminal_table, write_page
from gradlab.claims.reproduce import Conclusion, compute, conclude
from gradlab.claims.statistics import Estimate, crossing, fisher, mann_whitney, rate, sample_median
from gradlab.claims.study import Claim, function_of, load_study, study_names
from gradlab.claims.verdicts import Verdict, judge
from gradlab.records.table import load_runs
from gradlab.studies import copying

ROOT = Path(__file__).parents[2]
TABLE = pd.DataFrame(
    {
        "clip.threshold": [1.0] * 10 + [np.inf] * 10,
        "solved": [True] * 9 + [False] + [True] * 2 + [False] * 8,
        "steps": [*range(100, 110), *range(200, 210)],
        "task": ["adding"] * 20,
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 ** 3 - 1", 7),
        ("max(steps) - min(steps)", 109),
        ("max(steps[clip.threshold == 1])", 109),
        ("max(abs(steps - 100))[clip.threshold == 1 and not solved]", 9),
        ("mean(steps[task == 'adding' and clip.threshold in [1, 2]])", 104.5),
        ("sum_of_two + 1", 4),
    ],
)
def test_expressions(text: str, expected: float) -> None:
    assert evaluate(text, TABLE, {"sum_of_two": 3}) == pytest.approx(expected)


def test_each_evaluates_once_per_value() -> None:
    means = evaluate("each(clip.threshold, mean(steps))", TABLE)
    np.testing.assert_array_equal(means, [104.5, 204.5])
    assert evaluate("increasing(each(clip.threshold, mean(steps)))", TABLE) is True
    assert evaluate("increasing(-each(clip.threshold, mean(steps)))", TABLE) is False


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "open('x')",
        "steps.__class__",
        "(lambda: 1)()",
        "[x for x in steps]",
        "max(steps, key=abs)",
        "f'{steps}'",
        "nosuch + 1",
        "steps[",
        "task + 1",
        "steps is None",
        "steps.__class__.__base__",
        "().__class__",
        "max.__globals__",
        "'a' * 999999999",
        "999999999 * [1]",
        "task * 999999999",
        "1 / 0",
        "each(sum_of_two, 1)",
        "max(9 ** 9 ** 9 ** 9, steps, steps)",
        "(" * 500 + "1" + ")" * 500,
        "+".join(["1"] * 1100),
        "steps + " + "9" * 5000,
    ],
)
def test_what_is_not_of_the_language_is_refused(text: str) -> None:
    with pytest.raises(ClaimError):
        evaluate(text, TABLE, {"sum_of_two": 3})


def test_huge_powers_are_infinite_and_take_no_time() -> None:
    assert evaluate("9 ** 9 ** 9 ** 9", TABLE) == np.inf
    assert evaluate("max(steps ** 999)", TABLE) == np.inf


def test_a_condition_without_rows_is_no_error_of_the_claim() -> None:
    with pytest.raises(NoRows):
        evaluate("max(steps)[clip.threshold == 3]", TABLE)


def test_three_values() -> None:
    estimate = Estimate(0.75, 0.6, 0.9, 10)
    cases = {
        "near >= 0.7": True,
        "near >= 0.8": None,
        "near >= 0.95": False,
        "not near >= 0.8": None,
        "near >= 0.8 and near >= 0.95": False,
        "near >= 0.8 or near >= 0.7": True,
        "near >= 0.8 and near >= 0.7": None,
    }
    for text, expected in cases.items():
        assert evaluate(text, TABLE, {"near": estimate}) is expected, text


def test_statistics_against_their_closed_forms() -> None:
    all_succeed = rate(np.array([True] * 10))
    assert (all_succeed.value, all_succeed.high) == (1, 1)
    assert all_succeed.low == pytest.approx(0.025 ** (1 / 10))  # Clopper & Pearson at n of n
    # 10 of 10 against 6 of 10: the hypergeometric tail, C(10, 6)/C(20, 16).
    p = fisher(np.array([True] * 10), np.array([True] * 6 + [False] * 4))
    assert p.value == pytest.approx(stats.hypergeom.sf(9, 20, 16, 10))
    assert (p.low, p.n) == (0, 10)
    reversed_p = fisher(np.array([False] * 5), np.array([True] * 5))
    assert reversed_p.low == reversed_p.value == 1
    smaller = mann_whitney(np.arange(5.0), np.arange(5.0) + 10)
    assert smaller.value == pytest.approx(1 / 252)  # one order of C(10, 5)
    assert crossing(np.array([-1.0, 1.0, 3.0]), np.array([0.0, 1.0, 2.0])) == pytest.approx(0.5)
    median = sample_median(np.arange(10.0))
    assert (median.value, median.low, median.high) == (4.5, 1, 8)  # n = 10: ranks 2 and 9


def claim(test: str, **changes: object) -> Claim:
    fields = {
        "id": "X.a",
        "claim": "clipping helps",
        "source": "nobody",
        "provenance": "pilot",
        "kind": "ordinal",
        "expected": "it does",
        "statistic": {
            "clipped": "rate(solved[clip.threshold == 1])",
            "free": "rate(solved[clip.threshold == inf])",
            "p": "fisher(solved[clip.threshold == 1], solved[clip.threshold == inf])",
        },
        "test": test,
    }
    return Claim(**(fields | changes))  # type: ignore[arg-type]


def test_verdicts() -> None:
    assert (
        judge(claim("p < 0.01 and clipped >= 0.8 and free <= 0.2"), TABLE).outcome == "reproduced"
    )
    assert judge(claim("clipped >= 0.95"), TABLE).outcome == "inconclusive"  # 9 of 10 may be 95 %
    assert judge(claim("free >= 0.9"), TABLE).outcome == "not reproduced"
    assert judge(claim("p < 0.001"), TABLE).outcome == "inconclusive"  # the right way, too few
    turned = TABLE.assign(solved=~TABLE["solved"])
    assert judge(claim("p < 0.01"), turned).outcome == "not reproduced"
    assert judge(claim("p < 0.01"), TABLE[:10]).outcome == "not run"
    few = claim("clipped >= 0.8", budget={"seeds": 11})
    assert judge(few, TABLE).outcome == "inconclusive"
    with pytest.raises(ClaimError, match="is a column"):
        judge(claim("steps < 1", statistic={"steps": "max(steps)"}), TABLE)
    with pytest.raises(ClaimError, match=r"all\(…\)"):
        judge(claim("steps < 1", statistic={}), TABLE)


@pytest.mark.parametrize("name", study_names(ROOT))
def test_bundled_results_are_redrawn_and_judged(name: str, tmp_path: Path) -> None:
    study = load_study(ROOT, name)
    page = (study.folder / "README.md").read_text()
    for scale in results.scales_of(study, study.folder):
        table, manifest = results.load_results(study, scale, study.folder)
        assert manifest["rows"] == len(table)
        for entry in study.claims:
            verdict = judge(entry, table)
            assert f"**{entry.id}**" in page
            assert verdict.outcome != "not run" or scale == "small"
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


def write_study(root: Path, name: str, experiment: str, **fields: object) -> None:
    (root / "conf" / "experiment").mkdir(parents=True, exist_ok=True)
    (root / "conf" / "experiment" / f"{name}.yaml").write_text(experiment)
    folder = root / "experiments" / name
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        "title": name,
        "sources": ["nobody"],
        "figure": {"_target_": "gradlab.studies.mine.figure"},
    }
    (folder / "claims.yaml").write_text(yaml.safe_dump(written | fields))


@pytest.mark.usefixtures("own_figure")
def test_a_study_is_a_yaml_and_a_claims_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(MEASURE)
    monkeypatch.syspath_prepend(str(tmp_path))
    right = claim("error == 0", statistic={"error": "max(abs(y - 2 * x))"})
    wrong = claim("last_y > 4", statistic={"last_y": "last(y)"}, id="X.b")
    write_study(tmp_path, "twice", DIRECT, claims=[right.model_dump(), wrong.model_dump()])
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
    records.save_status(sweep / "3", {"state": "interrupted", "reason": "so"})
    with pytest.raises(ClaimError, match=r"3 is interrupted.*--resume"):
        results.bundle(study, "small", sweep, study.runs)
    shutil.rmtree(sweep / "3")
    compute(study, "small", study.runs, resume=True)
    assert conclude(study, "small", study.runs, study.runs).manifest["points"] == 4


def test_wrong_claims_files_get_one_sentence(tmp_path: Path) -> None:
    write_study(tmp_path, "one", DIRECT, claims=[claim("1 < 2").model_dump() | {"kind": "sure"}])
    with pytest.raises(ClaimError, match=r"claims\.0\.kind"):
        load_study(tmp_path, "one")
    write_study(tmp_path, "two", DIRECT, claims=[claim("1 < 2").model_dump() | {"test": "1 <"}])
    with pytest.raises(ClaimError, match="not an expression"):
        load_study(tmp_path, "two")
    with pytest.raises(ClaimError, match="the studies are one, two"):
        load_study(tmp_path, "three")


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


def test_a_reader_writes_below_runs_and_a_maintainer_bundles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, root = "error_surface", tmp_path / "checkout"
    shutil.copytree(ROOT / "experiments" / name, root / "experiments" / name)
    for path in (f"conf/experiment/{name}.yaml", "analysis/reproduce.py"):
        (root / path).parent.mkdir(parents=True)
        shutil.copy(ROOT / path, root / path)
    (root / "src").symlink_to(ROOT / "src")  # pages link to it

    def reproduce(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *words])
        runpy.run_path(str(root / "analysis" / "reproduce.py"), run_name="__main__")
        return capsys.readouterr().out

    tracked = {path: path.read_bytes() for path in root.glob("experiments/**/*.*")}
    page = root / "runs" / name / "README.md"
    assert f"page     {page}" in reproduce(name, "--figures-only")
    reproduce("--all", "--figures-only")
    assert {path: path.read_bytes() for path in tracked} == tracked
    written = {path.relative_to(root / "runs").as_posix() for path in root.glob("runs/**/*.*")}
    assert written == {"README.md", f"{name}/README.md", f"{name}/small.png"}
    for own in (root / "runs" / name / "small.png", root / "runs" / "README.md"):
        drawn = own.read_bytes()
        own.write_text("mine")
        with pytest.raises(SystemExit, match=rf"{own.name}' is there, .*: move it\."):
            reproduce("--all", "--figures-only")
        assert own.read_text() == "mine"
        own.write_bytes(drawn)
    bundled = root / "experiments" / name
    assert f"page     {bundled / 'README.md'}" in reproduce(name, "--figures-only", "--bundle")
    assert (bundled / "README.md").read_bytes() == tracked[bundled / "README.md"]
    manifest = bundled / "results" / "small.json"
    for damaged in ("{", '{"sha256": "0"}', "[]"):
        manifest.write_text(damaged)
        with pytest.raises(SystemExit, match=r"small\.json is damaged"):
            reproduce(name, "--figures-only")
    with pytest.raises(SystemExit, match=r"there is no study '\.\./error_surface'"):
        reproduce("../error_surface", "--figures-only")


def test_names_are_text_and_no_markup() -> None:
    text = "[/data/run] [red]x[/]"
    verdict = Verdict(claim("1 < 2", claim=text), "reproduced", {"slope [a/b]": 1.5})
    study = SimpleNamespace(title=text)
    conclusion = Conclusion(study, "small", [verdict], Path(), {})  # type: ignore[arg-type]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(terminal_table(conclusion))
    printed = console.export_text()
    assert printed.count(text) == 2
    assert "slope [a/b] 1.5" in printed


def test_a_direct_measurement_is_not_swept(tmp_path: Path) -> None:
    process = gradlab(
        "--multirun", "+experiment=error_surface", "measure.grid=3,5", folder=tmp_path
    )
    assert process.returncode == 1
    assert "measure is computed directly" in process.stderr
    assert not list(tmp_path.rglob("status.json"))


def test_the_script_lists_the_studies() -> None:
    script = [sys.executable, str(ROOT / "analysis" / "reproduce.py")]
    listed = subprocess.run([*script, "--help"], capture_output=True, text=True, check=True).stdout
    for name in study_names(ROOT):
        assert load_study(ROOT, name).question in listed
    process = subprocess.run([*script, "nosuch"], capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "there is no study 'nosuch'" in process.stderr


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
