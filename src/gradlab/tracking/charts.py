"""Charts of logged tables that W&B does not have, as Vega-Lite.

W&B replaces "${field:NAME}" and "${string:NAME}" by the column and the text that a panel gives, and
adds to each row of a table the `name` of the run that logged it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradlab.figures import style
from gradlab.figures.map_images import MAX_LIMIT
from gradlab.figures.units import DECADE, from_nats

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
MAP_CHART, MEAN_CHART, SHARE_CHART = "gradlab-map", "gradlab-mean", "gradlab-share"
TEMPLATE = re.compile(r"\${(field|string):(\w+)}")
RUNS = 4  # runs whose maps are shown, at most
SIDE = 260  # pixels along an axis of a map
# How an outcome chart calculates `low` and `high` from `mean`, `ci0`, `ci1` (bootstrap) and `runs`.
BOOTSTRAP = [
    {"calculate": f"datum.ci{end}", "as": name} for end, name in enumerate(("low", "high"))
]
Z = 1.96  # standard normal quantile of a 95 % interval
WILSON = [
    {"calculate": f"datum.runs + {Z**2}", "as": "n"},
    {"calculate": f"(datum.mean * datum.runs + {Z**2 / 2}) / datum.n", "as": "middle"},
    {"calculate": "datum.mean * (1 - datum.mean) * datum.runs", "as": "variance"},
    {"calculate": f"{Z} * sqrt(datum.variance + {Z**2 / 4}) / datum.n", "as": "half"},
    {"calculate": "datum.middle - datum.half", "as": "low"},
    {"calculate": "datum.middle + datum.half", "as": "high"},
]


def charts() -> dict[str, dict[str, Any]]:
    """Return the specification of each chart by its name."""
    return {
        MAP_CHART: map_chart(),
        MEAN_CHART: outcome_chart("mean over seeds, with its 95 % bootstrap interval", BOOTSTRAP),
        SHARE_CHART: outcome_chart("share of the seeds, with its 95 % Wilson interval", WILSON),
    }


def map_chart() -> dict[str, Any]:
    """Return the chart of a table from `media.map_table`: a row of maps for each run.

    t goes downwards, cells are square, colours are those of gradlab's figures: blue where the norm
    is below 1, red above. What the table leaves out (exactly zero, k > t) is blank.
    """
    ends = from_nats(MAX_LIMIT, "decades")
    positions = np.linspace(-1, 1, 9)
    rgba = style.norm_colours()((positions + 1) / 2, bytes=True)
    axis = {"labelOverlap": "greedy", "labelSeparation": 8, "labelAngle": 0}
    steps = {"type": "ordinal", "axis": axis}
    return {
        "$schema": SCHEMA,
        "title": {
            "text": "‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖ before and after training",
            "subtitle": f"of the first {RUNS} runs that are visible; blank: exactly zero, or k > t",
        },
        "data": {"name": "wandb"},
        "transform": [
            {"window": [{"op": "dense_rank", "as": "rank"}], "sort": [{"field": "name"}]},
            {"filter": f"datum.rank <= {RUNS}"},
            {"calculate": f"datum['${{field:log_norm}}'] / {DECADE!r}", "as": "decades"},
            {"calculate": "'after ' + datum['${field:step}'] + ' updates'", "as": "moment"},
        ],
        "facet": {
            "row": {"field": "name", "type": "nominal", "title": None},
            "column": {
                "field": "moment",
                "type": "nominal",
                "sort": {"field": "${field:step}", "op": "min"},
                "title": None,
            },
        },
        "spec": {
            "width": SIDE,
            "height": SIDE,
            "mark": "rect",
            "encoding": {
                "x": {"field": "${field:k}", "title": "k (steps)", **steps},
                "y": {"field": "${field:t}", "title": "t (steps)", **steps},
                "color": {
                    "field": "decades",
                    "type": "quantitative",
                    "title": "log₁₀ norm (decades)",
                    "scale": {
                        "domain": [round(ends * x, 6) for x in positions],
                        "range": [f"#{bytes(colour[:3]).hex()}" for colour in rgba],
                        "clamp": True,
                    },
                },
                "tooltip": [
                    {"field": "name", "type": "nominal", "title": "run"},
                    {"field": "${field:t}", "type": "ordinal", "title": "t (steps)"},
                    {"field": "${field:k}", "type": "ordinal", "title": "k (steps)"},
                    _number("decades", "log₁₀ norm (decades)"),
                    _number("${field:log_norm}", "log norm (nats)"),
                ],
            },
        },
        "resolve": {"scale": {"x": "independent", "y": "independent"}},
    }


def outcome_chart(subtitle: str, interval: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the chart of a column of `setting.outcome_table` against one swept key.

    A line for each combination of the other keys shows the mean over its runs, with an interval.

    Args:
        subtitle: what the interval is.
        interval: BOOTSTRAP or WILSON.
    """
    y, series = "${field:y}", "${field:series}"
    ops = {"mean": "mean", "ci0": "ci0", "ci1": "ci1", "count": "runs"}
    shared = {
        "x": {
            "field": "${field:value}",
            "type": "ordinal",
            "sort": {"field": "place", "op": "min"},
            "axis": {"labelAngle": 0},
            "title": "${string:x_title}",
        },
        "xOffset": {"field": series, "type": "nominal"},  # so that equal values are seen apart
        "color": {
            "field": series,
            "type": "nominal",
            "title": None,
            "scale": {"scheme": "tableau20"},
            "legend": {"orient": "bottom", "columns": 2, "labelLimit": 0},
        },
    }
    bounds = {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}}
    mean = {"field": "mean", "type": "quantitative", "title": "${string:y_title}"}
    return {
        "$schema": SCHEMA,
        "title": {"text": "${string:title}", "subtitle": subtitle},
        "data": {"name": "wandb"},
        "width": "container",
        "height": 300,
        "transform": [
            {"filter": "datum['${field:axis}'] === '${string:axis}'"},
            {"filter": f"isValid(datum['{y}'])"},
            {
                "aggregate": [
                    *({"op": op, "field": y, "as": name} for op, name in ops.items()),
                    {"op": "min", "field": "${field:order}", "as": "place"},
                ],
                "groupby": ["${field:value}", series],
            },
            *interval,
        ],
        "layer": [
            {
                "mark": {"type": "line", "point": True},
                "encoding": {
                    "y": mean,
                    "order": {"field": "place", "type": "quantitative"},
                    "tooltip": [
                        {"field": series, "type": "nominal", "title": "setting"},
                        {
                            "field": "${field:value}",
                            "type": "nominal",
                            "title": "${string:x_title}",
                        },
                        _number("mean", "${string:y_title}"),
                        _number("low", "from"),
                        _number("high", "to"),
                        {"field": "runs", "type": "quantitative", "title": "runs"},
                    ],
                },
            },
            {"mark": "rule", "encoding": bounds},
        ],
        "encoding": shared,
    }


def filled(
    chart: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    fields: Mapping[str, str],
    strings: Mapping[str, str],
) -> dict[str, Any]:
    """Return a chart as W&B fills it in, for any program that renders Vega-Lite.

    Args:
        chart: one of `charts`.
        rows: of the runs' tables, each with the `name` of its run.
        fields: the columns by the chart's fields.
        strings: the chart's texts.
    """
    given = {"field": fields, "string": strings}
    text = TEMPLATE.sub(lambda x: json.dumps(given[x[1]][x[2]])[1:-1], json.dumps(chart))
    return {**json.loads(text), "data": {"values": [*rows]}}


def _number(field: str, title: str) -> dict[str, str]:
    return {"field": field, "type": "quantitative", "title": title, "format": ".3f"}
