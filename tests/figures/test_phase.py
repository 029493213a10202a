"""Phase diagrams: moments, axes, what cells say of their seeds, and what is left out."""

from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_sweeps import note, text_of, write_point
from threshold_sweep import clopper_pearson, history, write_thresholds

from gradlab import figures, load_runs, records
from gradlab.figures import style
from gradlab.figures.cell_numbers import cell_table, short
from gradlab.figures.of_runs.phase import choose_axes
from gradlab.figures.outcome import outcome_at
from gradlab.figures.selection import comparable
from gradlab.sentences import with_deviation

RATE, THRESHOLD = "optim.learning_rate", "clip.threshold"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_thresholds(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def runs(folder: Path) -> pd.DataFrame:
    return load_runs(folder, "all")


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
