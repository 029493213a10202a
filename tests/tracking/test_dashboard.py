"""The panels of the view and the report, built offline, against what a run logs."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
import wandb_reader as reader
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from conftest import Compose

from gradlab.point import Point, run_point
from gradlab.tracking import dashboard

SMALL = ("task.length=4", "train.steps=2", "train.log_every=2", "model.hidden_size=4")


@pytest.fixture
def panels() -> list[Any]:
    return [panel for panels in dashboard.sections("me").values() for panel in panels]


def test_panels_draw_what_a_run_logs(panels: list[Any], composed: Compose, tmp_path: Path) -> None:
    run_point(Point(composed(*SMALL), tmp_path / "0", "small"))
    run_summary = reader.summary(tmp_path / "0" / "wandb")
    logged, config = run_summary["summary"], run_summary["config"]
    drawn = 0
    for panel in panels:
        metrics = [getattr(panel, axis, None) for axis in "xy"]
        metrics += [column.metric for column in getattr(panel, "columns", [])]
        for metric in metrics:
            if isinstance(metric, wr.Config):
                section, key = metric.name.split(".")
                assert key in config[section]
            elif isinstance(metric, wr.SummaryMetric):
                assert metric.name in logged
            drawn += isinstance(metric, wr.Config | wr.SummaryMetric)
        if isinstance(panel, wr.LinePlot):
            assert panel.x in logged
            pattern = panel.metric_regex or re.escape(panel.y[0])
            assert any(re.fullmatch(pattern, name) for name in logged)
        if isinstance(panel, wr.MediaBrowser):
            assert logged[panel.media_keys[0]]["_type"] == "image-file"
        if isinstance(panel, wr.CustomChart):
            assert logged[panel.query["summaryTable"]["tableKey"]]["_type"] == "table-file"
    assert drawn >= 15


def test_the_view_and_the_report_have_all_sections_and_panels() -> None:
    view = dashboard.workspace("me", "reach")
    sent = ws.Workspace._from_model(view._to_model())
    assert [section.name for section in sent.sections] == list(dashboard.sections("me"))
    assert [len(s.panels) for s in sent.sections] == [len(s.panels) for s in view.sections]
    scatter = sent.sections[0].panels[0]
    assert (scatter.x.name, scatter.y.name) == ("init.gain", "jacobian/decay_rate")

    blocks = dashboard.report("me", "reach").blocks
    assert [b.text for b in blocks if isinstance(b, wr.H2)] == list(dashboard.sections("me"))
    grids = [block for block in blocks if isinstance(block, wr.PanelGrid)]
    assert [len(grid.panels) for grid in grids] == [len(s.panels) for s in view.sections]
    assert {(g.runsets[0].entity, g.runsets[0].project) for g in grids} == {("me", "reach")}


def test_the_map_chart_takes_the_columns_of_its_table(panels: list[Any]) -> None:
    (chart,) = (
        p for p in panels if isinstance(p, wr.CustomChart) and dashboard.MAP_CHART in p.chart_name
    )
    fields = set(re.findall(r"\$\{field:(\w+)\}", str(dashboard.MAP_SPEC)))
    assert fields == set(chart.chart_fields) == {"step", "t", "k", "log_norm"}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["dashboard", *arguments])
    dashboard.main()


def test_a_dry_run_prints_every_panel(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], panels: list[Any]
) -> None:
    monkeypatch.setattr(dashboard, "publish", None)
    run(monkeypatch, "me/reach", "--dry-run")
    printed = capsys.readouterr().out
    assert "me/reach" in printed
    assert printed.count("\n") == 1 + len(dashboard.sections("me")) + len(panels)
    for panel in panels:
        assert getattr(panel, "title", None) or panel.chart_name in printed


def test_publishing_saves_the_chart_the_view_and_the_report(
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
    assert saved == [dashboard.MAP_CHART, ws.Workspace, wr.Report]
    assert capsys.readouterr().out == "https://server/2\nhttps://server/3\n"


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
