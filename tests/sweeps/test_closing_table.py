"""The table at the end of a sweep: every number against the records, seeds counted and averaged."""

import re
from collections.abc import Mapping
from itertools import product
from math import inf, nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import Compose
from rich.console import Console
from synthetic_sweeps import write_point

from gradlab import load_runs
from gradlab.components import ConfigError
from gradlab.figures.selection import comparable
from gradlab.identity import identity
from gradlab.records import load_status
from gradlab.sweeps import report
from gradlab.sweeps.closing_table import (
    ClosingTable,
    closing_table,
    mean_and_deviation,
    remark,
    results,
)
from gradlab.sweeps.legend import legend
from gradlab.sweeps.screen import FILE_WIDTH, screen

DECADE = float(np.log(10))
LOST = {("rnn", 1.0, 2): "diverged", ("lstm", 2.0, 0): "failed", ("lstm", 2.0, 3): "failed"}


def maps_with(profile: list[float]) -> xr.Dataset:
    """A map whose log norm is that of the profile (decades) at each lag, before and after."""
    steps = np.arange(len(profile))
    lags = steps[:, None] - steps
    values = np.where(lags >= 0, DECADE * np.array(profile)[np.abs(lags)], -np.inf)
    maps = np.broadcast_to(values.astype(np.float32), (2, 1, *values.shape))
    coordinates = {"step": [0, 9], "t": steps, "k": steps}
    return xr.Dataset({"jacobian_log_norm": (("step", "sample", "t", "k"), maps)}, coordinates)


