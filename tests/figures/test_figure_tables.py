"""The tables of decay curves and maps hold the right numbers, and a figure the right points."""

from math import inf, nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text
from synthetic_sweeps import geometric, text_of, write_point

from gradlab import load_runs
from gradlab.figures import (
    decay_figure,
    decay_table,
    heatmap_figure,
    heatmap_table,
    selection,
    units,
)
from gradlab.figures.bands import over_seeds
from gradlab.figures.choice import ANY
from gradlab.figures.labels import level_label, log_norm_label
from gradlab.figures.layout import arrange, arrange_lines
from gradlab.figures.map_images import colour_limit, map_colours
from gradlab.figures.moments import AFTER, BEFORE


def test_decay_table_of_a_geometric_decay_has_its_slope(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(rates=(-0.5, 0.25)))
    table = decay_table(load_runs(tmp_path)).set_index(["when", "lag"])
    lags = np.arange(9)
    assert table.loc[BEFORE, "log_norm"].to_numpy() == pytest.approx(-0.5 * lags)
    assert table.loc[AFTER, "log_norm"].to_numpy() == pytest.approx(0.25 * lags)


def test_decay_table_is_relative_to_the_norm_at_lag_zero(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(start=1.7, rates=(-0.5,)))
    table = decay_table(load_runs(tmp_path))
    assert table["log_norm"].iloc[0] == pytest.approx(1.7)
    assert table["relative"].to_numpy() == pytest.approx(-0.5 * np.arange(9))


def test_tables_count_lags_and_horizons_in_time_steps_whatever_the_stride(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(64, rates=(-0.05,), stride=4), length=64)
    runs = load_runs(tmp_path)
    curve = decay_table(runs)
    assert curve["lag"].tolist() == list(range(0, 65, 4))
    assert heatmap_table(runs)["horizon"].to_numpy() == pytest.approx(20)


def test_decay_table_keeps_exact_zeros(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(reach=3, rates=(-0.2,)))
    relative = decay_table(load_runs(tmp_path))["relative"].to_numpy()
    assert relative[:4] == pytest.approx([0, -0.2, -0.4, -0.6])
    assert (relative[4:] == -inf).all()


def test_heatmap_table_holds_the_mean_of_each_pair_up_to_the_diagonal(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(4, rates=(-0.5, -0.1)))
    table = heatmap_table(load_runs(tmp_path))
    assert len(table) == 2 * 5 * 6 / 2
    assert (table["k"] <= table["t"]).all()
    rate = table["when"].map({BEFORE: -0.5, AFTER: -0.1})
    assert table["log_norm"].to_numpy() == pytest.approx(rate * (table["t"] - table["k"]), abs=1e-6)
    assert set(zip(table["when"], table["step"], strict=True)) == {(BEFORE, 0), (AFTER, 100)}
    horizons = table.groupby("when")["horizon"].first()
    assert horizons[BEFORE] == pytest.approx(2)
    assert horizons[AFTER] == inf


def test_heatmap_table_of_a_long_sequence_keeps_both_ends_and_the_whole_horizon(
    tmp_path: Path,
) -> None:
    write_point(tmp_path / "0", geometric(600, rates=(-0.7,)), length=600)
    table = heatmap_table(load_runs(tmp_path))
    assert len(table) <= 256 * 257 / 2
    assert table["t"].max() == 600
    # Read off every third lag the horizon would be that of the chord, not of the curve.
    assert table["horizon"].iloc[0] == pytest.approx(1 / 0.7)


def test_tables_name_points_by_the_index_of_the_runs(tmp_path: Path) -> None:
    for i, rate in enumerate((-0.1, -0.2, -0.3)):
        write_point(tmp_path / str(i), geometric(rates=(rate,)), gain=1.0 + i)
    runs = load_runs(tmp_path).iloc[[2, 0]]
    last = decay_table(runs).groupby("point")["relative"].last()
    assert last.to_dict() == pytest.approx({0: -0.8, 2: -2.4})


def test_a_diverged_point_has_no_map_after_training(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(rates=(0.9,)), state="diverged")
    runs = load_runs(tmp_path)
    assert set(heatmap_table(runs)["when"]) == {BEFORE}
    assert set(decay_table(runs)["when"]) == {BEFORE}


