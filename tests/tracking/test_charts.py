"""gradlab's charts for W&B, rendered with the rows of tables that runs log."""

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import binomtest
from synthetic_sweeps import geometric

from gradlab.figures import style
from gradlab.figures.map_images import MAX_LIMIT
from gradlab.tracking.charts import (
    BOOTSTRAP,
    RUNS,
    SIDE,
    WILSON,
    filled,
    map_chart,
    outcome_chart,
)
from gradlab.tracking.media import map_table
from gradlab.tracking.setting import LAST

DECADE = np.log(10)
LENGTH, SEEDS, SOLVED = 4, 5, 2
MAPS = geometric(LENGTH, (-0.5 * DECADE, 0.5 * DECADE))["jacobian_log_norm"]
RECT = re.compile(r"M(?P<x>[\d.]+),(?P<y>[\d.]+)h(?P<width>[\d.]+)v(?P<height>[\d.]+)")
Marks = list[dict[str, Any]]


def filled_map(*names: str) -> dict[str, Any]:
    table = map_table(MAPS)
    rows = [
        {"name": name, **dict(zip(table.columns, row, strict=True))}
        for name in names
        for row in table.data
    ]
    return filled(map_chart(), rows, {name: name for name in table.columns}, {})


def filled_outcome(interval: list[dict[str, str]], measure: str) -> dict[str, Any]:
    """Return the chart of a sweep over gains and thresholds, with rows that are none of its own."""
    rows = [
        {"axis": "init.gain", "value": value, "order": order, "series": series}
        | {"horizon": seed + 1.0, "solved": float(seed < SOLVED)}
        for value, order in (("none", LAST), ("10", 10.0), ("2", 2.0))
        for series in ("clip threshold 1", "clip threshold none")
        for seed in range(SEEDS)
    ]
    rows += [rows[0] | {"axis": "task.length", "horizon": 99.0, "solved": 1.0}]
    rows += [rows[0] | {"horizon": None, "solved": None}]  # not measured
    fields = {name: name for name in ("axis", "value", "order", "series")} | {"y": measure}
    strings = {"axis": "init.gain", "title": "T", "x_title": "gain", "y_title": "measure"}
    return {**filled(outcome_chart("of seeds", interval), rows, fields, strings), "width": 300}


def rendered(chart: dict[str, Any]) -> Marks:
    """Return the marks of a rendered chart: where they are, their colour, what they stand for."""
    vl_convert = pytest.importorskip("vl_convert")
    svg = vl_convert.vegalite_to_svg(chart, vl_version="5.20")
    return list(_marks(ElementTree.fromstring(svg), np.zeros(2)))


def _marks(node: ElementTree.Element, at: Any) -> Iterator[dict[str, Any]]:
    moved = re.search(r"translate\(([-\d.]+),([-\d.]+)\)", node.get("transform", ""))
    here = at + np.array([float(x) for x in moved.groups()]) if moved else at
    entries = [entry.split(": ", 1) for entry in node.get("aria-label", "").split("; ")]
    if len(entries) > 1 and all(len(entry) == 2 for entry in entries):  # no title, no axis
        box = RECT.match(node.get("d", ""))
        size = {name: float(x) for name, x in box.groupdict().items()} if box else {}
        place = {"x": here[0] + size.pop("x", 0.0), "y": here[1] + size.pop("y", 0.0)}
        kind = node.get("aria-roledescription")
        yield {**place, **size, "fill": node.get("fill"), "kind": kind, **dict(entries)}
    for child in node:
        yield from _marks(child, here)


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_the_map_has_t_downwards_square_cells_and_before_beside_after() -> None:
    cells = rendered(filled_map("a"))
    assert len(cells) == (LENGTH + 1) * (LENGTH + 2)  # two triangles
    side = SIDE / (LENGTH + 1)
    left = min(cell["x"] for cell in cells)
    for cell in cells:
        t, k = (int(cell[f"{name} (steps)"]) for name in "tk")
        decades = number(cell["log₁₀ norm (decades)"])
        is_after = cell["x"] - left >= SIDE
        assert decades == pytest.approx((0.5 if is_after else -0.5) * (t - k), abs=1e-5)
        assert number(cell["log norm (nats)"]) == pytest.approx(decades * DECADE, abs=1e-3)
        assert (cell["width"], cell["height"]) == (side, side)
        assert cell["y"] - cells[0]["y"] == pytest.approx(side * t)
    middle = {cell["fill"] for cell in cells if cell["t (steps)"] == cell["k (steps)"]}
    assert len(middle) == 1  # 0 has one colour


def test_the_maps_colours_are_those_of_gradlabs_figures() -> None:
    cells = rendered(filled_map("a"))
    assert cells
    for cell in cells:
        nats = number(cell["log₁₀ norm (decades)"]) * DECADE
        expected = style.norm_colours()(0.5 + nats / (2 * MAX_LIMIT), bytes=True)[:3]
        drawn = [int(x) for x in re.findall(r"\d+", cell["fill"])]
        np.testing.assert_allclose(drawn, np.array(expected, dtype=int), atol=4)


def test_a_few_runs_are_shown_each_in_its_row() -> None:
    names = [f"run {number}" for number in range(RUNS + 2)]
    cells = rendered(filled_map(*names))
    assert [*dict.fromkeys(cell["run"] for cell in cells)] == names[:RUNS]
    tops = [min(cell["y"] for cell in cells if cell["run"] == name) for name in names[:RUNS]]
    assert np.diff(tops).min() > SIDE


def test_a_share_has_its_wilson_interval_and_levels_are_in_their_order() -> None:
    marks = rendered(filled_outcome(WILSON, "solved"))
    points = [mark for mark in marks if "runs" in mark and mark["kind"] == "point"]
    truth = binomtest(SOLVED, SEEDS).proportion_ci(method="wilson")
    assert len(points) == 6
    for point in points:  # the row of another key and that without a number do not count
        assert (number(point["measure"]), point["runs"]) == (SOLVED / SEEDS, str(SEEDS))
        assert number(point["from"]) == pytest.approx(truth.low, abs=1e-3)
        assert number(point["to"]) == pytest.approx(truth.high, abs=1e-3)
    assert {point["setting"] for point in points} == {"clip threshold 1", "clip threshold none"}
    by_place = sorted(points, key=lambda point: point["x"])
    assert [*dict.fromkeys(point["gain"] for point in by_place)] == ["2", "10", "none"]


def test_a_mean_lies_within_its_bootstrap_interval_over_seeds() -> None:
    points = [mark for mark in rendered(filled_outcome(BOOTSTRAP, "horizon")) if "runs" in mark]
    assert points
    seeds = np.arange(1, SEEDS + 1)
    draws = np.random.default_rng(0).choice(seeds, (4000, SEEDS)).mean(axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    for point in points:
        assert number(point["measure"]) == seeds.mean()
        assert number(point["from"]) == pytest.approx(low, abs=0.25)  # Vega draws 1000
        assert number(point["to"]) == pytest.approx(high, abs=0.25)