def summary(seed: int, rate: float) -> dict[str, float | str]:
    random = np.random.default_rng(seed)
    return {
        "jacobian/decay_rate": rate + 0.01 * random.normal(),
        "jacobian/horizon": 10 * random.uniform(),
        "eval/loss": random.uniform(),
        "eval/baseline": 1.6,
        "eval/accuracy": random.uniform(),
        "success/solved": float(seed < 3),
        "verdict": "vanishing" if seed else "stable",
    }


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 models × 2 gains × 5 seeds; three of them have not come to their end."""
    folder = tmp_path_factory.mktemp("sweep")
    settings = list(product(("rnn", "lstm"), (1.0, 2.0), range(5)))
    for number, (model, gain, seed) in enumerate(settings):
        state = LOST.get((model, gain, seed), "done")
        numbers = summary(seed, -0.1 * gain) if state != "failed" else {}
        numbers |= {"verdict": "diverged"} if state == "diverged" else {}
        write_point(
            folder / str(number),
            None,
            state=state,
            model=model,
            gain=gain,
            seed=seed,
            summary=numbers,
        )
    return folder


def table_of(folder: Path, rows: str = "settings") -> ClosingTable:
    runs = comparable(load_runs(folder, "all"))
    curves = report.turning_curves(runs)
    remarks = {point: word for point, (word, _) in curves.items()}
    return closing_table(runs, folder, rows, remarks)


def printed(table: ClosingTable, width: int) -> list[str]:
    console = Console(width=width, markup=False, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(table.fitted(width).content)
    return capture.get().rstrip().splitlines()


def legend_of(table: ClosingTable, width: int = 160) -> dict[str, str]:
    return legend(table, table.fitted(width).columns)


def recorded(folder: Path) -> dict[tuple[str, float], list[Mapping[str, float]]]:
    """The summaries of the points that are done, by model and gain, read from their files alone."""
    kept: dict[tuple[str, float], list[Mapping[str, float]]] = {}
    settings = product(("rnn", "lstm"), (1.0, 2.0), range(5))
    for number, (model, gain, seed) in enumerate(settings):
        if (model, gain, seed) not in LOST:
            status = load_status(folder / str(number))
            kept.setdefault((model, gain), []).append(status["summary"])
    return kept


def test_a_row_is_a_setting_with_the_mean_and_deviation_of_its_records(sweep: Path) -> None:
    table = table_of(sweep)
    assert table.keys == ["model.name", "init.gain"]
    lines = [line.split() for line in printed(table, 160)]
    for (model, gain), seeds in recorded(sweep).items():
        (row,) = [line for line in lines if line[:2] == [model.upper(), f"{gain:g}"]]
        loss = [x["eval/loss"] / x["eval/baseline"] for x in seeds]
        shown = [
            [x["jacobian/decay_rate"] / 2.302585 for x in seeds],
            [x["jacobian/horizon"] for x in seeds],
            loss,
            [100 * x["eval/accuracy"] for x in seeds],
        ]
        solved = sum(x["success/solved"] for x in seeds)
        for text, numbers in zip(row[-7:-3], shown, strict=True):
            mean, deviation = (float(x) for x in text.split("±"))
            unit = 10.0 ** np.floor(np.log10(np.std(numbers, ddof=1)))  # of its first digit
            assert mean == pytest.approx(np.mean(numbers), abs=unit / 2)
            assert deviation == pytest.approx(np.std(numbers, ddof=1), abs=unit / 2)
        assert row[-7].startswith("-0.")
        assert row[-3:] == [f"{solved:.0f}", "of", "5"]


def test_verdicts_are_counted_and_seeds_without_end_too(sweep: Path) -> None:
    lines = [re.sub(" +", " ", line).strip() for line in printed(table_of(sweep), 160)]
    rows = dict(zip(("rnn 1", "rnn 2", "lstm 1", "lstm 2"), _rows(lines), strict=True))
    assert [_verdict(x) for x in rows["rnn 1"]] == [
        "3 of 5 vanishing",
        "1 of 5 stable",
        "1 of 5 diverged",
    ]
    assert [_verdict(x) for x in rows["rnn 2"]] == ["4 of 5 vanishing", "1 of 5 stable"]
    assert [_verdict(x) for x in rows["lstm 2"]] == ["3 of 5 vanishing", "2 of 5 failed"]


def _rows(lines: list[str]) -> list[list[str]]:
    """The lines of each setting."""
    rows: list[list[str]] = []
    for line in lines[2:]:
        if line.startswith(("RNN", "LSTM")):
            rows.append([])
        rows[-1].append(line)
    return rows


def _verdict(line: str) -> str:
    found = re.search(r"\d of \d [a-z]+", line)
    return found[0] if found else ""


def test_a_row_is_a_point_where_seeds_are_asked_for_or_not_swept(sweep: Path) -> None:
    lines = [line.split() for line in printed(table_of(sweep, "points"), 160)]
    for number, (model, gain, seed) in enumerate(product(("rnn", "lstm"), (1.0, 2.0), range(5))):
        (row,) = [line for line in lines if line[:1] == [str(number)]]
        assert row[1:4] == [model.upper(), f"{gain:g}", str(seed)]
        state = LOST.get((model, gain, seed), "done")
        if state == "failed":
            assert row[4:] == ["failed", "–", "–", "–", "–"]
            continue
        numbers = load_status(sweep / str(number))["summary"]
        assert row[4:] == [
            numbers["verdict"],
            f"{numbers['jacobian/decay_rate'] / 2.302585:+.3f}",
            f"{numbers['jacobian/horizon']:.1f}",
            f"{numbers['eval/loss'] / 1.6:.2f}",
            f"{100 * numbers['eval/accuracy']:.1f}",
        ]
    one_seed = load_runs(sweep, "all").query("seed == 1")
    assert not closing_table(comparable(one_seed), sweep, "settings", {}).averages


def test_the_numbers_are_those_of_the_runs_in_the_units_of_the_headings(sweep: Path) -> None:
    runs = load_runs(sweep, "all")
    numbers = results(runs)
    known = runs["status"] != "failed"
    np.testing.assert_allclose(
        10 ** numbers["rate"][known], np.exp(runs["jacobian/decay_rate"][known])
    )
    np.testing.assert_allclose(numbers["accuracy"], 100 * runs["eval/accuracy"])
    assert results(pd.DataFrame({"status": ["done"]})).isna().all(axis=None)
    flat = pd.DataFrame({"eval/loss": [0.1], "eval/baseline": [0.0]})  # all answers are the same
    shown = results(flat).iloc[0]
    assert (np.isnan(shown["loss ÷ baseline"]), shown["loss"]) == (True, 0.1)
    assert results(runs)["loss"].isna().all()


def test_a_loss_without_a_baseline_is_shown_itself_and_named_so(tmp_path: Path) -> None:
    for seed, loss in enumerate((0.00012345, 0.0002)):
        numbers = {"eval/loss": loss, "eval/baseline": 0.0}
        write_point(tmp_path / str(seed), None, seed=seed, summary=numbers)
    lines = printed(table_of(tmp_path, "points"), 80)
    assert lines[1].split()[-1] == "loss"
    assert [line.split()[-1] for line in lines[2:]] == ["0.000123", "0.0002"]
    assert "loss ÷ baseline" not in legend_of(table_of(tmp_path))
    assert "loss itself" in legend_of(table_of(tmp_path))["loss"]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([12.0, 14.0], "13.0±1.4"),
        ([-12.31, -12.81], "-12.6±0.4"),
        ([0.176091264, 0.176091265], "0.176±0"),
        ([12.0, 14.0, inf], "13.0±1.4\n1 of 3 inf"),
        ([inf, inf], "inf"),
        ([-inf, nan], "1 of 2 missing"),
        ([12.0, 14.0, nan], "1 of 3 missing"),
        ([12.0, 14.0, 16.0], "14±2"),
        ([12.0, 14.0, 16.0, 18.0], "15±3\n13..17"),
        ([0.0, 0.0, 0.0, 2.0, inf], "0.5±1.0\n0.0..1.5\n1 of 5 inf"),
        ([1.0, 1.0, 1.0, 1.0], "1±0"),
        ([3.0], "3.0"),
        ([-0.01, 0.01], "0.000±0.014"),
        ([nan], "–"),
        ([], "–"),
        ([2e6, 2e6], "2e+06±0"),
    ],
)
def test_what_is_not_finite_is_counted_and_not_averaged(values: list[float], text: str) -> None:
    assert mean_and_deviation(pd.Series(values, dtype=float), 1) == text


def test_columns_that_a_screen_has_no_room_for_are_left_out_whole(sweep: Path) -> None:
    table = table_of(sweep)
    for width, count in ((34, 1), (66, 4), (160, 5)):
        fitted, lines = table.fitted(width), printed(table, width)
        assert fitted.columns == table.columns[:count]
        assert max(map(len, lines)) <= width
        words = ["decay rate", "horizon", "loss ÷ baseline", "accuracy", "solved"]
        assert [word for word in legend_of(table, width) if word in words] == words[:count]
    widest = printed(table, 160)
    narrow = printed(table, 34)
    for rate in (line.split()[-1] for line in narrow if "±" in line):
        assert sum(rate in line for line in widest) == 1


def test_a_file_is_as_wide_as_columns_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert screen().width == 50
    monkeypatch.delenv("COLUMNS")
    assert screen().width == FILE_WIDTH


def test_a_large_sweep_is_read_on_a_small_screen(tmp_path: Path) -> None:
    settings = product(("rnn", "lstm"), (0.5, 1.0, 2.0), (0.5, 1.0, inf), (8, 64), range(5))
    for number, (model, gain, threshold, length, seed) in enumerate(settings):
        write_point(
            tmp_path / str(number),
            None,
            model=model,
            gain=gain,
            threshold=threshold,
            length=length,
            seed=seed,
            summary=summary(seed, -0.1 * gain),  # type: ignore[arg-type]
        )
    table = table_of(tmp_path)
    assert len(table.runs) == 180
    for width in (80, 120):
        lines = printed(table, width)
        assert max(map(len, lines)) <= width
        assert len(lines) <= 2 + 2 * 36 + 12  # two lines a setting, whose seeds differ; 12 blocks
        text = "\n".join(lines)
        assert text.count("4 of 5 vanishing") == 36
        assert "…" not in text
    blocks = [line for line in printed(table, 80) if line.startswith(("RNN, ", "LSTM, "))]
    assert len(blocks) == len(set(blocks)) == 12  # model, gain and length head blocks of rows there
    assert any(line.startswith("model") for line in printed(table, 160))
    assert all("seeds" not in line for line in printed(table, 160))  # each setting has as many


# Curves that turn


RISES = [0.0, 1.5, 2.0, 2.0, 1.5, 1.0, 0.5, 0.1, -0.2]
DIPS = [0.0, -1.5, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5]


def write_curve(folder: Path, profile: list[float], seed: int, verdict: str) -> None:
    lags = {f"jacobian/log_norm/lag_{x}": DECADE * profile[x] for x in (1, 2, 4, 8)}
    line = DECADE * np.polyfit(range(1, 9), profile[1:], 1)[0]
    reach = inf if profile is RISES else 1.0
    numbers = {"jacobian/decay_rate": line, "jacobian/horizon": reach, "verdict": verdict, **lags}
    write_point(folder / str(seed), maps_with(profile), seed=seed, summary=numbers)  # type: ignore[arg-type]


def test_a_verdict_and_a_horizon_that_seem_to_contradict_each_other_are_explained(
    tmp_path: Path,
) -> None:
    write_curve(tmp_path, RISES, 0, "vanishing")
    write_curve(tmp_path, RISES, 1, "vanishing")
    write_curve(tmp_path, DIPS, 2, "exploding")
    table = table_of(tmp_path)
    text = "\n".join(printed(table, 80))
    for words in ("2 of 3 vanishing", "2 of 3 after a rise", "1 of 3 after a fall", "2 of 3 inf"):
        assert words in text
    curves = report.turning_curves(table.runs)
    lines = report.courses(table, curves)
    assert lines[0] == (
        "curve    seed 0 (point 0): the mean norm rises to 10^2.0 at lag 2, falls to 10^-0.2 at "
        "lag 8, stays below 1 from lag 8"
    )
    assert (
        "falls to 10^-1.5 at lag 1, rises to 10^2.5 at lag 8, stays above 1 from lag 4" in lines[2]
    )
    assert "after a rise, after a fall" in legend_of(table)
    assert legend_of(table)["±"].endswith("inf are counted, and the mean is over the others")
    points = "\n".join(printed(table_of(tmp_path, "points"), 80))
    assert points.count("after a rise") == 2


def test_many_curves_are_told_by_the_first(tmp_path: Path) -> None:
    for seed in range(6):
        write_curve(tmp_path, RISES, seed, "vanishing")
    table = table_of(tmp_path)
    lines = report.courses(table, report.turning_curves(table.runs))
    assert len(lines) == 4
    assert lines[-1] == "curve    3 more: gradlab figure decay draws them"


def test_points_whose_maps_are_missing_stand_without_a_remark(tmp_path: Path) -> None:
    write_curve(tmp_path, RISES, 0, "vanishing")
    (tmp_path / "0" / "gradients.nc").unlink()
    assert report.turning_curves(comparable(load_runs(tmp_path, "all"))) == {}


@pytest.mark.parametrize(
    ("profile", "verdict", "words"),
    [
        (RISES, "vanishing", "after a rise"),
        (DIPS, "exploding", "after a fall"),
        ([0, 2, 3, 4, -1], "exploding", "before a fall"),
        ([0, -3, -3, -3, -3], "stable", "after a fall"),  # an LSTM's ∂h/∂h: h enters c once
        ([0, 3, 3, 3, 3], "stable", "after a rise"),
        ([0, -0.2, -0.4, -0.6, -0.8], "stable", ""),
        ([0, -1, -2, -3, -4], "vanishing", ""),
        ([0, 1, 2, 3, 4], "exploding", ""),
        ([0, 0.5, -1, -2, nan], "vanishing", ""),
    ],
)
def test_only_what_verdict_and_horizon_do_not_say_is_remarked(
    profile: list[float], verdict: str, words: str
) -> None:
    assert remark(DECADE * np.array(profile, float), verdict) == words


# Words below the table


def test_only_what_the_table_shows_is_explained(sweep: Path, tmp_path: Path) -> None:
    meanings = legend_of(table_of(sweep))
    assert list(meanings) == [
        "±",
        "..",
        "verdict",
        "decay rate",
        "horizon",
        "loss ÷ baseline",
        "accuracy",
        "solved",
    ]
    assert "over the 5 seeds of a setting; those that are not done are" in meanings["±"]
    assert "inf" not in meanings["horizon"]
    write_point(tmp_path / "0", None, summary={"jacobian/horizon": inf, "jacobian/zero_share": 0.2})
    alone = legend_of(table_of(tmp_path))
    assert list(alone) == ["verdict", "decay rate", "horizon", "zeros"]
    assert "inf: at no lag" in alone["horizon"]
    assert "20.0% zeros" in "\n".join(printed(table_of(tmp_path), 80))


def test_a_right_answer_beside_a_vanishing_gradient_is_explained(tmp_path: Path) -> None:
    for name, verdict in (("vanishing", "vanishing"), ("stable", "stable")):
        numbers = {"eval/accuracy": 1.0, "verdict": verdict}
        write_point(tmp_path / name / "0", None, summary=numbers)  # type: ignore[arg-type]
    words = "vanishing gradients do no harm where an answer hangs on few steps back"
    assert words in legend_of(table_of(tmp_path / "vanishing"))["accuracy"]
    assert words not in legend_of(table_of(tmp_path / "stable"))["accuracy"]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([("gradlab.cells.Elman", "relu")], "as of ReLU units that are off;"),
        ([("gradlab.cells.Elman", nan)], "as of units so saturated that float32"),
        ([("gradlab.cells.LSTM", nan), ("flax.nnx.GRUCell", nan)], "as of units so saturated"),
        ([("gradlab.cells.Elman", nan), ("gradlab.cells.Elman", "relu")], "that are off, or of"),
        ([("their.Cell", nan)], "as of ReLU units that are off, or of slopes"),
    ],
)
def test_zeros_are_explained_by_the_networks_that_have_them(
    sweep: Path, cells: list[tuple[str, object]], words: str
) -> None:
    runs = comparable(load_runs(sweep, "all"))
    cells = [*cells, ("gradlab.cells.Elman", "relu")]  # the last has no zeros
    targets, activations = zip(*cells, strict=True)
    runs = runs.head(len(cells)).assign(
        **{"jacobian/zero_share": [0.5] * (len(cells) - 1) + [0.0]},
        **{"model.cell._target_": targets, "model.cell.activation": activations},
    )
    assert words in legend_of(closing_table(runs, sweep, "settings", {}))["zeros"]


def test_why_points_failed_stands_below_the_table_once_a_reason(sweep: Path) -> None:
    lines = report.troubles(table_of(sweep))
    assert lines == [
        "diverged RNN, gain 1, seed 2 (point 2): so",
        "failed   LSTM, gain 2, seed 0 (point 15) and 1 more: so",
    ]
    assert report.troubles(table_of(sweep, "points"))[1] == "failed   15 and 1 more: so"


def test_each_way_to_end_has_a_reason_below_the_table(sweep: Path) -> None:
    table = table_of(sweep, "points")
    table.runs.loc[:, "status"] = ["failed"] * 3 + ["diverged"] + ["done"] * (len(table.runs) - 4)
    table.runs.loc[:, "reason"] = [str(i) for i in range(len(table.runs))]
    assert report.troubles(table) == [
        *("failed   0: 0", "diverged 3: 3", "failed   1: 1"),
        "         1 more reasons in the points' status.json",
    ]


# The key of the config


def test_the_table_is_chosen_by_a_key_that_enters_no_identity(composed: Compose) -> None:
    points = composed("sweep.table=points")
    assert points.sweep.table == "points"
    assert composed().sweep.table == "settings"
    assert identity(points) == identity(composed())
    with pytest.raises(
        ConfigError, match=r"sweep.table must be one of settings, points; got 'seed'"
    ):
        composed("sweep.table=seed")
