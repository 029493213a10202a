"""Phase diagrams and clipping: moments, axes, intervals over seeds, and what is left out."""

from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from scipy import stats
from synthetic_sweeps import metrics_with, text_of, write_point

from gradlab import figures, load_runs, records
from gradlab.figures import style
from gradlab.figures.cell_numbers import cell_table, short
from gradlab.figures.of_runs.phase import choose_axes
from gradlab.figures.outcome import outcome_at
from gradlab.figures.selection import comparable
from gradlab.sentences import with_deviation

RATE, THRESHOLD = "optim.learning_rate", "clip.threshold"
STEPS = np.array([0, 10, 20])


def history(rng: np.random.Generator, clipped: float, solved: bool) -> pd.DataFrame:
    """Return what a run logs: an untrained row, one midway, and the last one."""
    trained = STEPS > 0
    rows = {
        "train/step": STEPS,
        "eval/loss": np.array([2.0, 1.0, 0.5]) * rng.uniform(0.8, 1.2),
        "eval/accuracy": [0.1, 0.5, 0.95 if solved else 0.6],
        "train/clip_fraction": np.where(trained, clipped, nan),
        "jacobian/decay_rate": np.array([-0.5, nan, -0.1]) * rng.uniform(0.8, 1.2),
        "jacobian/horizon": np.array([2.0, nan, 8.0]) * rng.uniform(0.8, 1.2),
    }
    return pd.DataFrame(rows)


def solves(threshold: float, rate: float, seed: int) -> bool:
    """Return whether a point solves its task: 4 of 5 seeds with tight clipping, else fewer."""
    return seed < {0.1: 4, 1.0: 3, inf: 0}[threshold] - (rate > 0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 2 models × 2 gains × 3 thresholds × 2 rates × 5 seeds."""
    folder, rng = tmp_path_factory.mktemp("sweep"), np.random.default_rng(0)
    grid = [
        {"model": model, "gain": gain, "threshold": threshold, "rate": rate, "seed": seed}
        for model in ("rnn", "lstm")
        for gain in (0.5, 2.0)
        for threshold in (0.1, 1.0, inf)
        for rate in (0.1, 1.0)
        for seed in range(5)
    ]
    for number, settings in enumerate(grid):
        threshold, rate = settings["threshold"], settings["rate"]
        clipped = 0.0 if threshold == inf else (0.9 if threshold < 0.5 else 0.4) * (2 - rate) / 2
        rows = history(rng, clipped, solves(threshold, rate, settings["seed"]))
        summary = rows.iloc[-1].to_dict()
        write_point(folder / str(number), None, metrics=rows, summary=summary, **settings)
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> pd.DataFrame:
    return load_runs(folder, "all")


def note(drawn: style.Drawn) -> str:
    return text_of(drawn.figure).replace("\n", " ")


def clopper_pearson(successes: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval by quantiles of the beta distribution."""
    low = stats.beta.ppf(0.025, successes, count - successes + 1) if successes else 0.0
    high = stats.beta.ppf(0.975, successes + 1, count - successes) if successes < count else 1.0
    return float(low), float(high)


# Moments


@pytest.mark.parametrize("step", ["first", "last", 0, 10, 20])
@pytest.mark.parametrize("name", ["loss", "accuracy", "decay_rate", "horizon", "success"])
def test_an_outcome_is_what_the_run_logged_at_that_moment(
    name: str, step: Any, runs: pd.DataFrame
) -> None:
    updates = {"first": 0, "last": 20}.get(step, step)
    if updates == 10 and name in ("decay_rate", "horizon"):
        with pytest.raises(ValueError, match=r"after 10 updates; --step takes 0, 20\."):
            outcome_at(runs, name, step)
        return
    outcomes = outcome_at(runs, name, step)
    assert set(outcomes["step"]) == {updates}
    column = {"loss": "eval/loss", "accuracy": "eval/accuracy", "success": "eval/accuracy"}
    for path, value in zip(runs["path"], outcomes["value"], strict=True):
        rows = pd.read_parquet(Path(path) / records.METRICS)
        (logged,) = rows.loc[rows["train/step"] == updates, column.get(name, f"jacobian/{name}")]
        assert value == (logged if name != "success" else float(logged > 0.9))


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("first", "held-out loss, before training"),
        (0, "held-out loss, before training"),
        (10, "held-out loss, after 10 updates"),
        ("last", "held-out loss, after training"),
    ],
)
def test_the_colour_bar_says_the_moment(step: Any, words: str, runs: pd.DataFrame) -> None:
    assert words in text_of(figures.phase(runs, "loss", step=step).figure)


