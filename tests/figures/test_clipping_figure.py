"""The figure of clipping: success with its interval, thresholds, and its best line."""

from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from synthetic_sweeps import metrics_with, note, write_point
from threshold_sweep import clopper_pearson, write_thresholds

from gradlab import figures, load_runs
from gradlab.figures import style

RATE, THRESHOLD = "optim.learning_rate", "clip.threshold"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_thresholds(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def runs(folder: Path) -> pd.DataFrame:
    return load_runs(folder, "all")


def panel(drawn: style.Drawn, label: str) -> Axes:
    """Return the first panel whose y axis has a label."""
    return next(axes for axes in drawn.figure.axes if axes.get_ylabel().replace("\n", " ") == label)


def legend(drawn: style.Drawn) -> dict[str, list[str]]:
    """Return the labels of the legend by their headings, reading its rows."""
    (entries,) = drawn.figure.subfigs[0].legends
    labels = [text.get_text() for text in entries.get_texts()]
    rows = len(labels) // entries._ncols
    groups: dict[str, list[str]] = {}
    for row in range(rows):
        heading, *own = labels[row::rows]
        groups.setdefault(heading.strip() or list(groups)[-1], []).extend(filter(None, own))
    return groups


def test_success_rates_have_the_bars_of_clopper_and_pearson(runs: pd.DataFrame) -> None:
    drawn = figures.clipping(runs, where={"model.name": "rnn", "init.gain": 2})
    axes = panel(drawn, "success rate")
    for bars, lost in zip(axes.containers, (0, 1), strict=True):  # learning rates 0.1 and 1
        counts = [4 - lost, 3 - lost, 0]
        points, _, (segments,) = bars.lines
        np.testing.assert_allclose(points.get_ydata().astype(float), np.array(counts) / 5)
        limits = [segment[:, 1] for segment in segments.get_segments()]
        np.testing.assert_allclose(limits, [clopper_pearson(n, 5) for n in counts], atol=1e-12)
    assert "Success: accuracy above 0.9; bars: 95 % intervals of its rate" in note(drawn)
    assert "Lines: means of 5 seeds; bands: 95 % bootstrap intervals of the mean." in note(drawn)


def test_a_success_rate_of_nothing_but_zeros_has_no_panel(runs: pd.DataFrame) -> None:
    drawn = figures.clipping(runs, accuracy=0.99, where={"model.name": "rnn"})
    labels = {axes.get_ylabel() for axes in drawn.figure.axes}
    assert "success rate" not in labels
    assert "final loss" in labels
    assert "Success (accuracy above 0.99) is 0 in all 60 runs, so its panel is left out" in (
        note(drawn)
    )
    assert "--success-accuracy sets another criterion" in note(drawn)
    unjudged = runs.drop(columns="eval/accuracy")
    assert "No run logs eval/error_rate or eval/accuracy" in note(figures.clipping(unjudged))


def test_thresholds_ascend_to_none_and_have_colours_of_their_own(runs: pd.DataFrame) -> None:
    drawn = figures.clipping(runs, where={"model.name": "rnn", "init.gain": 2})
    ticks = [label.get_text() for label in panel(drawn, "final loss").get_xticklabels()]
    assert ticks == ["0.1", "1", "none"]
    tight, loose, never = panel(drawn, "clip fraction").lines
    assert [line.get_linestyle() for line in (tight, loose, never)] == ["-", "-", "--"]
    assert len({len(set(to_rgb(line.get_color()))) > 1 for line in (tight, loose)}) == 1
    dark, light = (np.dot(to_rgb(line.get_color()), (0.3, 0.6, 0.1)) for line in (tight, loose))
    assert light - dark > 0.3  # told apart in print
    thresholds = ["threshold 0.1", "threshold 1", "threshold none"]
    assert legend(drawn)["clip fraction:"] == thresholds


def test_the_clip_fraction_is_of_the_best_line_or_that_which_is_asked_for(
    runs: pd.DataFrame,
) -> None:
    where = {"model.name": "rnn", "init.gain": 2}
    best, asked = (figures.clipping(runs, where=where | more) for more in ({}, {RATE: 1}))
    assert "Clip fraction: of the best line, learning rate 0.1; another: --where " in note(best)
    assert "optim.learning_rate=1." in note(best)
    assert "learning rate 1)" in note(asked)
    for drawn, rate in ((best, 0.1), (asked, 1.0)):
        values = [set(line.get_ydata()) for line in panel(drawn, "clip fraction").lines]
        expected = [fraction * (2 - rate) / 2 for fraction in (0.9, 0.4, 0.0)]
        np.testing.assert_allclose([max(own) for own in values], expected)
        assert all(len(own) == 1 for own in values)


@pytest.mark.parametrize("best", [None, 4.0])
def test_the_best_line_may_be_that_of_a_missing_value(best: float | None, tmp_path: Path) -> None:
    for number, window in enumerate((None, 4.0)):
        for threshold, clipped in ((1.0, 0.75), (inf, 0.0)):
            loss = 1.0 if window == best else 2.0
            rows = metrics_with([3.0, loss], clipped if window == best else 0.25 * clipped)
            where = tmp_path / f"{number}-{threshold}"
            summary = {"eval/loss": loss, "eval/accuracy": 0.95}
            options: dict[str, Any] = {"metrics": rows, "summary": summary, "window": window}
            write_point(where, None, threshold=threshold, **options)
    drawn = figures.clipping(load_runs(tmp_path), hue="task.window")
    label, other = ("none", "4") if best is None else ("4", "none")
    assert f"of the best line, window {label}; another: --where task.window={other}." in note(drawn)
    clipping, never = panel(drawn, "clip fraction").lines
    assert list(clipping.get_ydata()) == [0.75]
    assert (list(never.get_ydata()), never.get_marker()) == ([0.0], ".")  # one step: no line


@pytest.mark.parametrize(
    ("where", "asked", "lines"),
    [
        ({"model.name": "rnn", "init.gain": 2}, {}, ["learning rate 0.1", "learning rate 1"]),
        ({"model.name": "rnn", RATE: 1}, {}, ["gain 0.5", "gain 2"]),
        ({"init.gain": 2, RATE: 1}, {}, ["RNN", "LSTM"]),
        ({RATE: 1}, {"hue": "model.name"}, ["RNN", "LSTM"]),
        ({"init.gain": 2, RATE: 1, "model.name": "lstm"}, {}, ["LSTM"]),
    ],
)
def test_lines_differ_by_the_learning_rate_or_what_else_varies(
    where: dict[str, Any], asked: dict[str, Any], lines: list[str], runs: pd.DataFrame
) -> None:
    drawn = figures.clipping(runs, where=where, **asked)
    assert legend(drawn)["success, loss:"] == lines


@pytest.mark.parametrize("look", style.STYLES)
def test_a_legend_breaks_names_that_are_wider_than_the_figure(look: str, tmp_path: Path) -> None:
    name = "Residual_network_with_gates_and_a_name_of_sixty_letters_in_all"[:60]
    for number, model in enumerate(("rnn", name)):
        metrics, summary = metrics_with([3.0, 2.0]), {"eval/loss": 2.0}
        write_point(tmp_path / str(number), None, model=model, metrics=metrics, summary=summary)
    with style.theme(look):
        drawn = figures.clipping(load_runs(tmp_path), hue="model.name")
        drawn.figure.draw_without_rendering()
    (box,) = (entries.get_window_extent() for entries in drawn.figure.subfigs[0].legends)
    assert 0 <= box.x0 < box.x1 <= drawn.figure.bbox.width
    assert [label.replace("\n", "") for label in legend(drawn)["loss:"]] == ["RNN", name]
    assert all(line.endswith("_") for line in legend(drawn)["loss:"][1].split("\n")[:-1])


def test_runs_without_a_learning_rate_or_success_are_drawn(
    folder: Path, runs: pd.DataFrame
) -> None:
    watched = runs.drop(columns=[RATE, "eval/accuracy"]).rename(columns={"eval/loss": "train/loss"})
    drawn = figures.clipping(watched, where={"model.name": "rnn"})
    assert panel(drawn, "final training loss")
    assert legend(drawn)["loss:"] == ["gain 0.5", "gain 2"]
    assert drawn.table["learning_rate"].isna().all()
    assert "One threshold: sweep clip.threshold=0.1,1,inf" in note(
        figures.clipping(watched, where={THRESHOLD: "none"})
    )


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"hue": THRESHOLD}, "clip.threshold is along an axis: hue, col and row take other keys"),
        ({"col": THRESHOLD}, "clip.threshold is along an axis"),
        ({"hue": "nosuch"}, "no config key 'nosuch'"),
        ({"hue": RATE, "row": RATE}, "hue, col and row must be different keys"),
        ({"where": {RATE: 7}}, "optim.learning_rate is one of 0.1, 1 in these runs; got 7"),
        ({"band": "se"}, "band must be one of ci, sd, iqr, range, none; got 'se'"),
        ({"error": 2.0}, "judged by an error rate from 0 to 1: --success-error is 2"),
        ({"accuracy": nan}, "judged by an accuracy from 0 to 1: --success-accuracy is nan"),
    ],
)
def test_what_clipping_cannot_show_is_refused_in_a_sentence(
    asked: dict[str, Any], sentence: str, runs: pd.DataFrame
) -> None:
    with pytest.raises(ValueError, match=sentence):
        figures.clipping(runs, **asked)


def test_columns_and_rows_of_clipping_are_those_asked_for(runs: pd.DataFrame) -> None:
    drawn = figures.clipping(runs, col="model.name", row="init.gain", hue=RATE, band="none")
    titles = [axes.get_title() for axes in drawn.figure.axes]
    assert [title for title in titles if title] == ["RNN", "LSTM"]
    assert len(drawn.figure.axes) == 2 * 2 * 3
    assert set(drawn.table["point"]) == set(runs.index)
    assert "bands" not in note(drawn)
