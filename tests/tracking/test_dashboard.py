"""The panels of the view and the report, built offline, against what a run logs."""

import json
import re
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
import wandb_reader as reader
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from conftest import Compose
from wandb_workspaces.reports.v2 import interface

from gradlab import records
from gradlab.claims.study import load_study
from gradlab.dashboard import study_page
from gradlab.point import Point, run_point
from gradlab.tracking import dashboard
from gradlab.tracking.charts import charts

ROOT = Path(__file__).parents[2]
SMALL = ("task.length=4", "train.steps=2", "train.log_every=2", "model.hidden_size=4")


def table(run: Path, name: str) -> dict[str, Any]:
    """Return the columns and rows of a logged table."""
    folder, _, stem = f"media/table/{name}".rpartition("/")
    (path,) = (run.resolve() / "files" / folder).glob(f"{stem}_*.table.json")
    return json.loads(path.read_text())


@pytest.fixture
def panels() -> list[Any]:
    return [panel for panels in dashboard.sections("me").values() for panel in panels]


@pytest.fixture
def logged(composed: Compose, tmp_path: Path) -> Path:
    """Return the run of a point, of a sweep over gains and thresholds."""
    words = [("init.gain=0.5", "clip.threshold=1"), ("init.gain=2", "clip.threshold=inf")]
    configs = [composed(*SMALL, *own) for own in words]
    points = [{"folder": str(i), "config": asdict(x)} for i, x in enumerate(configs)]
    records.save_sweep(tmp_path, points)
    run_point(Point(configs[0], tmp_path / "0", "small"))
    return tmp_path / "0" / "wandb"


def test_panels_draw_what_a_run_logs(panels: list[Any], logged: Path) -> None:
    run_summary = reader.summary(logged)
    summary, config = run_summary["summary"], run_summary["config"]
    drawn = 0
    for panel in panels:
        metrics = [getattr(panel, axis, None) for axis in ("x", "y", "groupby")]
        metrics += [column.metric for column in getattr(panel, "columns", [])]
        for metric in metrics:
            if isinstance(metric, wr.Config):
                section, _, key = metric.name.partition(".")
                assert key in config[section] if key else config[section]
            elif isinstance(metric, wr.SummaryMetric):
                assert np.isfinite(summary[metric.name])
            drawn += isinstance(metric, wr.Config | wr.SummaryMetric)
        names = getattr(panel, "metrics", [])
        if isinstance(panel, wr.LinePlot):
            assert panel.x in summary
            names = panel.y or [panel.metric_regex]
        for name in names:
            assert any(re.fullmatch(name, entry) for entry in summary)
        if isinstance(panel, wr.MediaBrowser):
            assert summary[panel.media_keys[0]]["_type"] == "image-file"
        if isinstance(panel, wr.CustomChart):
            columns = table(logged, panel.query["summaryTable"]["tableKey"])["columns"]
            assert set(panel.chart_fields.values()) <= set(columns)
            if panel.chart_name.startswith("me/"):
                needed = set(re.findall(r"\${(\w+:\w+)}", str(charts()[panel.chart_name[3:]])))
                fields, strings = panel.chart_fields, panel.chart_strings
                assert needed == {f"field:{x}" for x in fields} | {f"string:{x}" for x in strings}
    assert drawn == 15


def test_lines_and_bars_are_means_over_seeds_with_their_standard_errors(panels: list[Any]) -> None:
    grouped = [panel for panel in panels if isinstance(panel, wr.LinePlot | wr.BarPlot)]
    assert len(grouped) == 5
    for panel in grouped:
        sent = panel._to_model().config
        assert (sent.group_by, sent.aggregate) == (
            "setting.value",
            True,
        )  # `value` is how W&B keeps a config's entry
        assert (sent.group_agg, sent.group_area) == ("mean", "stderr")


def test_panels_of_w_and_b_itself_show_no_horizon_which_may_be_infinite(panels: list[Any]) -> None:
    own = [panel for panel in panels if not isinstance(panel, wr.CustomChart)]
    assert not any("horizon" in str(panel._to_model()) for panel in own)


