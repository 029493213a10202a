"""Figures: the tables hold the right numbers, and any sweep can be drawn."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from time import sleep

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

from gradlab import load_gradients, load_runs, records
from gradlab.figures import (
    decay_figure,
    decay_table,
    heatmap_figure,
    heatmap_table,
    overview_figure,
    point_figure,
    points,
    save,
    style,
)
from gradlab.figures.labels import level_label, quantity_label
from gradlab.figures.maps import colour_limit, map_colours

ANALYSIS = Path(__file__).parent.parent / "analysis"
FIGURES = [heatmap_figure, decay_figure, overview_figure]
SAMPLES = 3


def geometric(
    length: int = 8,
    rates: tuple[float, ...] = (-0.5, -0.1),
    *,
    reach: float = inf,
    start: float = 0.0,
    stride: int = 1,
) -> xr.Dataset:
    """Maps whose log norm is start + rate · lag, exactly zero beyond a lag, at steps 0, 100, ….

    The samples differ by amounts that cancel in their mean.
    """
    t = np.arange(0, length + 1, stride)
    lag = t[:, None] - t[None, :]
    spread = np.linspace(-1, 1, SAMPLES)[:, None, None] * (lag > 0)
    maps = np.stack([start + rate * lag + spread for rate in rates])
    maps = np.where((lag < 0) | (lag > reach), -np.inf, maps).astype(np.float32)
    attributes = {"units": "nats", "norm": "spectral", "of": "h", "wrt": "h"}
    return xr.Dataset(
        {"jacobian_log_norm": (("step", "sample", "t", "k"), maps, attributes)},
        coords={"step": 100 * np.arange(len(rates)), "t": t, "k": t},
    )


def write_point(
    folder: Path,
    gradients: xr.Dataset | None,
    *,
    state: str = "done",
    model: str = "rnn",
    gain: float | None = 1.0,
    length: int = 8,
    threshold: float = inf,
    seed: int = 0,
    **task: object,
) -> None:
    cells = {"rnn": "flax.nnx.SimpleCell", "lstm": "flax.nnx.OptimizedLSTMCell"}
    config = {
        "model": {"name": model, "cell": {"_target_": cells.get(model, f"their.{model}")}},
        "init": {"_target_": "gradlab.initialisers.gaussian", "gain": gain},
        "task": {"length": length, **task},
        "clip": {"threshold": threshold},
        "probe": {"norm": "spectral", "of": "h", "wrt": "h"},
        "wandb": {"tags": ["a", str(folder)]},
        "seed": seed,
    }
    summary = {"jacobian/decay_rate": -0.1 * seed, "verdict": state}
    records.save_config(folder, config)
    records.save_status(folder, {"state": state, "summary": summary})
    if gradients is not None:
        records.save_gradients(folder, gradients)


def written(figure: Figure) -> str:
    """Every text in a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(match=_is_text))


def _is_text(artist: object) -> bool:
    return hasattr(artist, "get_text")


# Tables


def test_decay_table_of_a_geometric_decay_has_its_slope(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(rates=(-0.5, 0.25)))
    table = decay_table(load_runs(tmp_path)).set_index(["when", "lag"])
    lags = np.arange(9)
    assert table.loc["before", "log_norm"].to_numpy() == pytest.approx(-0.5 * lags)
    assert table.loc["after", "log_norm"].to_numpy() == pytest.approx(0.25 * lags)


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
    rate = table["when"].map({"before": -0.5, "after": -0.1})
    assert table["log_norm"].to_numpy() == pytest.approx(rate * (table["t"] - table["k"]), abs=1e-6)
    assert set(zip(table["when"], table["step"], strict=True)) == {("before", 0), ("after", 100)}
    horizons = table.groupby("when")["horizon"].first()
    assert horizons["before"] == pytest.approx(2)
    assert horizons["after"] == inf


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
    assert set(heatmap_table(runs)["when"]) == {"before"}
    assert set(decay_table(runs)["when"]) == {"before"}


# What a figure shows


def test_axes_are_the_config_keys_that_vary_without_those_that_follow_from_others() -> None:
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
    assert points.axes_of(runs) == [
        "model.name",
        "init.gain",
        "clip.threshold",
        "probe.samples",
        "seed",
    ]


