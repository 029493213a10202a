"""A figure shows what is asked for: points, keys, moments, bands, units; the rest it names."""

from itertools import product
from math import inf
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from scipy import stats
from synthetic_sweeps import all_probes, geometric, note, text_of, write_point

from gradlab import figures, load_runs
from gradlab.figures import bands, curves, moments, style
from gradlab.figures.choice import Choice, chosen
from gradlab.figures.layout import Grid, arrange_lines
from gradlab.figures.selection import comparable


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Return a sweep of 2 models × 2 gains × 3 thresholds × 2 lengths × 2 seeds."""
    folder = tmp_path_factory.mktemp("sweep")
    grid = [
        {"model": model, "gain": gain, "threshold": threshold, "length": length, "seed": seed}
        for model in ("rnn", "lstm")
        for gain in (0.5, 2.0)
        for threshold in (0.1, 1.0, inf)
        for length in (8, 16)
        for seed in (0, 1)
    ]
    for number, settings in enumerate(grid):
        rates = (-0.5, -0.3, -0.1 * settings["gain"])
        write_point(folder / str(number), geometric(settings["length"], rates), **settings)
    return load_runs(folder, "all")


def points(drawn: style.Drawn, runs: pd.DataFrame, key: str) -> set[Any]:
    """Return the levels of a key that a figure shows."""
    return set(runs.loc[drawn.table["point"], key])


# Points


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ({"model.name": "lstm"}, {"model.name": {"lstm"}}),
        ({"model.name": ["LSTM"]}, {"model.name": {"lstm"}}),
        ({"clip.threshold": "none"}, {"clip.threshold": {inf}}),
        ({"clip.threshold": [inf]}, {"clip.threshold": {inf}}),
        ({"clip.threshold": ["0.1", "1"]}, {"clip.threshold": {0.1, 1.0}}),
        ({"seed": range(1, 2)}, {"seed": {1}}),
        ({"init.gain": pd.Series([2.0])}, {"init.gain": {2.0}}),
        ({"init.gain": 2, "seed": "1"}, {"init.gain": {2.0}, "seed": {1}}),
    ],
)
def test_where_keeps_the_points_at_these_levels(
    runs: pd.DataFrame, where: dict[str, Any], shown: dict[str, set[Any]]
) -> None:
    kept = chosen(comparable(runs), where)
    assert all(set(kept[key]) == levels for key, levels in shown.items())
    everything = comparable(runs)
    for key, levels in shown.items():
        everything = everything[everything[key].isin(levels)]
    assert list(kept.index) == list(everything.index)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"where": {"clip.threshold": 3}}, "clip.threshold is one of 0.1, 1, none in these runs"),
        ({"where": {"gain": 1}}, "no config key 'gain'; what varies: model.name, init.gain"),
        ({"hue": "nosuch"}, "no config key 'nosuch'"),
        ({"hue": "seed", "col": "seed"}, "must be different keys; got seed, seed"),
        ({"where": "seed=3"}, "where must be a mapping from config keys to levels"),
        ({"step": "middle"}, "step must be first, last, ends"),
        ({"step": 7}, r"measured after 7 updates; --step takes 0, 100, 200"),
        ({"step": "all", "hue": "init.gain"}, "colours are moments of training"),
        ({"band": "se"}, "band must be one of ci, sd, iqr, range, none; got 'se'"),
    ],
)
def test_what_is_not_there_is_refused_in_a_sentence(
    runs: pd.DataFrame, asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        figures.decay(runs, **asked)


def test_a_figure_names_the_flag_that_shows_what_it_leaves_out(runs: pd.DataFrame) -> None:
    drawn = figures.decay(runs)
    assert points(drawn, runs, "clip.threshold") == {inf}
    assert "Shown: 8 of 48 points (length 16, clip threshold none)." in note(drawn)
    assert "Others: --where task.length=8, or clip.threshold=0.1,1." in note(drawn)
    asked = figures.decay(runs, where={"clip.threshold": 1})
    assert points(asked, runs, "clip.threshold") == {1.0}
    assert "Shown: 8 of 48 points (length 16, clip threshold 1)." in note(asked)
    assert "Others: --where task.length=8." in note(asked)


def test_a_clip_threshold_that_no_record_tells_is_unknown_and_not_none(tmp_path: Path) -> None:
    for number, (threshold, gain) in enumerate(product([None, 1.0, inf], [1.0, 2.0])):
        write_point(tmp_path / str(number), geometric(), threshold=threshold, gain=gain)
    drawn = figures.decay(load_runs(tmp_path), col="model.name")
    assert "clip threshold none). Others: --where clip.threshold=1,unknown." in note(drawn)
    with pytest.raises(ValueError, match="is one of 1, none, unknown in these runs"):
        figures.decay(load_runs(tmp_path), where={"clip.threshold": 2})


# Lines and panels


@pytest.mark.parametrize("key", ["model.name", "clip.threshold", "task.length", "seed"])
def test_hue_col_and_row_part_the_points_by_the_key(runs: pd.DataFrame, key: str) -> None:
    levels = [{level} for level in sorted(set(runs[key]), reverse=key == "model.name")]

    def arranged(**asked: Any) -> Grid:
        return arrange_lines(comparable(runs), Choice(**asked), panels=4, lines=6)

    by_hue = arranged(hue=key, col="init.gain")
    by_col, by_row = arranged(hue="init.gain", col=key), arranged(hue="init.gain", row=key)
    assert [set(cell[key]) for cell in by_hue.cells(by_hue.panels()[0][0])] == levels
    assert [set(panel[key]) for panel in by_col.panels()[0]] == levels
    assert [set(panels[0][key]) for panels in by_row.panels()] == levels
    if key != "task.length":  # what is not asked for is pinned to one level
        assert set(by_col.runs["task.length"]) == {16}


def test_the_panels_of_a_figure_are_those_of_its_grid(runs: pd.DataFrame) -> None:
    drawn = figures.decay(runs, row="clip.threshold", col="model.name", step="last")
    assert [axes.get_title() for axes in drawn.figure.axes] == ["RNN", "LSTM", *4 * [""]]
    rows = [text.get_text() for axes in drawn.figure.axes for text in axes.texts]
    assert [row.replace("\n", " ") for row in rows] == [
        f"clip threshold {level}" for level in ("0.1", "1", "none")
    ]


def test_panels_share_their_axes(runs: pd.DataFrame) -> None:
    figure = figures.decay(runs, row="task.length", col="model.name").figure
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert len({axes.get_ylim() for axes in figure.axes}) == 1


def test_each_panel_shows_the_points_of_its_row_and_column(runs: pd.DataFrame) -> None:
    choice = Choice({"clip.threshold": 1}, "init.gain", "model.name", "task.length")
    grid = arrange_lines(comparable(runs), choice, panels=4, lines=6)
    panels = grid.panels()
    assert [[len(panel) for panel in row] for row in panels] == [[4, 4], [4, 4]]
    for row, length in zip(panels, (8, 16), strict=True):
        for panel, model in zip(row, ("rnn", "lstm"), strict=True):
            assert set(panel["task.length"]) == {length}
            assert set(panel["model.name"]) == {model}


def test_what_is_not_swept_is_in_no_label(runs: pd.DataFrame) -> None:
    where = {"model.name": "lstm", "clip.threshold": 1}
    drawn = figures.decay(runs, where=where, col="task.length")
    titles = [axes.get_title() for axes in drawn.figure.axes]
    assert titles == ["length 8", "length 16"]


def test_lines_that_coincide_are_told_apart(tmp_path: Path) -> None:
    for number, (gain, rate) in enumerate([(1.0, -0.2), (2.0, -0.2), (3.0, -0.4)]):
        write_point(tmp_path / str(number), geometric(rates=(rate,)), gain=gain)
    drawn = figures.decay(load_runs(tmp_path), step="first")
    widths = [x.get_linewidth() for x in drawn.figure.axes[0].lines if len(x.get_xdata()) == 9]
    assert widths[0] > widths[1] == widths[2]
    assert "Where lines coincide, those below are wider." in note(drawn)


# Moments


def test_a_step_is_a_moment_of_training(runs: pd.DataFrame) -> None:
    def whens(step: moments.Step) -> list[str]:
        return list(dict.fromkeys(figures.decay(runs, step=step).table["when"]))

    assert whens("first") == ["before training"]
    assert whens("last") == ["after training"]
    assert whens("ends") == ["before training", "after training"]
    assert whens(100) == ["after 100 updates"]
    assert whens("all") == ["before training", "after 100 updates", "after 200 updates"]
    at_100 = figures.decay(runs, step=100).table.set_index("lag")
    assert at_100.loc[8, "relative"].to_numpy() == pytest.approx(-2.4)


def test_of_many_moments_each_has_a_colour(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(rates=tuple(np.linspace(-0.5, -0.1, 20))))
    drawn = figures.decay(load_runs(tmp_path), step="all")
    steps = sorted(set(drawn.table["step"]))
    assert len(steps) == moments.MOST
    assert (steps[0], steps[-1]) == (0, 1900)
    curves = [x for x in drawn.figure.axes[0].lines if len(x.get_xdata()) == 9]
    assert len({line.get_color() for line in curves}) == moments.MOST


# Bands


def table_of(values: np.ndarray) -> pd.DataFrame:
    """Return a table of values [x, seed]."""
    x, point = np.indices(values.shape)
    return pd.DataFrame({"x": x.ravel(), "point": point.ravel(), "y": values.ravel()})


@given(st.lists(st.lists(st.floats(-50, 50), min_size=5, max_size=5), min_size=1, max_size=4))
def test_bands_are_numpys_statistics_of_the_seeds(values: list[list[float]]) -> None:
    numbers = np.array(values)
    expected = {
        "sd": numbers.mean(1) - numbers.std(1, ddof=1),
        "iqr": np.quantile(numbers, 0.25, axis=1),
        "range": numbers.min(1),
    }
    for band, low in expected.items():
        found = bands.over_seeds(table_of(numbers), "x", "y", band)  # type: ignore[arg-type]
        np.testing.assert_allclose(found["mean"], numbers.mean(1), atol=1e-9)
        np.testing.assert_allclose(found["low"], low, atol=1e-9)
        assert (found["seeds"] == 5).all()
    assert bands.over_seeds(table_of(numbers), "x", "y", "none")["low"].isna().all()


def test_the_default_band_is_scipys_bootstrap_interval_of_the_mean() -> None:
    numbers = np.random.default_rng(1).normal(size=(3, 12)) ** 3
    found = bands.over_seeds(table_of(numbers), "x", "y")
    for row, low, high in zip(numbers, found["low"], found["high"], strict=True):
        theirs = stats.bootstrap((row,), np.mean, method="percentile", random_state=0)
        width = np.ptp(theirs.confidence_interval)
        assert (low, high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.05 * width)


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 30))
    found = bands.over_seeds(table_of(draws), "x", "y")
    covered = ((found["low"] < 0) & (found["high"] > 0)).mean()
    assert 0.91 < covered < 0.97


@pytest.mark.parametrize(("successes", "low", "high"), [(0, 0, 0.3085), (5, 0.1871, 0.8129)])
def test_success_rates_have_the_printed_intervals(successes: int, low: float, high: float) -> None:
    """Check Clopper & Pearson's limits for 10 attempts, as printed in tables of theirs."""
    assert bands.proportion_interval(successes, 10) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        (1, ""),
        (3, "Lines: means of 3 seeds, each of which is a thin line."),
        (5, "Lines: means of 5 seeds; bands: 95 % bootstrap intervals of the mean."),
    ],
)
def test_the_footnote_says_what_lines_and_bands_are(
    seeds: int, sentence: str, tmp_path: Path
) -> None:
    for seed in range(seeds):
        write_point(tmp_path / str(seed), geometric(rates=(-0.1 * (1 + seed),)), seed=seed)
    drawn = figures.decay(load_runs(tmp_path), step="first")
    assert sentence in note(drawn)
    assert ("Lines:" in note(drawn)) == (seeds > 1)
    axes = drawn.figure.axes[0]
    thin = [line for line in axes.lines if line.get_linewidth() < 0.6]
    assert len(thin) == (seeds if 1 < seeds < bands.FEW else 0)
    assert len(axes.collections) == (seeds >= bands.FEW)