def test_only_runs_that_are_done_have_an_outcome_after_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    states = ["done", "diverged", "running", "failed", "interrupted"]
    for number, state in enumerate(states):
        rows = history(rng, 0.0, solved=True)
        summary = rows.iloc[-1].to_dict()
        write_point(
            tmp_path / str(number), None, seed=number, state=state, metrics=rows, summary=summary
        )
    runs = load_runs(tmp_path)
    after = outcome_at(runs, "loss")["value"]
    assert list(after.notna()) == [True, False, False, False, False]
    assert outcome_at(runs, "loss", "first")["value"].notna().all()
    np.testing.assert_array_equal(outcome_at(runs, "success")["value"], [1, 0, nan, nan, nan])
    with pytest.raises(ValueError, match=r"no run has eval/loss after training; --step takes 0,"):
        outcome_at(runs[2:], "loss")


def test_a_network_that_was_not_trained_is_before_training(tmp_path: Path) -> None:
    rows = history(np.random.default_rng(0), 0.0, solved=False)
    write_point(tmp_path / "0", None, metrics=rows[:1])
    assert "steps), before training" in text_of(
        figures.phase(load_runs(tmp_path), "horizon").figure
    )
    write_point(tmp_path / "1", None, metrics=rows.assign(**{"jacobian/horizon": [2.0, nan, nan]}))
    horizons = outcome_at(load_runs(tmp_path), "horizon")["value"]
    assert list(horizons.notna()) == [True, False]  # trained, and not measured since


# Axes


def swept(**keys: list[Any]) -> pd.DataFrame:
    """Return runs of every combination of the levels of some keys."""
    return pd.MultiIndex.from_product(keys.values(), names=keys).to_frame(index=False)


GAIN, LENGTH, MODEL = {"init.gain": [1, 2]}, {"task.length": [4, 8]}, {"model.name": ["a", "b"]}
SEED, LEARNING = {"seed": [0, 1]}, {RATE: [0.1, 1.0]}


@pytest.mark.parametrize(
    ("keys", "asked", "axes"),
    [
        (MODEL | GAIN | LENGTH | LEARNING | SEED, {}, ("init.gain", "task.length")),
        (MODEL | LENGTH | LEARNING | SEED, {}, (RATE, "task.length")),
        (MODEL | GAIN | LEARNING, {}, ("init.gain", RATE)),
        (MODEL | LENGTH | SEED, {}, ("task.length", "model.name")),
        (MODEL | GAIN, {"x": "model.name"}, ("model.name", "init.gain")),
        (MODEL | GAIN | LENGTH, {"y": "init.gain"}, ("task.length", "init.gain")),
        (MODEL | GAIN | LENGTH, {"taken": ["init.gain"]}, ("task.length", "model.name")),
        (GAIN | SEED, {}, ("init.gain", None)),
        (GAIN | SEED, {"y": "seed"}, ("init.gain", "seed")),
        (SEED, {}, (None, None)),
    ],
)
def test_axes_are_what_is_swept_and_never_the_seed_by_itself(
    keys: dict[str, list[Any]], asked: dict[str, Any], axes: tuple[str | None, str | None]
) -> None:
    assert choose_axes(comparable(swept(**keys)), **asked) == axes


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"x": "gain"}, "no config key 'gain'; what varies: model.name, init.gain"),
        ({"x": RATE, "y": RATE}, "x and y must be different keys; got optim.learning_rate"),
        ({"x": RATE, "col": RATE}, "optim.learning_rate is along an axis: hue, col and row take"),
        ({"row": RATE, "col": RATE}, "hue, col and row must be different keys"),
        ({"step": "all"}, "step must be one moment: first, last, or updates; got 'all'"),
        ({"step": "ends"}, "step must be one moment"),
        ({"step": "middle"}, "step must be first, last"),
        ({"step": 7}, "no run has jacobian/decay_rate after 7 updates; --step takes 0, 20"),
        ({"where": {THRESHOLD: 3}}, "clip.threshold is one of 0.1, 1, none in these runs"),
        ({"value": "success", "error": -1.0}, "judged by an error rate from 0 to 1"),
    ],
)
def test_what_a_phase_diagram_cannot_show_is_refused_in_a_sentence(
    asked: dict[str, Any], sentence: str, runs: pd.DataFrame
) -> None:
    with pytest.raises(ValueError, match=sentence):
        figures.phase(runs, **asked)