def test_arrange_pins_the_last_axes_to_the_longest_sequence_and_no_clipping(
    tmp_path: Path,
) -> None:
    grid = [(m, n, c) for m in ("rnn", "lstm") for n in (8, 16) for c in (inf, 1.0)]
    for i, (model, length, threshold) in enumerate(grid):
        write_point(tmp_path / str(i), None, model=model, length=length, threshold=threshold)
    runs = load_runs(tmp_path)
    shown = points.arrange(runs, None, points.axes_of(runs), columns=1, rows=2)
    assert shown.down == ["model.name"]
    assert set(shown.runs["task.length"]) == {16}
    assert set(shown.runs["clip.threshold"]) == {inf}


def test_arrange_spreads_numbers_over_their_range() -> None:
    runs = pd.DataFrame({"init.gain": np.linspace(0, 2, 21)})
    shown = points.arrange(runs, "init.gain", [], columns=3, rows=1)
    assert shown.runs["init.gain"].tolist() == [0, 1, 2]


def test_curves_are_means_over_seeds(tmp_path: Path) -> None:
    for seed, rate in enumerate((-0.1, -0.3)):
        for i, gain in enumerate((1.0, 2.0)):
            folder = tmp_path / f"{seed}{i}"
            write_point(folder, geometric(rates=(rate,)), gain=gain, seed=seed)
    figure = decay_figure(load_runs(tmp_path))
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 9]
    assert len(curves) == 2
    assert np.asarray(curves[0].get_ydata()) == pytest.approx(-0.2 * np.arange(9))


def test_exact_zeros_show_the_hatching_and_what_is_not_measured_is_blank() -> None:
    colours = map_colours(np.array([[0.0, np.nan], [-inf, 1.0]]), limit=1.0)
    blank, hatching = colours[0, 1], colours[1, 0]
    assert blank.tolist() == [1, 1, 1, 1]
    assert hatching.tolist() == [0, 0, 0, 0]
    above, zero = colours[1, 1], colours[0, 0]
    assert above[0] > above[2]
    assert zero[0] == pytest.approx(zero[2], abs=0.05)


def test_colours_end_where_the_values_do_but_within_five_nats() -> None:
    assert colour_limit(pd.DataFrame({"log_norm": [0.0, -2.3, -inf]})) == 3
    assert colour_limit(pd.DataFrame({"log_norm": [0.0, -40.0]})) == 5
    assert colour_limit(pd.DataFrame({"log_norm": [-inf, -inf]})) == 1


def test_labels() -> None:
    assert level_label("init.gain", 0.5) == "gain 0.5"
    assert level_label("clip.threshold", inf) == "clip threshold none"
    assert level_label("model.name", "lstm") == "LSTM"
    assert level_label("model.name", "MyCell") == "MyCell"
    assert level_label("init._target_", "gradlab.initialisers.orthogonal") == "orthogonal"
    assert level_label("tbptt.window", np.nan) == "window none"
    assert quantity_label("spectral", "c", None).count("c^{(t)}") == 1
    assert "s^{(k)}" in quantity_label("spectral", "c", None)


# Every sweep can be drawn


def _single(folder: Path) -> None:
    write_point(folder / "0", geometric())


def _one_step(folder: Path) -> None:
    write_point(folder / "0", geometric(1), length=1)


def _nothing_but_zeros(folder: Path) -> None:
    write_point(folder / "0", geometric(reach=0))


def _lengths(folder: Path) -> None:
    for i, length in enumerate((4, 8, 16)):
        write_point(folder / str(i), geometric(length), length=length)


def _failed_and_diverged(folder: Path) -> None:
    write_point(folder / "0", geometric(), gain=1.0)
    write_point(folder / "1", None, gain=2.0, state="failed")
    write_point(folder / "2", geometric(rates=(0.9,)), gain=3.0, state="diverged")


def _all_diverged(folder: Path) -> None:
    for i in range(2):
        write_point(folder / str(i), geometric(rates=(0.9,)), gain=1.0 + i, state="diverged")


def _ragged(folder: Path) -> None:
    write_point(folder / "0", geometric(), gain=None, delays=[1, 2])
    write_point(folder / "1", geometric(16), model="Their", gain=0.1, length=16, delays=[3])


def _seeds(folder: Path) -> None:
    for seed in range(3):
        write_point(folder / str(seed), geometric(), seed=seed)