# Units and colours


def test_every_figure_shows_one_unit(tmp_path: Path) -> None:
    write_point(tmp_path / "0", all_probes())
    runs = load_runs(tmp_path)
    for name in ("decay", "heatmap", "overview", "adjoint", "lyapunov", "singular_values", "views"):
        draw = getattr(figures, name)
        decades = text_of(draw(runs).figure)
        with figures.theme(unit="nats"):
            nats = text_of(draw(runs).figure)
        assert "nats" not in decades, name
        assert "nats" in nats, name
        assert "decades" not in nats, name
    with pytest.raises(ValueError, match="unit must be one of decades, nats; got 'bits'"):
        figures.theme(unit="bits").__enter__()  # type: ignore[arg-type]


def test_a_model_has_one_colour_whatever_else_is_shown() -> None:
    names = ["rnn", "lstm", "gru", "irnn", "mine", "theirs"]
    together = style.model_colours(pd.DataFrame({"model.name": names}))
    assert len({together[name] for name in names}) == len(names)
    for name in names:
        alone = style.model_colours(pd.DataFrame({"model.name": [name]}))
        assert alone[name] in (together[name], *together.values())
    alone = [style.model_colours(pd.DataFrame({"model.name": [name]}))[name] for name in names]
    assert alone[:4] == [together[name] for name in names[:4]]


def test_many_models_have_a_colour_each() -> None:
    names = [f"cell{number}" for number in range(12)]
    colours = style.model_colours(pd.DataFrame({"model.name": names}))
    assert len(set(colours.values())) == len(colours) == 15


def test_models_of_one_colour_are_no_seeds_of_each_other() -> None:
    runs = pd.DataFrame({"line": ["LRU", "sLSTM"], "colour": ["#66a61e"] * 2})
    table = pd.DataFrame({"point": [0, 1], "lag": [1, 1], "log": [2.0, 4.0]})
    drawn = curves.curves_of(runs, table, curves.Quantity("lag", "", "log", ""), "none")
    assert [curve.means().tolist() for curve in drawn] == [[2.0], [4.0]]