def some_zero_and_short() -> xr.Dataset:
    """Return a geometric decay; sample 0 begins with a zero step, and sample 1 ends at t = 5."""
    gradients = geometric(rates=(-0.5,))
    maps = gradients["jacobian_log_norm"].to_numpy().copy()
    maps[0, 0, 1:, 0] = -inf
    maps[0, 1, 6:] = maps[0, 1, :, 6:] = np.nan
    return gradients.assign(jacobian_log_norm=(("step", "sample", "t", "k"), maps))


def test_tables_leave_out_exact_zeros_and_what_lies_beyond_the_end(tmp_path: Path) -> None:
    write_point(tmp_path / "0", some_zero_and_short())
    runs = load_runs(tmp_path)
    spread = [-1, 0, 1]  # of the samples, from `geometric`
    table = heatmap_table(runs).set_index(["t", "k"])
    expected = {(3, 1): spread, (3, 0): spread[1:], (7, 1): spread[::2], (7, 0): spread[2:]}
    for (t, k), samples in expected.items():
        assert table.loc[(t, k), "log_norm"] == pytest.approx(-0.5 * (t - k) + np.mean(samples))
    assert table.loc[(3, 0), "zero_share"] == pytest.approx(1 / 3)
    assert table.loc[(7, 0), "zero_share"] == pytest.approx(1 / 2)
    curve = decay_table(runs)
    assert curve["zero_share"].iloc[0] == pytest.approx(8 / (36 + 15 + 36))
    ends = np.array([8, 5, 8])
    for lag in range(1, 9):
        counts = np.maximum(ends - lag + 1, 0) - [1, 0, 0]
        mean = -0.5 * lag + counts @ spread / counts.sum()
        assert curve["log_norm"][lag] == pytest.approx(mean)
    for draw, sentence in (
        (heatmap_figure, "Colours are means over the samples whose product is not exactly zero"),
        (decay_figure, "at most 9.2% of a map's pairs"),
    ):
        figure = draw(runs).figure
        assert any(sentence in text.get_text().replace("\n", " ") for text in figure.findobj(Text))


def test_a_mean_ends_where_a_seed_has_no_value_or_is_zero() -> None:
    """Of five seeds one is zero from x = 2 on, all are at 4, and one has no value at 1."""
    values = np.arange(25.0).reshape(5, 5)
    values[2:, 0] = values[4] = -inf
    values[1, 3] = np.nan
    x, point = np.indices(values.shape)
    table = pd.DataFrame({"x": x.ravel(), "point": point.ravel(), "y": values.ravel()})
    band = over_seeds(table, "x", "y")
    assert band["mean"].tolist() == pytest.approx([2, nan, nan, nan, -inf], nan_ok=True)
    assert band["seeds"].tolist() == [5, 4, 4, 4, 0]
    assert band["low"].notna().tolist() == [True, False, False, False, False]


# Which points a figure shows


def test_varying_keys_leave_out_keys_that_others_determine() -> None:
    runs = pd.DataFrame(
        {
            "seed": [0, 1, 0, 1],
            "probe.samples": [1, 2, 3, 4],
            "clip.threshold": [inf, inf, 1.0, 1.0],
            "model.cell._target_": ["a", "b", "a", "b"],
            "model.name": ["rnn", "lstm", "rnn", "lstm"],
            "task.length": [8, 8, 8, 8],
            "init.gain": [np.nan, np.nan, 1.0, 1.0],
            "wandb.tags": ["x", "y", "z", "w"],
            "jacobian/decay_rate": [1.0, 2.0, 3.0, 4.0],
            "verdict": ["a", "b", "c", "d"],
            "path": ["0", "1", "2", "3"],
        }
    )
    assert selection.varying_keys(runs) == [
        "model.name",
        "init.gain",
        "clip.threshold",
        "probe.samples",
        "seed",
    ]


@pytest.mark.parametrize(
    ("thresholds", "keys"),
    [
        ([1.05, 1.05, 2.5, 2.5], ["clip._target_"]),  # one of each rule
        ([np.nan, np.nan, 2.5, 2.5], ["clip._target_"]),  # a rule without a threshold
        ([0.1, 1.0, 0.1, 1.0], ["clip.threshold", "clip._target_"]),
        ([0.1, 1.0, 2.0, 3.0], ["clip.threshold"]),  # tells the rule too
    ],
)
def test_rules_are_named_by_their_function_if_that_has_one_threshold(
    thresholds: list[float], keys: list[str]
) -> None:
    rules = ["adagc", "adagc", "zclip", "zclip"]
    runs = pd.DataFrame({"clip.threshold": thresholds, "clip._target_": rules})
    assert selection.varying_keys(runs) == keys


