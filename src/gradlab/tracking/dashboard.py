"""The saved view and the report that `python -m gradlab.dashboard` publishes in a W&B project.

Both have the same panels (`sections`), which draw what `tracking.runs` logs. Lines and bars are
means over the runs of one `setting`. Metrics of the runs are in nats; what gradlab's own charts
show is in decades.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from gradlab.tracking.charts import MAP_CHART, MEAN_CHART, SHARE_CHART, charts
from gradlab.tracking.run_config import SETTING_KEY
from gradlab.tracking.runs import OUTCOMES
from gradlab.tracking.server_runs import check_login
from gradlab.tracking.summary_run import TABLE

NAME = "gradlab"
MEASURES = {  # columns of the table of outcomes
    "decay_rate": "decay rate (decades per step)",
    "horizon": "horizon (steps, at most the length)",
    "solved": "share of solved tasks",
    "accuracy": "accuracy",
}
PINNED = (f"config:{SETTING_KEY}", "config:seed", "summary:verdict", "summary:jacobian/decay_rate")
EXPLANATION = (
    "Each point of a sweep is a run: a recurrent network, measured before and after training. "
    "Decay rates are slopes of the mean log norm of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ against lags t − k ≥ 1; negative: "
    "vanishing, positive: exploding. 1 decade, a factor of 10, is 2.303 nats. Runs of one setting "
    "differ in their seed; what stands for several is their mean, with the interval that the "
    "panel names, else with its standard error. The horizon of a network whose norm never falls "
    "to 1/e is infinite, and counts as the sequence's length in a mean."
)
EPILOG = """\
runs that are on disk only:
  wandb leet runs/NAME/DATE/wandb    view them in the terminal, without account or network
  wandb sync runs/NAME/DATE/wandb    upload them, once you are logged in (wandb login)
