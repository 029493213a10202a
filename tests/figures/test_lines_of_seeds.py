"""What lines over seeds show where seeds end, are exactly zero, diverged or have a single x."""

from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from synthetic_sweeps import all_probes, geometric, metrics_with, note, write_point

from gradlab import figures, load_runs
from gradlab.figures import curves, style


def lines_of(axes: Axes) -> tuple[list[Line2D], list[Line2D]]:
    """Return the lines of means, without marks, and those of single seeds."""
    lines = [line for line in axes.lines if len(xs(line)) > 1 and line.get_color() != style.GREY]
    thin = [line for line in lines if line.get_linewidth() < 0.6]
    return [line for line in lines if line not in thin], thin


def xs(line: Line2D) -> list[float]:
    """Return the x at which a line is drawn."""
    x, y = (np.asarray(data, float) for data in (line.get_xdata(), line.get_ydata()))
    return x[np.isfinite(x + y)].tolist()


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_line_ends_where_the_first_of_its_seeds_is_zero(seeds: int, tmp_path: Path) -> None:
    for seed in range(seeds):
        reach = 3 if seed == 1 else inf
        maps = geometric(rates=(-0.1 - 0.1 * seed,), reach=reach)
        write_point(tmp_path / str(seed), maps, seed=seed)
    drawn = figures.decay(load_runs(tmp_path), step="first")
    (axes,) = drawn.figure.axes
    (mean,), thin = lines_of(axes)
    assert xs(mean) == [0, 1, 2, 3]
    first = 3 if seeds >= 4 else 0  # fewer than four seeds are thin lines all along
    assert [xs(line) for line in thin if max(xs(line)) > 3] == [list(range(first, 9))] * (seeds - 1)
    for area in axes.collections:
        assert area.get_paths()[0].vertices[:, 0].max() == 3
    assert len(axes.collections) == (seeds >= 4)
    assert f"Exactly zero at some lag from 4 to 8: 1 of {seeds} runs (seed 1)." in note(drawn)
    assert "A line ends where a seed is zero" in note(drawn)
    assert set(drawn.table.loc[drawn.table["zero"], "lag"]) == {4, 5, 6, 7, 8}


def test_a_horizon_is_marked_only_where_the_line_is(tmp_path: Path) -> None:
    """The mean falls to 1/e at lag 5, where its line has ended."""
    for seed in range(4):
        maps = geometric(rates=(-0.2,), reach=inf if seed else 3)
        write_point(tmp_path / str(seed), maps, seed=seed)
    (axes,) = figures.decay(load_runs(tmp_path), step="first").figure.axes
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert [x for mark in marks for x in xs(mark)] == []


def test_exponents_of_minus_infinity_are_counted_and_named(tmp_path: Path) -> None:
    for seed in range(4):
        probes = all_probes()
        if seed == 2:
            lost = probes["exponent"] > 2
            probes["lyapunov_exponent"] = probes["lyapunov_exponent"].where(~lost, -inf)
        write_point(tmp_path / str(seed), probes, seed=seed)
    drawn = figures.lyapunov(load_runs(tmp_path))
    assert "−∞ at some index from 3 to 4: 1 of 4 runs (seed 2)." in note(drawn)


def test_an_error_of_truncation_that_is_zero_counts_in_the_mean(tmp_path: Path) -> None:
    for seed in range(2):
        probes = all_probes()
        error = probes["contribution_relative_error"]
        probes["contribution_relative_error"] = error * (seed == 0)
        write_point(tmp_path / str(seed), probes, seed=seed)
    drawn = figures.contributions(load_runs(tmp_path), step="first")
    (mean,), _ = lines_of(drawn.figure.axes[1])
    expected = np.log((1 - np.arange(1, 8) / 8) / 2)
    np.testing.assert_allclose(np.asarray(mean.get_ydata(), float), expected, rtol=1e-6)


def test_a_gradient_that_is_zero_has_no_shares(tmp_path: Path) -> None:
    for seed in range(3):
        probes = all_probes()
        if seed == 1:
            probes["contribution_share"] *= 0
            probes["contribution_relative_error"] *= np.nan
        write_point(tmp_path / str(seed), probes, seed=seed)
    drawn = figures.contributions(load_runs(tmp_path), step="first")
    (mean,), _ = lines_of(drawn.figure.axes[0])
    assert np.asarray(mean.get_ydata(), float).sum() == pytest.approx(1)
    assert "Lines: means of 2 seeds" in note(drawn)


def test_singular_values_fall_where_only_some_samples_have_the_small_ones(tmp_path: Path) -> None:
    probes = all_probes()
    log_values = probes["singular_values_log"]
    lost = (log_values["index"] > 2) & (log_values["sample"] > 0)
    larger = log_values + 9 * (log_values["sample"] == 0)
    probes["singular_values_log"] = larger.where(~lost).transpose(*log_values.dims)
    write_point(tmp_path, probes)
    table = figures.singular_values(load_runs(tmp_path), step="first").table
    for _, values in table.groupby("lag")["log_value"]:
        assert np.isfinite(values).tolist() == [True, True, False, False]