def test_a_phase_diagram_names_what_it_leaves_out_and_the_flag_that_shows_it(
    runs: pd.DataFrame,
) -> None:
    drawn = figures.phase(runs, col="model.name")
    assert "Shown: 60 of 120 points (learning rate 0.1)." in note(drawn)
    assert "Others: --where optim.learning_rate=1." in note(drawn)
    rows = figures.phase(runs, x=THRESHOLD, where={RATE: 1}, col="model.name", row="init.gain")
    assert [axes.get_title() for axes in rows.figure.axes[:4]] == ["RNN", "LSTM", "", ""]
    assert len(rows.table) == 2 * 2 * 3
    ticks = [label.get_text() for label in rows.figure.axes[2].get_xticklabels()]
    assert ticks == ["0.1", "1", "none"]
    only = figures.phase(runs[(runs["model.name"] == "rnn") & (runs["init.gain"] == 2)][:5])
    assert "Nothing but the seed varies: sweep init.gain=0.5,1,2, say, for an axis." in note(only)


# Cells


def test_cells_have_means_and_deviations_in_the_unit_and_their_number_of_seeds(
    runs: pd.DataFrame,
) -> None:
    where = {"model.name": "rnn", THRESHOLD: 1, RATE: 1}
    chosen = runs[(runs["model.name"] == "rnn") & (runs[THRESHOLD] == 1) & (runs[RATE] == 1)]
    rates = chosen.groupby("init.gain")["jacobian/decay_rate"]
    for unit, nats in (("nats", 1.0), ("decades", np.log(10))):
        with style.theme(unit=unit):
            drawn = figures.phase(runs, where=where)
        table = drawn.table.set_index("init.gain")
        np.testing.assert_allclose(table["decay_rate"], rates.mean())
        np.testing.assert_allclose(table["high"] - table["low"], 2 * rates.std())
        assert set(table["seeds"]) == {5}
        texts = [text.get_text() for text in drawn.figure.axes[0].texts]
        moments = zip(rates.mean(), rates.std(), strict=True)
        written = [with_deviation(m / nats, s / nats) for m, s in moments]
        assert texts == ["\n".join(pair) for pair in written]
        assert "Cells: mean of 5 seeds ± one standard deviation." in note(drawn)
        assert f"decay rate ({unit}/step), after training" in note(drawn)


def test_success_is_counted_with_the_interval_of_clopper_and_pearson(runs: pd.DataFrame) -> None:
    where = {"model.name": "rnn", "init.gain": 2, RATE: 0.1}
    drawn = figures.phase(runs, "success", where=where)
    assert [text.get_text() for text in drawn.figure.axes[0].texts] == ["4/5", "3/5", "0/5"]
    for row, successes in zip(drawn.table.to_dict("records"), (4, 3, 0), strict=True):
        expected = (successes / 5, *clopper_pearson(successes, 5))
        assert (row["success"], row["low"], row["high"]) == pytest.approx(expected)
    np.testing.assert_allclose(drawn.table["low"], [0.2836, 0.1466, 0], atol=5e-5)  # as printed
    np.testing.assert_allclose(drawn.table["high"], [0.9949, 0.9473, 0.5218], atol=5e-5)
    assert "Cells: successes of 5 seeds. Success: accuracy above 0.9." in note(drawn)


def test_a_horizon_is_the_median_of_seeds_some_of_which_never_fall() -> None:
    points = pd.DataFrame({"horizon": [12.0, 9.0, inf, 11.0, inf], "status": "done"})
    (cell,) = cell_table(points, [], "horizon").to_dict("records")
    assert (cell["horizon"], cell["low"], cell["high"], cell["mark"]) == (12, 9, inf, "")
    (never,) = cell_table(points[2:], [], "horizon").to_dict("records")
    assert (never["horizon"], never["low"], never["mark"]) == (inf, 11, "infinite")


