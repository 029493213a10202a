"""The table by setting: means, intervals and counts against their definitions, seed by seed."""

from itertools import product
from math import inf, isnan, nan
from pathlib import Path
from statistics import mean

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_sweeps import write_point

from gradlab import by_setting, load_runs
from gradlab.figures.settings import COUNTS, means_over_seeds, save_csv

RATES = (-0.50, -0.42, -0.61, -0.35, -0.47)
HORIZONS = (2.0, 3.5, inf, 5.0, inf)
LOSSES = (0.31, 0.27, 0.44, 0.36, 0.29)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Gains 1, 2 and 3 times five seeds.

    At gain 2 seed 1 diverged and seed 4 failed; at gain 3 seed 0 has no loss.
    """
    folder = tmp_path_factory.mktemp("sweep")
    lost = {(2.0, 1): "diverged", (2.0, 4): "failed"}
    for number, (gain, seed) in enumerate(product((1.0, 2.0, 3.0), range(5))):
        state = lost.get((gain, seed), "done")
        numbers = {
            "jacobian/decay_rate": gain * RATES[seed],
            "jacobian/horizon": HORIZONS[seed],
            "eval/loss": LOSSES[seed],
            "success/solved": float(seed < 2),
            "verdict": "vanishing" if seed else "stable",
        }
        if state == "diverged":
            numbers |= {"eval/loss": 1e30, "verdict": "diverged"}
        if (gain, seed) == (3.0, 0):
            del numbers["eval/loss"]
        write_point(folder / str(number), None, state=state, gain=gain, seed=seed, summary=numbers)
    return load_runs(folder)


def resampled(values: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of the means of all resamples: the bootstrap without its chance."""
    means = [mean(sample) for sample in product(values, repeat=len(values))]
    low, high = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    return low, high


def test_a_row_has_the_mean_of_its_seeds_with_the_interval(runs: pd.DataFrame) -> None:
    table = by_setting(runs).set_index("init.gain")
    assert list(table.index) == [1.0, 2.0, 3.0]
    for gain, seeds in ((1.0, (0, 1, 2, 3, 4)), (2.0, (0, 2, 3)), (3.0, (0, 1, 2, 3, 4))):
        values = [gain * RATES[seed] for seed in seeds]
        row = table.loc[gain]
        assert row["jacobian/decay_rate/mean"] == pytest.approx(mean(values), rel=1e-12)
        low, high = resampled(values)
        error = 0.1 * np.std(values)  # of 2000 resamples
        assert row["jacobian/decay_rate/low"] == pytest.approx(low, abs=error)
        assert row["jacobian/decay_rate/high"] == pytest.approx(high, abs=error)


def test_seeds_are_counted_by_how_they_ended(runs: pd.DataFrame) -> None:
    table = by_setting(runs).set_index("init.gain")
    assert table[[*COUNTS]].to_numpy().tolist() == [
        [5, 5, 0, 0, 4, 1, 0],
        [5, 3, 1, 1, 2, 1, 0],
        [5, 5, 0, 0, 4, 1, 0],
    ]


def test_a_mean_needs_every_seed_that_is_done(runs: pd.DataFrame) -> None:
    losses = by_setting(runs)[["eval/loss/mean", "eval/loss/low", "eval/loss/high"]]
    assert losses["eval/loss/mean"][0] == pytest.approx(mean(LOSSES))
    assert losses["eval/loss/mean"][1] == pytest.approx(mean(LOSSES[seed] for seed in (0, 2, 3)))
    assert losses.iloc[2].isna().all()


def test_an_infinite_horizon_is_counted_and_not_averaged(runs: pd.DataFrame) -> None:
    table = by_setting(runs)
    assert table["jacobian/horizon/infinite"].tolist() == [2, 1, 2]
    assert table["jacobian/horizon/mean"].tolist() == [3.5, 3.5, 3.5]
    assert "eval/loss/infinite" not in table


def test_a_diverged_seed_has_not_solved_its_task(runs: pd.DataFrame) -> None:
    table = by_setting(runs)
    solved = table[[f"success/solved/{x}" for x in ("mean", "low", "high")]].to_numpy()
    for row, (count, ended) in zip(solved, ((2, 5), (1, 4), (2, 5)), strict=True):
        low = stats.beta.ppf(0.025, count, ended - count + 1)  # Clopper & Pearson 1934
        high = stats.beta.ppf(0.975, count + 1, ended - count)
        assert row == pytest.approx([count / ended, low, high])


@pytest.mark.parametrize(
    ("values", "expected", "infinite"),
    [
        ([2.0, 4.0, inf], 3.0, 1),
        ([inf, inf], inf, 2),
        ([-inf, -inf], -inf, 2),
        ([inf, -inf], nan, 2),
        ([1.0, nan], nan, 0),
        ([inf, nan], nan, 1),
        ([7.0], 7.0, 0),
        ([], nan, 0),
    ],
)
def test_the_mean_of_values_that_are_not_all_finite(
    values: list[float], expected: float, infinite: int
) -> None:
    (found,), (low,), (high,), (count,) = means_over_seeds(np.array([values]))
    assert found == expected or (isnan(found) and isnan(expected))
    assert (count, isnan(low), isnan(high)) == (
        infinite,
        values[:2] != [2, 4],
        values[:2] != [2, 4],
    )


def test_without_seeds_each_point_is_a_setting(runs: pd.DataFrame) -> None:
    table = by_setting(runs[runs["seed"] == 2])
    assert table["seeds"].tolist() == [1, 1, 1]
    assert table["jacobian/decay_rate/mean"].tolist() == [RATES[2], 2 * RATES[2], 3 * RATES[2]]
    assert table["jacobian/decay_rate/low"].isna().all()
    alone = by_setting(runs[runs["init.gain"] == 1])
    assert list(alone)[: len(COUNTS)] == [*COUNTS]
    assert len(alone) == 1


def test_what_is_no_table_of_runs_is_refused(runs: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"must be the table of gradlab\.load_runs"):
        by_setting(pd.DataFrame({"a": [1]}))
    with pytest.raises(ValueError, match="has no rows"):
        by_setting(runs.head(0))


def test_the_file_gives_back_the_table_to_the_last_digit(
    runs: pd.DataFrame, tmp_path: Path
) -> None:
    runs = runs.assign(**{"clip.threshold": np.where(runs["init.gain"] == 1, inf, 1 / 3)})
    runs["task.path"] = np.where(runs["init.gain"] == 1, "=a,b", "c")
    table = by_setting(runs)
    save_csv(table, tmp_path / "settings.csv")
    read = pd.read_csv(tmp_path / "settings.csv")
    assert read["task.path"].tolist() == ["'=a,b", "c", "c"]  # no spreadsheet's formula
    pd.testing.assert_frame_equal(
        read.drop(columns="task.path"), table.drop(columns="task.path"), rtol=1e-15, atol=0
    )