# Runs that diverged


def diverging(folder: Path) -> pd.DataFrame:
    """Write five seeds, of which number 3 diverges."""
    for seed in range(5):
        losses = [3.0, 40.0] if seed == 3 else [3.0, 2.0, 1.0, 0.5]
        state, rates = ("diverged", (-0.1,)) if seed == 3 else ("done", (-0.1, -0.2))
        metrics = metrics_with(losses)
        maps = geometric(rates=rates)
        write_point(folder / str(seed), maps, state=state, seed=seed, metrics=metrics)
    return load_runs(folder)


def test_a_run_that_diverged_is_a_thin_line_beside_the_mean_of_the_others(tmp_path: Path) -> None:
    drawn = figures.training(diverging(tmp_path), metric=["eval/loss"])
    (axes,) = drawn.figure.axes
    (mean,), (thin,) = lines_of(axes)
    np.testing.assert_allclose(np.asarray(mean.get_ydata(), float), np.log([3, 2, 1, 0.5]))
    np.testing.assert_allclose(np.asarray(thin.get_ydata(), float), np.log([3, 40]))
    assert "Lines: means of 4 seeds" in note(drawn)
    assert "Thin, not in the means: 1 of 5 runs (1 diverged)." in note(drawn)


def test_where_all_runs_diverged_there_is_no_mean(tmp_path: Path) -> None:
    for seed in range(4):
        rows = metrics_with([3.0, 40.0 + seed])
        write_point(tmp_path / str(seed), None, state="diverged", seed=seed, metrics=rows)
    drawn = figures.training(load_runs(tmp_path), metric=["eval/loss"])
    means, thin = lines_of(drawn.figure.axes[0])
    assert not means
    assert len(thin) == 4
    assert "Thin, not in the means: 4 of 4 runs (4 diverged)." in note(drawn)
    assert "means of" not in note(drawn)


@pytest.mark.parametrize("draw", [figures.decay, figures.overview])
def test_lines_after_training_say_how_many_runs_diverged(draw: Any, tmp_path: Path) -> None:
    text = note(draw(diverging(tmp_path)))
    assert "Lines: means of 4 to 5 seeds" in text
    assert "Missing from lines after training: 1 of 5 runs (1 diverged)." in text


def test_a_moment_that_only_diverged_runs_lack_is_refused_with_the_reason(tmp_path: Path) -> None:
    runs = diverging(tmp_path)
    with pytest.raises(ValueError, match=r"after training \(1 diverged\); --step first shows"):
        figures.decay(runs, where={"seed": 3}, step="last")


# Runs of one x, and without a measurement


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        (3, "Dots: means of 3 seeds, each of which is a small dot."),
        (5, "Dots: means of 5 seeds; bars: 95 % bootstrap intervals of the mean."),
    ],
)
def test_a_mean_at_one_step_is_a_dot_with_its_spread(
    seeds: int, sentence: str, tmp_path: Path
) -> None:
    for seed in range(seeds):
        metrics = metrics_with([1.0 + seed]).drop(columns="train/loss")
        write_point(tmp_path / str(seed), None, seed=seed, metrics=metrics)
    drawn = figures.training(load_runs(tmp_path))
    assert sentence in note(drawn)
    (axes,) = drawn.figure.axes
    shown = [float(y) for line in axes.lines for y in np.asarray(line.get_ydata(), float)]
    if seeds < 4:
        assert sorted(shown) == pytest.approx(np.log([1, 2, 2, 3]))
    else:
        (bar,) = axes.collections
        (low, _), (high, _) = bar.get_paths()[0].vertices[:, ::-1]
        assert shown == pytest.approx([np.log(3)])
        assert low < np.log(3) < high


@pytest.mark.parametrize("draw", [figures.adjoint, figures.decay, figures.overview])
def test_points_that_lack_the_probe_are_named_with_it(draw: Any, tmp_path: Path) -> None:
    variable = "adjoint_log_norm" if draw is figures.adjoint else "jacobian_log_norm"
    for seed in range(3):
        probes = all_probes()
        probes = probes.drop_vars(variable) if seed == 1 else probes
        write_point(tmp_path / str(seed), probes, seed=seed)
    drawn = draw(load_runs(tmp_path))
    assert set(drawn.table["point"]) == {0, 2}
    probe = "spectral,adjoint" if draw is figures.adjoint else "spectral"
    sentence = f"Not measured: seed 1 (done). To measure {variable}: run with probe=[{probe}]."
    assert sentence in note(drawn)


def test_a_line_goes_on_where_only_other_runs_logged() -> None:
    steps = {0: [0, 10, 20, 30], 1: [0, 10, 15, 20]}
    rows = [{"point": point, "step": x, "value": 1.0} for point in steps for x in steps[point]]
    quantity = curves.Quantity("step", "step", "value", "value")
    curve = curves.curve_of(pd.DataFrame(rows), quantity, "none", "black")
    axes = style.new_figure(3, 2)[1].subplots()
    curves.draw_curve(axes, curve, "none")
    assert list(axes.lines[0].get_xdata()) == [0, 10, 20]