def horizon_cells(folder: Path, horizons: list[list[float]], name: str = "rnn") -> style.Drawn:
    """Draw the horizons of seeds, a list per gain; runs that have none diverged."""
    for gain, seeds in enumerate(horizons):
        for seed, horizon in enumerate(seeds):
            rows = pd.DataFrame({"train/step": [0, 9], "jacobian/horizon": [2.0, horizon]})
            state = "diverged" if np.isnan(horizon) else "done"
            settings: dict[str, Any] = {"model": name, "gain": gain, "seed": seed, "state": state}
            write_point(folder / f"{gain}-{seed}", None, metrics=rows, **settings)
    return figures.phase(load_runs(folder), "horizon")


NEVER, DOTS = "“1 of 5 never”: the norm of one never falls to 1/e", "never falls to 1/e"
OTHERS = "“others”: median of the rest"


@pytest.mark.parametrize(
    ("seeds", "written", "said", "unsaid"),
    [
        ([5, 6, 7, 8, 9], "7\n5–9", ["median of 5 seeds, least–greatest."], ["never", "“"]),
        ([5, 6, inf, 7, 5], "6\n1 of 5 never", [NEVER], [OTHERS, "seeds or more"]),
        (
            [inf, 4, inf, 6, inf],
            "∞\n3 of 5 never\nothers 5",
            [NEVER, OTHERS, "half of the seeds or more never fall to 1/e"],
            [],
        ),
        ([inf] * 5, "∞\n5 of 5 never", [DOTS, NEVER], [OTHERS, "seeds or more"]),
        ([5, nan, 6, nan, inf], "6\n1 of 3 never\n3 of 5", [NEVER, "only two have a number"], []),
        ([nan, nan, 3, nan, nan], "3\n1 of 5", ["median of 1 seed", "4 diverged"], ["never"]),
        ([inf], "", [DOTS], ["Cells", "seeds or"]),
        ([3], "3", [], ["Cells", "never"]),
    ],
)
def test_a_cell_and_its_caption_say_which_seeds_never_fall(
    seeds: list[float], written: str, said: list[str], unsaid: list[str], tmp_path: Path
) -> None:
    drawn = horizon_cells(tmp_path, [seeds])
    assert "\n".join(text.get_text() for text in drawn.figure.axes[0].texts) == written
    text = note(drawn)
    assert [words for words in said if words not in text] == []
    assert [words for words in unsaid if words in text] == []


def test_the_label_of_the_colour_bar_is_not_cut_off_beside_long_names(tmp_path: Path) -> None:
    for model in ("rnn", "Residual_network_with_gates"):
        for gain in (1.0, 2.0):
            rows = history(np.random.default_rng(0), 0.0, solved=False)
            write_point(tmp_path / f"{model}{gain}", None, model=model, gain=gain, metrics=rows)
    with style.theme("paper"):
        figure = figures.phase(load_runs(tmp_path)).figure
        figure.draw_without_rendering()
    label = figure.axes[-1].xaxis.label.get_window_extent()
    assert 0 <= label.x0 < label.x1 <= figure.bbox.width


def test_cells_that_leave_out_seeds_keep_their_deviation(tmp_path: Path) -> None:
    rates = [-0.1, -0.2, -inf, -0.3, nan]
    for seed, rate in enumerate(rates):
        rows = pd.DataFrame({"train/step": [0, 9], "jacobian/decay_rate": [-0.5, rate]})
        state = "diverged" if np.isnan(rate) else "done"
        write_point(tmp_path / str(seed), None, seed=seed, metrics=rows, state=state)
    with style.theme(unit="nats"):
        drawn = figures.phase(load_runs(tmp_path))
    assert [text.get_text() for text in drawn.figure.axes[0].texts] == ["−0.20\n±0.10\n3 of 5"]
    said = "mean of 3 seeds ± one standard deviation; “2 of 5”: only two have a number."
    assert said in note(drawn)
    assert "without a number: 1 diverged, 1 exactly zero." in note(drawn)


def test_spread_is_left_out_where_cells_have_no_room(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(2 * 20):
        rows = history(rng, 0.0, solved=False)
        write_point(
            tmp_path / str(number), None, gain=number // 2 / 8, seed=number % 2, metrics=rows
        )
    drawn = figures.phase(load_runs(tmp_path))
    axes = drawn.figure.axes[0]
    assert not axes.texts
    assert "Cells: mean of 2 seeds." in note(drawn)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[-1] == "2.375"
    assert labels.count("") > 0


def test_short_numbers() -> None:
    assert [short(x) for x in (-0.123, 12.3, 250.0, inf, 0.0)] == ["−0.12", "12", "250", "∞", "0"]


# Clipping


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
