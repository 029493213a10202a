"""The saved view and the report that `python -m gradlab.dashboard` publishes in a W&B project.

Both have the same panels (`sections`), which draw what `tracking.runs` logs.
"""

import argparse
import sys
from typing import Any

from gradlab.tracking.server_runs import check_login

NAME = "gradlab"
MAP_CHART = "gradlab-jacobian-map"
MAP_SPEC: dict[str, Any] = {
    "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
    "title": "log ‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖ (nats) before and after training",
    "data": {"name": "wandb"},
    "mark": {"type": "rect", "tooltip": {"content": "data"}},
    "encoding": {
        "x": {"field": "${field:k}", "type": "ordinal", "title": "k (steps)"},
        "y": {"field": "${field:t}", "type": "ordinal", "title": "t (steps)"},
        "color": {
            "field": "${field:log_norm}",
            "type": "quantitative",
            "scale": {"scheme": "redblue", "reverse": True, "domainMid": 0},
        },
        "column": {"field": "${field:step}", "type": "ordinal", "title": "updates"},
    },
}
EPILOG = """\
runs that are on disk only:
  wandb leet runs/NAME/DATE/wandb    view them in the terminal, without account or network
  wandb sync runs/NAME/DATE/wandb    upload them, once you are logged in (wandb login)
"""


def sections(entity: str) -> dict[str, list[Any]]:
    """Return the panels under each heading.

    Args:
        entity: the W&B user or team that owns the interactive map's chart.
    """
    import wandb_workspaces.reports.v2 as wr

    gain, length = wr.Config("init.gain"), wr.Config("task.length")
    threshold, model = wr.Config("clip.threshold"), wr.Config("model.name")
    rate = wr.SummaryMetric("jacobian/decay_rate")
    horizon = wr.SummaryMetric("jacobian/horizon")
    accuracy = wr.SummaryMetric("eval/accuracy")
    axes = {
        "model": model,
        "gain": gain,
        "threshold": threshold,
        "length": length,
        "decay rate": rate,
        "horizon": horizon,
        "accuracy": accuracy,
    }
    columns = [wr.ParallelCoordinatesPlotColumn(metric, name) for name, metric in axes.items()]
    log_norms = "jacobian/log_norm/lag_.*"  # a regular expression
    return {
        "How far the gradient reaches": [
            wr.ScatterPlot(title="Decay rate (nats per step) against gain", x=gain, y=rate),
            wr.ScatterPlot(
                title="Decay rate (nats per step) against length", x=length, y=rate, log_x=True
            ),
            wr.ScatterPlot(title="Horizon (steps) against gain", x=gain, y=horizon, log_y=True),
            _table_chart(
                "jacobian/decay_curves_table",
                "wandb/lineseries/v0",
                ("step", "lineKey", "lineVal"),
                {"title": "Mean log norm (nats)", "xname": "lag t − k (steps)"},
            ),
            wr.LinePlot(title="Log norm by lag (nats)", x="train/step", metric_regex=log_norms),
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
            wr.ScatterPlot(
                title="Accuracy against clipping threshold", x=threshold, y=accuracy, log_x=True
            ),
            wr.LinePlot(
                title="Share of updates clipped", x="train/step", y=["train/clip_fraction"]
            ),
            wr.LinePlot(title="Held-out loss", x="train/step", y=["eval/loss"]),
        ],
        "Everything at once": [
            wr.ParallelCoordinatesPlot(title="Settings and what they led to", columns=columns)
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
    )


def report(entity: str, project: str) -> Any:
    """Build, but do not save, a report with the same panels: a `wandb_workspaces` `Report`."""
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [
        wr.P(
            "Each point of a sweep is a run: a recurrent network, measured before and after "
            "training. Decay rates are slopes of the mean log norm of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ against t − k; "
            "negative: vanishing, positive: exploding. A horizon of a network whose norm never "
            "falls to 1/e is infinite, and not drawn."
        )
    ]
    for name, panels in sections(entity).items():
        grid = wr.PanelGrid(runsets=[wr.Runset(entity=entity, project=project)], panels=panels)
        blocks += [wr.H2(name), grid]
    return wr.Report(
        entity=entity,
        project=project,
        title="How far does a gradient reach?",
        description="Written by python -m gradlab.dashboard.",
        blocks=blocks,
    )


def description(entity: str, project: str) -> str:
    """Return, as text, what `publish` would save."""
    lines = [f"a view {NAME!r} and a report in {entity}/{project}, each with"]
    for name, panels in sections(entity).items():
        lines += [f"  {name}", *(f"    {_line(panel)}" for panel in panels)]
    return "\n".join(lines)


def publish(entity: str, project: str) -> list[str]:
    """Save the map's chart, the view and the report; return the URLs of the last two.

    Raises:
        ConnectionError: the server cannot be reached, or nobody is logged in.
    """
    check_login()
    import wandb

    try:
        wandb.Api().create_custom_chart(
            entity=entity,
            name=MAP_CHART,
            display_name="gradlab: Jacobian map",
            spec_type="vega2",
            access="private",
            spec=MAP_SPEC,
        )
    except wandb.Error as error:  # the chart exists already, or the server has no custom charts
        print(f"gradlab: the chart of the interactive map was not made: {error}", file=sys.stderr)
    try:
        return [page.save().url for page in (workspace(entity, project), report(entity, project))]
    except wandb.Error as error:
        raise ConnectionError(f"{entity}/{project} could not be written: {error}") from error


def _table_chart(table: str, chart: str, columns: tuple[str, ...], strings: dict[str, str]) -> Any:
    """Return a chart of a logged table; the chart's fields are named as the table's columns."""
    import wandb_workspaces.reports.v2 as wr

    return wr.CustomChart(
        query={"summaryTable": {"tableKey": table}},
        chart_name=chart,
        chart_fields={name: name for name in columns},
        chart_strings=strings,
    )


def _line(panel: Any) -> str:
    """Return a panel's kind and title; for a custom chart, its table and chart name."""
    kind = type(panel).__name__
    if kind == "CustomChart":
        return f"{kind}: {panel.query['summaryTable']['tableKey']} as {panel.chart_name}"
    return f"{kind}: {panel.title}"


def main() -> None:
    """Publish, or with --dry-run print what would be published; report errors in one sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m gradlab.dashboard",
        description="Publish a saved view and a report of a project on the W&B server that you "
        "are logged in to.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("project", metavar="ENTITY/PROJECT")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what it would publish; needs no account"
    )
    options = parser.parse_args()
    entity, _, project = options.project.partition("/")
    if not entity or not project or "/" in project:
        parser.error(f"it takes ENTITY/PROJECT; got {options.project!r}.")
    try:
        if options.dry_run:
            print(description(entity, project))
        else:
            print("\n".join(publish(entity, project)))
    except ModuleNotFoundError as error:
        if error.name != "wandb_workspaces":
            raise
        sys.exit("gradlab: this needs wandb-workspaces: pip install 'gradlab[dashboard]'.")
    except ConnectionError as error:
        sys.exit(f"gradlab: {error}")
