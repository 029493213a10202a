"""Every sweep can be drawn, nothing is cut off, and a note says which points are left out."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import Any

import hypothesis.strategies as st
import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from synthetic_sweeps import all_probes, geometric, metrics_with, text_of, write_point

from gradlab import figures, load_runs
from gradlab.figures import (
    decay_figure,
    heatmap_figure,
    overview_figure,
    phase_figure,
    save,
    style,
    views_figure,
    views_table,
)
from gradlab.figures.line_breaks import filled
from gradlab.figures.map_images import map_pixels
from gradlab.figures.style import Drawn

FIGURES = [heatmap_figure, decay_figure, overview_figure]


# Sweeps


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


def _hostile(folder: Path) -> None:
    names = ("a$b$", r"$\bad{$ \frac", "\a\n\u202e\U0001f600\t$", "long " * 100, "<b>&{x}%s\\$")
    for i, name in enumerate(names):
        write_point(folder / str(i), geometric(), model=name, gain=1.0 + i % 2, seed=i)


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
    _hostile,
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_figure_of_every_sweep_has_units_and_nothing_cut_off(
    sweep: Callable[[Path], None], draw: Callable[[pd.DataFrame], Drawn], tmp_path: Path
) -> None:
    sweep(tmp_path)
    figure = draw(load_runs(tmp_path)).figure
    text = text_of(figure)
    assert "norm" in text
    assert "steps)" in text
    assert save(figure, tmp_path / "figure.png").stat().st_size < 1_000_000
    edges = figure.get_tightbbox().padded(-0.02)  # inches: the layout is good to three pixels
    assert edges.x0 >= 0
    assert edges.y0 >= 0
    assert edges.x1 <= figure.get_figwidth()
    assert edges.y1 <= figure.get_figheight()


@pytest.mark.parametrize("draw", FIGURES)
def test_points_without_maps_are_named(
    draw: Callable[[pd.DataFrame], Drawn], tmp_path: Path
) -> None:
    _failed_and_diverged(tmp_path)
    assert "Not measured: gain 2 (failed)." in text_of(draw(load_runs(tmp_path)).figure)


@pytest.mark.parametrize("draw", FIGURES)
def test_damaged_points_and_pooled_sweeps_are_named(
    draw: Callable[[pd.DataFrame], Drawn], tmp_path: Path
) -> None:
    for i in range(3):
        write_point(tmp_path / str(i), geometric(), gain=1.0 + i)
    runs = load_runs(tmp_path)
    damaged = {"path": runs["path"][2], "status": "damaged", "reason": "edited"}
    runs = pd.concat([runs[:2], pd.DataFrame([damaged])], ignore_index=True)
    drawn = draw(runs.assign(sweep=["reach/today", "reach/tomorrow", "reach/today"]))
    assert set(drawn.table["point"]) == {0, 1}
    text = text_of(drawn.figure).replace("\n", " ")
    assert "Points of 2 sweeps are pooled. One alone: --where sweep=reach/today." in text
    assert "Not measured: 2 (damaged)." in text
    with pytest.raises(ValueError, match="records of all 1 points are damaged"):
        draw(runs[2:])


@pytest.mark.parametrize("draw", FIGURES)
def test_a_figure_says_what_it_leaves_out(
    draw: Callable[[pd.DataFrame], Drawn], tmp_path: Path
) -> None:
    _many(tmp_path)
    note = text_of(draw(load_runs(tmp_path)).figure).split("Shown: ")[1]
    assert "of 28 points" in note
    assert "of 7 values of gain" in note


@pytest.mark.parametrize("draw", FIGURES)
def test_a_sweep_without_maps_is_refused_in_a_sentence(
    draw: Callable[[pd.DataFrame], Drawn], tmp_path: Path
) -> None:
    write_point(tmp_path / "0", None, state="failed")
    with pytest.raises(ValueError, match="none of the 1 points has a gradient map"):
        draw(load_runs(tmp_path))


def test_threads_draw_one_at_a_time_because_the_theme_is_global() -> None:
    drawing: list[None] = []

    def draw(_: int) -> int:
        with style.theme():
            drawing.append(None)
            threads_drawing = len(drawing)
            sleep(0.01)
            drawing.pop()
            return threads_drawing

    before = dict(matplotlib.rcParams)
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(draw, range(8))) == {1}
    assert dict(matplotlib.rcParams) == before


def test_threads_draw_the_same_figure(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric())
    runs = load_runs(tmp_path)

    def draw(name: str) -> bytes:
        return save(heatmap_figure(runs).figure, tmp_path / f"{name}.png").read_bytes()

    with ThreadPoolExecutor(2) as threads:
        assert len(set(threads.map(draw, "abcd"))) == 1


def test_no_setting_of_matplotlib_changes_a_figure(tmp_path: Path) -> None:
    write_point(tmp_path / "0", all_probes())
    runs = load_runs(tmp_path)
    drawing = (heatmap_figure, overview_figure, views_figure, phase_figure)

    def draw() -> list[bytes]:
        paths = [save(draw(runs).figure, tmp_path / f"{i}.png") for i, draw in enumerate(drawing)]
        return [path.read_bytes() for path in paths]

    plain = draw()
    settings: dict[Any, Any] = {  # as a matplotlibrc of the working folder may have them
        "image.origin": "lower",
        "image.interpolation": "bicubic",
        "text.usetex": True,
        "text.latex.preamble": r"\input{secret}",
        "axes.grid.axis": "x",
        "lines.antialiased": False,
        "savefig.bbox": "tight",
        "savefig.dpi": 40,
        "savefig.facecolor": "red",
        "figure.constrained_layout.wspace": 0.5,
    }
    with matplotlib.rc_context(settings):
        assert draw() == plain


@pytest.mark.parametrize(("reach", "dots"), [(0, 0), (1, 0), (3, 1), (np.inf, 1)])
def test_a_curve_has_a_dot_where_it_falls_to_its_horizon(
    reach: float, dots: int, tmp_path: Path
) -> None:
    write_point(tmp_path / "0", geometric(rates=(-0.5,), reach=reach))  # at 1/e at lag 2
    figure = overview_figure(load_runs(tmp_path)).figure
    (curves,) = [axes for axes in figure.axes if "lag 0" in axes.get_ylabel()]
    assert [line.get_marker() for line in curves.lines].count("o") == dots
    assert ("above 1/e has no dot" in text_of(figure)) == (reach < 8)


def test_a_map_of_nothing_but_zeros_has_no_horizon(tmp_path: Path) -> None:
    maps = geometric()
    zeros = maps.assign(jacobian_log_norm=maps["jacobian_log_norm"] * 0 - np.inf)
    write_point(tmp_path / "0", zeros)
    text = text_of(heatmap_figure(load_runs(tmp_path)).figure)
    assert "exactly\nzero" in text
    assert "> 8" not in text


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (["rnn"], "Theory: mean field of a tanh layer."),
        (["lstm"], "Theory: E ln f of a forget gate f."),
        (["rnn", "lstm"], "Theory: mean field of a tanh layer; E ln f of a forget gate f."),
    ],
)
def test_the_note_on_theory_names_what_is_drawn(
    models: list[str], said: str, tmp_path: Path
) -> None:
    theories = {"rnn": "mean field", "lstm": "mean log forget"}
    for model, theory in theories.items():
        write_point(tmp_path / model, all_probes().assign_coords(theory=[theory]), model=model)
    drawn = decay_figure(load_runs(tmp_path), where={"model.name": models})
    assert said in text_of(drawn.figure).replace("\n", " ")
    assert set(drawn.table["theory_name"]) == {theories[model] for model in models}


@given(st.text("ab _-.$", max_size=60), st.integers(4, 20))
def test_lines_keep_every_letter_and_no_line_is_too_long(words: str, letters: int) -> None:
    text = style.literal(words)
    lines = filled(text, letters).split("\n")
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(not line.endswith("\\") for line in lines)  # "\\$" stays whole
    assert max(len(line.replace("\\", "")) for line in lines) <= letters


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("gain 1, orthogonal", ["gain 1,", "orthogonal"]),
        ("of residual_network_x", ["of", "residual_", "network_x"]),
        ("of residual_net", ["of", "residual_", "net"]),
        ("abcdefghijklmnop", ["abcdefghij", "klmnop"]),
        ("", [""]),
    ],
)
def test_long_names_break_at_their_seams(text: str, lines: list[str]) -> None:
    assert filled(text, 10).split("\n") == lines


def test_entries_lost_to_rounding_are_hatched_and_named(tmp_path: Path) -> None:
    gradients = geometric()
    flags = (gradients["jacobian_log_norm"] * 0).fillna(0).astype("int8")
    flags[..., 6:, :2] = 1
    write_point(tmp_path / "plain" / "0", gradients)
    write_point(tmp_path / "lost" / "0", gradients.assign(jacobian_unresolved=flags))
    plain = text_of(heatmap_figure(load_runs(tmp_path / "plain")).figure)
    hatched = heatmap_figure(load_runs(tmp_path / "lost")).figure
    assert "lost to rounding" in text_of(hatched)
    assert "lost to rounding" not in plain
    hatches = [patch for axes in hatched.axes for patch in axes.patches if patch.get_hatch()]
    assert len(hatches) == 2 * 3 * 2  # two moments, t from 6 to 8, two k


def test_pixels_of_maps_side_by_side() -> None:
    log_norms = np.array([[0.0, -np.inf, -np.inf], [-9.0, 0.0, -np.inf], [-np.inf, 9.0, 0.0]])
    pixels = map_pixels([log_norms, log_norms], side=6)
    assert pixels.shape == (2 * 3, 2 * (3 + 1 + 3), 4)
    small = pixels[::2, ::2].astype(int)
    np.testing.assert_array_equal(small[:, :3], small[:, 4:])
    np.testing.assert_array_equal(pixels[1::2, 1::2], small)
    white = [255] * 4
    assert small[0, 1].tolist() == small[0, 3].tolist() == white
    (red, _, blue), grey = small[1, 0, :3], small[2, 0, :3]
    assert blue > red
    assert small[2, 1, 0] > small[2, 1, 2]
    assert grey.min() == grey.max() < 255


def test_three_views_of_a_run_and_their_residuals(tmp_path: Path) -> None:
    gradients = geometric(rates=(-0.5,)).isel(step=[0])
    spectrum = np.linspace(-0.4, -2, 5) + np.zeros((1, 3, 5))
    views = gradients.assign(
        lyapunov_exponent=(("step", "sample", "exponent"), spectrum),
        lyapunov_standard_error=(("step", "sample", "exponent"), 0 * spectrum + 0.01),
        theory_rate=(("step", "sample", "theory"), np.full((1, 3, 1), -0.45)),
    ).assign_coords(theory=["mean field"], exponent=np.arange(1, 6))
    table = views_table(views)
    assert list(table["view"]) == ["decay rate", "λ₁", "mean field"]
    np.testing.assert_allclose(table["residual"], [0, -0.1, -0.05], atol=1e-6)
    write_point(tmp_path / "0", views)
    with style.theme(unit="nats"):
        text = text_of(views_figure(load_runs(tmp_path)).figure)
    assert "λ₁ -0.4000 (residual -0.1000), mean field -0.4500 (residual -0.0500)" in text
    with pytest.raises(ValueError, match=r"did not measure lyapunov, theory: .*probe=\["):
        views_table(gradients)


@pytest.mark.parametrize("name", ["heatmap", "decay", "phase", "clipping", "adjoint", "training"])
def test_a_figure_is_the_same_from_the_columns_that_vary(name: str, tmp_path: Path) -> None:
    for number, model in enumerate(("rnn", "lstm")):
        metrics = metrics_with([2.0, 1.0], clip_fraction=0.5)
        summary = {"eval/accuracy": 0.99}
        write_point(
            tmp_path / str(number), all_probes(), model=model, metrics=metrics, summary=summary
        )
    short, whole = load_runs(tmp_path), load_runs(tmp_path, "all")
    assert {"init.gain", "clip.threshold", "probe.jacobian.norm"} <= set(whole) - set(short)
    first, second = (getattr(figures, name)(runs) for runs in (short, whole))
    pd.testing.assert_frame_equal(first.table, second.table)
    assert text_of(first.figure) == text_of(second.figure)


def test_a_notebook_shows_a_figure_as_a_picture(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric())
    drawn = figures.decay(load_runs(tmp_path))
    save(drawn.figure, tmp_path / "decay.png")
    shown = drawn._repr_png_()
    assert shown.startswith(b"\x89PNG")
    (tmp_path / "shown.png").write_bytes(shown)
    same = [matplotlib.image.imread(tmp_path / f"{name}.png") for name in ("decay", "shown")]
    np.testing.assert_array_equal(*same)
    assert figures.decay is decay_figure