"""


class StudyPage(NamedTuple):
    """The words of a study's report.

    Attributes:
        name: of its experiment, by which its runs are found.
        title: the report's.
        text: question, claims and verdicts, in Markdown.
    """

    name: str
    title: str
    text: str


def sections(entity: str) -> dict[str, list[Any]]:
    """Return the panels under each heading.

    Args:
        entity: the W&B user or team that owns gradlab's charts.
    """
    import wandb_workspaces.reports.v2 as wr

    gain, length, threshold = map(wr.Config, ("init.gain", "task.length", "clip.threshold"))
    rate = wr.SummaryMetric("jacobian/decay_rate")
    axes = {
        "model": wr.Config("model.name"),
        "gain": gain,
        "length": length,
        "threshold": threshold,
        "decay rate": rate,
        "accuracy": wr.SummaryMetric("eval/accuracy"),
    }
    columns = [wr.ParallelCoordinatesPlotColumn(metric, name) for name, metric in axes.items()]
    return {
        "How far the gradient reaches": [
            _outcome(entity, "decay_rate", "init.gain"),
            _outcome(entity, "decay_rate", "task.length"),
            _outcome(entity, "horizon", "init.gain"),
            wr.BarPlot(title="Decay rate (nats per step)", metrics=[rate.name], **_over_seeds()),
            wr.WeavePanelSummaryTable(table_name=TABLE),
            _table_chart(
                "jacobian/decay_curves_table",
                "wandb/lineseries/v0",
                ("step", "lineKey", "lineVal"),
                {"title": "Mean log norm (decades)", "xname": "lag t − k (steps)"},
            ),
            _line_plot("Decay rate during training (nats per step)", y=[rate.name]),
            _line_plot("Log norm by lag (nats)", metric_regex="jacobian/log_norm/lag_.*"),
        ],
        "Maps": [
            wr.MediaBrowser(
                title="log ‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖ before and after training", media_keys=["jacobian/map"]
            ),
            _table_chart(
                "jacobian/map_cells", f"{entity}/{MAP_CHART}", ("step", "t", "k", "log_norm"), {}
            ),
        ],
        "Training": [
            _outcome(entity, "solved", "clip.threshold", SHARE_CHART),
            _outcome(entity, "accuracy", "clip.threshold"),
            _line_plot("Share of updates clipped", y=["train/clip_fraction"]),
            _line_plot("Held-out loss", y=["eval/loss"]),
        ],
        "Every run": [
            wr.ScatterPlot(title="Decay rate (nats per step) against gain", x=gain, y=rate),
            wr.ScatterPlot(
                title="Decay rate (nats per step) against length", x=length, y=rate, log_x=True
            ),
            wr.ParallelCoordinatesPlot(title="Settings and what they led to", columns=columns),
        ],
    }


def workspace(entity: str, project: str) -> Any:
    """Build, but do not save, the view of a project: a `wandb_workspaces.workspaces.Workspace`."""
    import wandb_workspaces.workspaces as ws

    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            ws.Section(name=name, panels=panels, is_open=True)
            for name, panels in sections(entity).items()
        ],
        settings=ws.WorkspaceSettings(x_axis="train/step", max_runs=100),
        runset_settings=ws.RunsetSettings(pinned_columns=[*PINNED]),
    )


def report(entity: str, project: str, study: StudyPage | None = None) -> Any:
    """Build, but do not save, a report with the same panels: a `wandb_workspaces` `Report`.

    Args:
        entity, project: where it is to be.
        study: a study that it is of: its text comes first, and the panels show its runs alone.
    """
    import wandb_workspaces.reports.v2 as wr

    only = f"Config('name') = {study.name!r}" if study else ""
    blocks: list[Any] = [wr.MarkdownBlock(study.text)] if study else []
    blocks.append(wr.P(EXPLANATION))
    for name, panels in sections(entity).items():
        runs = wr.Runset(entity=entity, project=project, filters=only)
        blocks += [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=panels)]
    return wr.Report(
        entity=entity,
        project=project,
        title=study.title if study else "How far does a gradient reach?",
        description="Written by python -m gradlab.dashboard.",
        blocks=blocks,
    )


def description(entity: str, project: str, study: StudyPage | None = None) -> str:
    """Return, as text, what `publish` would save."""
    lines = [f"a view {NAME!r} and a report in {entity}/{project}, each with"]
    for name, panels in sections(entity).items():
        lines += [f"  {name}", *(f"    {_line(panel)}" for panel in panels)]
    return "\n".join(
        [*lines, *(["", f"the report begins: {study.title}", study.text] if study else [])]
    )


def publish(entity: str, project: str, study: StudyPage | None = None) -> list[str]:
    """Save gradlab's charts, the view and the report; return the URLs of the last two.

    Raises:
        ConnectionError: the server cannot be reached, or nobody is logged in.
    """
    check_login()
    import wandb

    for name, chart in charts().items():
        try:
            wandb.Api().create_custom_chart(
                entity=entity,
                name=name,
                display_name=name,
                spec_type="vega2",
                access="private",
                spec=chart,
            )
        except wandb.Error as error:  # it exists already, or the server has no custom charts
            print(f"gradlab: the chart {name} was not made: {error}", file=sys.stderr)
    try:
        pages = (workspace(entity, project), report(entity, project, study))
        return [page.save().url for page in pages]
    except wandb.Error as error:
        raise ConnectionError(f"{entity}/{project} could not be written: {error}") from error


def _over_seeds() -> dict[str, Any]:
    """Return the options of a panel whose lines or bars are means over the runs of a setting."""
    import wandb_workspaces.reports.v2 as wr

    setting = wr.Config(SETTING_KEY)
    return {"groupby": setting, "groupby_aggfunc": "mean", "groupby_rangefunc": "stderr"}


def _line_plot(title: str, **metrics: Any) -> Any:
    """Return a plot of metrics over training, by setting."""
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(title=title, x="train/step", **metrics, **_over_seeds())


def _outcome(entity: str, measure: str, key: str, chart: str = MEAN_CHART) -> Any:
    """Return a chart of a column of the table of outcomes against a swept key."""
    from gradlab.figures.labels import key_label

    label, axis = MEASURES[measure], key_label(key)
    strings = {"axis": key, "x_title": axis, "y_title": label}
    strings["title"] = f"{label[0].upper()}{label[1:]} against {axis}"
    fields = {name: name for name in ("axis", "value", "order", "series")} | {"y": measure}
    return _table_chart(OUTCOMES, f"{entity}/{chart}", fields, strings)


def _table_chart(
    table: str, chart: str, columns: dict[str, str] | tuple[str, ...], strings: dict[str, str]
) -> Any:
    """Return a chart of a logged table.

    Args:
        table: its name.
        chart: the chart's.
        columns: by the chart's fields; or alone, where those are named as the columns.
        strings: the chart's texts.
    """
    import wandb_workspaces.reports.v2 as wr

    return wr.CustomChart(
        query={"summaryTable": {"tableKey": table}},
        chart_name=chart,
        chart_fields=columns if isinstance(columns, dict) else {name: name for name in columns},
        chart_strings=strings,
    )


def _line(panel: Any) -> str:
    """Return a panel's kind and title; for a custom chart, its table and chart name too."""
    kind = type(panel).__name__
    if kind == "WeavePanelSummaryTable":
        return f"{kind}: {panel.table_name}"
    if kind == "CustomChart":
        title = panel.chart_strings.get("title", "")
        drawn = f"{panel.query['summaryTable']['tableKey']} as {panel.chart_name}"
        return f"{kind}: {f'{title}, ' if title else ''}{drawn}"
    return f"{kind}: {panel.title}"


def main(read_study: Callable[[str], StudyPage]) -> None:
    """Publish, or with --dry-run print what would be published; report errors in one sentence.

    Args:
        read_study: returns the page of a study by its name; raises ValueError or OSError.
    """
    parser = argparse.ArgumentParser(
        prog="python -m gradlab.dashboard",
        description="Publish a saved view and a report of a project on the W&B server that you "
        "are logged in to.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("project", metavar="ENTITY/PROJECT")
    parser.add_argument(
        "--study",
        metavar="NAME",
        help="begin the report with this study's question, claims and verdicts, as in "
        "experiments/NAME or runs/NAME of the current folder, and show its runs alone",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what it would publish; needs no account"
    )
    options = parser.parse_args()
    entity, _, project = options.project.partition("/")
    if not entity or not project or "/" in project:
        parser.error(f"it takes ENTITY/PROJECT; got {options.project!r}.")
    try:
        study = read_study(options.study) if options.study else None
        if options.dry_run:
            print(description(entity, project, study))
        else:
            print("\n".join(publish(entity, project, study)))
    except ModuleNotFoundError as error:
        if error.name != "wandb_workspaces":
            raise
        sys.exit("gradlab: this needs wandb-workspaces: pip install 'gradlab[dashboard]'.")
    except (ValueError, OSError) as error:  # ConnectionError among them
        sys.exit(f"gradlab: {error}")