def _many(folder: Path) -> None:
    for i in range(28):
        model, gain = ("rnn", "lstm", "gru", "Their")[i % 4], 0.1 * (i // 4)
        write_point(folder / str(i), geometric(4), model=model, gain=gain)


SWEEPS: list[Callable[[Path], None]] = [
    _single,
    _one_step,
    _nothing_but_zeros,
    _lengths,
    _failed_and_diverged,
    _all_diverged,
    _ragged,
    _seeds,
    _many,
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_figure_of_every_sweep_has_units_and_nothing_cut_off(
    sweep: Callable[[Path], None], draw: Callable[[pd.DataFrame], Figure], tmp_path: Path
) -> None:
    sweep(tmp_path)
    figure = draw(load_runs(tmp_path))
    text = written(figure)
    assert "(nats)" in text
    assert "steps)" in text
    assert save(figure, tmp_path / "figure.png").stat().st_size < 1_000_000
    edges = figure.get_tightbbox().padded(-0.02)  # inches: the layout is good to three pixels
    assert edges.x0 >= 0
    assert edges.y0 >= 0
    assert edges.x1 <= figure.get_figwidth()
    assert edges.y1 <= figure.get_figheight()


@pytest.mark.parametrize("draw", FIGURES)
def test_points_without_maps_are_named(
    draw: Callable[[pd.DataFrame], Figure], tmp_path: Path
) -> None:
    _failed_and_diverged(tmp_path)
    assert "Without a map: gain 2 (failed)." in written(draw(load_runs(tmp_path)))


@pytest.mark.parametrize("draw", FIGURES)
def test_a_figure_says_what_it_leaves_out(
    draw: Callable[[pd.DataFrame], Figure], tmp_path: Path
) -> None:
    _many(tmp_path)
    note = written(draw(load_runs(tmp_path))).split("Shown: ")[1]
    assert "of 28 points" in note
    assert "of 7 values of gain" in note


@pytest.mark.parametrize("draw", FIGURES)
def test_a_sweep_without_maps_is_refused_in_a_sentence(
    draw: Callable[[pd.DataFrame], Figure], tmp_path: Path
) -> None:
    write_point(tmp_path / "0", None, state="failed")
    with pytest.raises(ValueError, match="none of the 1 points has a gradient map"):
        draw(load_runs(tmp_path))


def test_point_figure_says_when_the_maps_were_measured(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric())
    text = written(point_figure(load_gradients(tmp_path / "0"), "LSTM, gain 1"))
    assert "LSTM, gain 1" in text
    assert "before training (step 0)" in text
    assert "after training (step 100)" in text
    assert "(nats)" in text


def test_threads_draw_one_at_a_time_because_the_theme_is_global() -> None:
    drawing: list[None] = []

    def draw(_: int) -> int:
        with style.theme():
            drawing.append(None)
            together = len(drawing)
            sleep(0.01)
            drawing.pop()
            return together

    before = dict(matplotlib.rcParams)
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(draw, range(8))) == {1}
    assert dict(matplotlib.rcParams) == before


def test_threads_draw_the_same_figure(tmp_path: Path) -> None:
    gradients = geometric()

    def draw(name: str) -> bytes:
        return save(point_figure(gradients, "a point"), tmp_path / f"{name}.png").read_bytes()

    with ThreadPoolExecutor(2) as threads:
        assert len(set(threads.map(draw, "abcd"))) == 1


# Scripts


def run_script(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ANALYSIS / script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", ["heatmap.py", "decay.py"])
def test_script_draws_a_png_and_says_where(script: str, tmp_path: Path) -> None:
    _single(tmp_path)
    done = run_script(script, tmp_path)
    figure = tmp_path / f"{script.removesuffix('.py')}.png"
    assert done.stdout.strip() == str(figure)
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_heatmap_script_draws_one_step_in_the_format_asked_for(tmp_path: Path) -> None:
    _single(tmp_path)
    out = tmp_path / "new" / "map.svg"
    done = run_script("heatmap.py", tmp_path, "--out", out, "--step", "last")
    assert done.returncode == 0, done.stderr
    assert "after training" in out.read_text()
    assert "before training" not in out.read_text()


@pytest.mark.parametrize("script", ["heatmap.py", "decay.py"])
def test_script_refuses_a_folder_without_runs_in_one_sentence(script: str, tmp_path: Path) -> None:
    done = run_script(script, tmp_path / "nowhere")
    assert done.returncode != 0
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