def test_the_view_and_the_report_have_all_sections_and_panels() -> None:
    view = dashboard.workspace("me", "reach")
    sent = ws.Workspace._from_model(view._to_model())
    assert [section.name for section in sent.sections] == list(dashboard.sections("me"))
    assert [len(s.panels) for s in sent.sections] == [len(s.panels) for s in view.sections]
    scatter = sent.sections[-1].panels[0]
    assert (scatter.x.name, scatter.y.name) == ("init.gain", "jacobian/decay_rate")
    assert "config:setting" in sent.runset_settings.pinned_columns

    blocks = dashboard.report("me", "reach").blocks
    assert [b.text for b in blocks if isinstance(b, wr.H2)] == list(dashboard.sections("me"))
    grids = [block for block in blocks if isinstance(block, wr.PanelGrid)]
    assert [len(grid.panels) for grid in grids] == [len(s.panels) for s in view.sections]
    assert {(g.runsets[0].entity, g.runsets[0].project) for g in grids} == {("me", "reach")}


def test_the_report_of_a_study_has_its_claims_and_verdicts_and_shows_its_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(interface, "_get_api", lambda: None)
    found = {"project": {"internalId": "1"}}  # which W&B's server is asked for
    monkeypatch.setattr(interface, "execute_graphql", lambda *_: found)
    study = load_study(ROOT, "gradient_profile")
    page = study_page(study.name)
    model = dashboard.report("me", "reach", page)._to_model()
    sent = wr.Report._from_model(model)
    assert sent.title == study.title
    (text,) = [block.text for block in sent.blocks if isinstance(block, wr.MarkdownBlock)]
    published = (study.folder / "README.md").read_text()
    for claim in study.claims:  # the rows of the page that reproduce.py has written
        (row,) = {x for x in published.splitlines() if x.startswith(f"| **{claim.id}** ")}
        assert row in text
    assert study.question in text
    grids = [block for block in model.spec.blocks if block.type == "panel-grid"]
    assert len(grids) == len(dashboard.sections("me"))
    for grid in grids:
        (only,) = grid.metadata.run_sets[0].model_dump()["filters"]["filters"]
        assert only["key"] == {"section": "config", "name": "name"}
        assert (only["op"], only["value"]) == ("=", "gradient_profile")


def test_a_study_without_a_folder_or_results_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="gradlab: --study reads experiments/ of the current fol"):
        run(monkeypatch, "me/reach", "--study", "adding", "--dry-run")
    for path in ("conf/experiment/adding.yaml", "experiments/adding/claims.yaml"):
        (tmp_path / path).parent.mkdir(parents=True)
        shutil.copyfile(ROOT / path, tmp_path / path)
    with pytest.raises(SystemExit, match="adding has no results: python analysis"):
        run(monkeypatch, "me/reach", "--study", "adding", "--dry-run")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["dashboard", *arguments])
    dashboard.main(study_page)


def test_a_dry_run_prints_every_panel(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], panels: list[Any]
) -> None:
    monkeypatch.setattr(dashboard, "publish", None)
    run(monkeypatch, "me/reach", "--dry-run")
    printed = capsys.readouterr().out
    assert "me/reach" in printed
    assert printed.count("\n") == 1 + len(dashboard.sections("me")) + len(panels)
    for panel in panels:
        names = ("title", "chart_name", "table_name")
        assert next(filter(None, (getattr(panel, name, None) for name in names))) in printed


def test_publishing_saves_the_charts_the_view_and_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved: list[Any] = []

    class Api:
        def create_custom_chart(self, *, name: str, **_: Any) -> None:
            saved.append(name)

    def save(page: Any) -> Any:
        saved.append(type(page))
        page.__class__.url = f"https://server/{len(saved)}"
        return page

    monkeypatch.setattr(dashboard, "check_login", lambda: None)
    monkeypatch.setattr(wandb, "Api", Api)
    for kind in (ws.Workspace, wr.Report):
        monkeypatch.setattr(kind, "save", save)
        monkeypatch.setattr(kind, "url", "")
    run(monkeypatch, "me/reach")
    assert saved == [*charts(), ws.Workspace, wr.Report]
    assert capsys.readouterr().out == "https://server/4\nhttps://server/5\n"


@pytest.mark.usefixtures("signed_out")
def test_without_a_login_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="nobody is logged in to W&B: type wandb login"):
        run(monkeypatch, "me/reach")


@pytest.mark.parametrize("project", ["reach", "/reach", "me/", "me/reach/today"])
def test_other_names_are_refused(
    project: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, project, "--dry-run")
    assert f"it takes ENTITY/PROJECT; got '{project}'" in capsys.readouterr().err


def test_help_tells_how_to_view_and_upload_offline_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--help")
    printed = capsys.readouterr().out
    assert "wandb leet runs/NAME/DATE/wandb" in printed
    assert "wandb sync runs/NAME/DATE/wandb" in printed