def test_arrange_pins_the_last_keys_to_the_longest_sequence_and_no_clipping(
    tmp_path: Path,
) -> None:
    configs = [(m, n, c) for m in ("rnn", "lstm") for n in (8, 16) for c in (inf, 1.0)]
    for i, (model, length, threshold) in enumerate(configs):
        write_point(tmp_path / str(i), None, model=model, length=length, threshold=threshold)
    runs = load_runs(tmp_path)
    grid = arrange_lines(runs, ANY._replace(hue="seed"), panels=2, lines=1)
    assert grid.group_keys == ["model.name"]
    assert set(grid.runs["task.length"]) == {16}
    assert set(grid.runs["clip.threshold"]) == {inf}


def test_arrange_spreads_numbers_over_their_range() -> None:
    runs = pd.DataFrame({"init.gain": np.linspace(0, 2, 21)})
    grid = arrange(runs, "init.gain", [], levels=3, groups=1)
    assert grid.runs["init.gain"].tolist() == [0, 1, 2]


def test_curves_are_means_over_seeds(tmp_path: Path) -> None:
    for seed, rate in enumerate((-0.1, -0.3)):
        for i, gain in enumerate((1.0, 2.0)):
            folder = tmp_path / f"{seed}{i}"
            write_point(folder, geometric(rates=(rate,)), gain=gain, seed=seed)
    figure = decay_figure(load_runs(tmp_path)).figure
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 9]
    slopes = sorted(round(float(np.asarray(line.get_ydata())[-1]) / 8, 4) for line in curves)
    assert slopes == 2 * [-0.3] + 2 * [-0.2] + 2 * [-0.1]  # of two gains: two seeds, their mean
    assert [line.get_linewidth() > 1 for line in curves].count(True) == 2
    assert "Lines: means of 2 seeds, each of which is a thin line." in text_of(figure)


def test_exact_zeros_show_the_hatching_and_missing_values_are_white() -> None:
    colours = map_colours(np.array([[0.0, np.nan], [-inf, 1.0]]), limit=1.0)
    blank, hatching = colours[0, 1], colours[1, 0]
    assert blank.tolist() == [1, 1, 1, 1]
    assert hatching.tolist() == [0, 0, 0, 0]
    above, zero = colours[1, 1], colours[0, 0]
    assert above[0] > above[2]
    assert zero[0] == pytest.approx(zero[2], abs=0.05)


def test_colours_end_where_the_values_do_but_within_two_decades_or_five_nats() -> None:
    tables = [pd.DataFrame({"log_norm": x}) for x in ([0.0, -2.4, -inf], [0.0, -40.0], [-inf] * 2)]
    assert [colour_limit(table) / np.log(10) for table in tables] == pytest.approx([2, 2, 1])
    with units.shown_in("nats"):
        assert [colour_limit(table) for table in tables] == [3, 5, 1]


def test_labels() -> None:
    assert level_label("init.gain", 0.5) == "gain 0.5"
    assert level_label("clip.threshold", inf) == "clip threshold none"
    assert level_label("model.name", "lstm") == "LSTM"
    assert level_label("model.name", "MyCell") == "MyCell"
    assert level_label("init._target_", "gradlab.initialisers.orthogonal") == "orthogonal"
    assert level_label("tbptt.window", np.nan) == "window none"
    assert level_label("model.cell.forget_gate", np.nan) == "forget gate learned"
    assert level_label("model.cell.refine_gate", np.nan) == "refine gate none"
    assert log_norm_label("spectral", "c", None).count("c^{(t)}") == 1
    assert "s^{(k)}" in log_norm_label("spectral", "c", None)
    assert r"\mathrm{layer0.h}" in log_norm_label("spectral", "layer0.h", None)
    MathTextParser("path").parse(log_norm_label("spectral", "}$a_", "\\bad{é"))  # is a formula
    assert level_label("model.name", "n" * 99) == "n" * 59 + "…"
