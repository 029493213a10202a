"""The interactive page holds maps and curves of settings and seeds."""

import base64
import statistics
import zlib
from itertools import accumulate, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_sweeps import RATES, copies, geometric, write_point, write_seeds

from gradlab import load_runs
from gradlab.figures import style
from gradlab.figures.bands import mean_and_limits
from gradlab.figures.explorer import explorer_data, explorer_page, words
from gradlab.figures.explorer.mean_curve import Reading, mean_curve
from gradlab.figures.explorer.packing import pack
from gradlab.figures.explorer.words import course

DECADE = np.log(10)


def unpack(values: dict[str, Any]) -> np.ndarray:
    """The maps of packed values, by a plain loop."""
    count = len(values["low"])
    planes = zlib.decompress(base64.b64decode(values["codes"]))
    half = len(planes) // 2
    differences = [low + 256 * high for low, high in zip(planes, planes[half:], strict=False)]
    pairs = half // count
    maps = []
    for m, (low, step) in enumerate(zip(values["low"], values["step"], strict=True)):
        row = differences[m * pairs : (m + 1) * pairs]
        codes = list(accumulate(row, lambda code, more: (code + more) % 65536))
        special = {0: -np.inf, 65535: np.nan}
        maps.append([special.get(code, low + (code - 1) * step) for code in codes])
    return np.array(maps)


def test_maps_survive_packing_to_a_thousandth_or_a_65533rd_of_their_range() -> None:
    maps = np.array([[-300.0, -np.inf, 0.0, 12.5, np.nan], [1.0, 1.0004, 1.5, -np.inf, np.nan]])
    unpacked = unpack(pack(maps))
    np.testing.assert_allclose(unpacked[0], maps[0], atol=312.5 / 65533)
    np.testing.assert_allclose(unpacked[1], maps[1], atol=1e-3)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 100, (3, 2080))
    np.testing.assert_allclose(unpack(pack(noise)), noise, atol=np.ptp(noise) / 65533)
    for value in (-np.inf, np.nan, 2.0):
        np.testing.assert_array_equal(unpack(pack(np.full((1, 3), value))), [[value] * 3])


@pytest.mark.parametrize(("unit", "nats"), [("decades", DECADE), ("nats", 1.0)])
def test_the_page_holds_maps_and_curves_of_a_run(unit: Any, nats: float, tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(6, rates=(-0.5, -0.1)), length=6)
    data = explorer_data(load_runs(tmp_path), unit=unit)
    (run,) = data["settings"]
    before, after = run["maps"]
    assert (run["name"], run["status"], run["seeds"]) == ("RNN", "", [])
    assert (before["step"], after["step"]) == (0, 100)
    assert before["numbers"] == f"decay rate −{0.5 / nats:.3g} {unit}/step; horizon 2 steps"
    assert after["numbers"] == f"decay rate −{0.1 / nats:.3g} {unit}/step; never falls to 1/e"
    assert after["curve"] == pytest.approx([-0.1 * lag / nats for lag in range(7)], abs=5e-4)
    row, column = np.tril_indices(7)
    expected = [rate * (row - column) / nats for rate in (-0.5, -0.1)]
    np.testing.assert_allclose(unpack(run["values"]), expected, atol=1e-3)
    assert data["limit"] == {"decades": 2, "nats": 5}[unit]  # norms of 1/100 … 100, or e^±5


def test_seeds_are_one_setting_with_mean_interval_and_spread(tmp_path: Path) -> None:
    write_seeds(tmp_path)
    write_seeds(tmp_path, gain=2.0)
    one, two = explorer_data(load_runs(tmp_path), unit="nats")["settings"]
    assert (one["name"], two["name"]) == ("gain 1", "gain 2")
    assert one["status"] == "5 seeds"
    assert [seed["name"] for seed in one["seeds"]] == [f"seed {i}" for i in range(5)]
    before, after = one["maps"]
    mean = statistics.mean(RATES)
    np.testing.assert_allclose(before["curve"], mean * np.arange(9), atol=1e-3)
    row, column = np.tril_indices(9)
    np.testing.assert_allclose(unpack(one["values"])[1], mean / 2 * (row - column), atol=1e-3)
    horizons = [-1 / rate for rate in RATES]
    spread, reach = statistics.stdev(RATES), statistics.stdev(horizons)
    assert before["numbers"] == (  # as precise as the deviation's first digit
        f"decay rate −{-mean:.2f} ± {spread:.2f} nats/step; "
        f"horizon {statistics.mean(horizons):.1f} ± {reach:.1f} steps"
    )
    assert after["note"] == "mean of 5 seeds; band: 95 % bootstrap interval of the mean"
    resampled = [8 * statistics.mean(seeds) for seeds in product(RATES, repeat=5)]  # all there are
    exact = np.quantile(resampled, (0.025, 0.975))
    np.testing.assert_allclose((before["low"][8], before["high"][8]), exact, atol=0.06)
    assert (before["low"][0], before["high"][0]) == (0, 0)


def test_the_mean_ends_where_the_first_seed_is_exactly_zero(tmp_path: Path) -> None:
    for seed, reach in enumerate((np.inf, np.inf, np.inf, 5, 2)):
        write_point(tmp_path / str(seed), geometric(8, (-1.0 - seed,), reach=reach), seed=seed)
    (setting,) = explorer_data(load_runs(tmp_path), unit="nats")["settings"]
    (map_,) = setting["maps"]
    assert map_["curve"] == [0, -3, -6, *[None] * 6]
    for limit in (map_["low"], map_["high"]):
        assert [x is None for x in limit] == [x is None for x in map_["curve"]]
    assert map_["horizon"] == [pytest.approx(1 / 3, abs=1e-3), -1]
    assert "2 of 5 seeds are exactly zero from some lag on: the mean ends" in map_["note"]
    pairs = 8 * 9 / 2  # k < t; of the two seeds those of lags 6, 7, 8 and 3 to 8 are zero
    share = ((3 + 2 + 1) + (6 + 5 + 4 + 3 + 2 + 1)) / (5 * pairs)
    assert f"{share:.1%} of the pairs exactly zero" in map_["numbers"]
    assert [seed["maps"][0]["curve"][3] for seed in setting["seeds"]] == [-3, -6, -9, -12, None]
    row, column = np.tril_indices(9)
    at_lag_four = unpack(setting["values"])[0][row - column == 4]
    np.testing.assert_allclose(at_lag_four, -4 * np.mean([1, 2, 3, 4]), atol=1e-3)


def test_a_horizon_that_no_curve_shows_is_not_marked() -> None:
    lags, zero = np.arange(5.0), np.array([0.0, 0, -np.inf, -np.inf, -np.inf])
    horizons = {}
    for name, profile in (("falling", -lags / 2), ("flat", 0 * lags), ("zero", zero)):
        reading = Reading(profile, profile, 0.0)
        horizons[name] = mean_curve([reading], [0, 3, 6, 9, 12], 3, "decades")["horizon"]
    assert horizons.pop("falling") == [6, pytest.approx(-1 / DECADE, abs=1e-3)]
    assert horizons == {"flat": None, "zero": None}


def test_of_fewer_than_four_seeds_each_is_a_line(tmp_path: Path) -> None:
    write_seeds(tmp_path, RATES[:3])
    (setting,) = explorer_data(load_runs(tmp_path))["settings"]
    assert [map_["note"] for map_ in setting["maps"]] == ["mean of 3 seeds, each a thin line"] * 2
    assert all("low" not in map_ for map_ in setting["maps"])
    assert setting["maps"][1]["of"] == [1, 1, 1]


def test_every_point_counts_as_a_seed_of_its_setting_with_a_map_or_without(tmp_path: Path) -> None:
    for seed in range(5):
        maps = geometric(4) if seed < 2 else None
        state = "failed" if maps is None else "done"
        write_point(tmp_path / str(seed), maps, seed=seed, state=state)
        write_point(tmp_path / f"2-{seed}", None, seed=seed, gain=2.0, state="failed")
    write_point(tmp_path / "3-0", None, gain=3.0)
    write_point(tmp_path / "4-0", geometric(4), gain=4.0)
    write_point(tmp_path / "4-1", None, gain=4.0, seed=1, state="interrupted")
    write_point(tmp_path / "5-0", None, gain=5.0)
    runs = load_runs(tmp_path)
    runs.loc[runs["init.gain"] == 5, "status"] = "damaged"
    data = explorer_data(runs)
    some, one = data["settings"]
    assert (some["status"], one["status"]) == ("5 seeds, 3 failed", "2 seeds, 1 interrupted")
    assert [seed["name"] for seed in some["seeds"]] == ["seed 0", "seed 1"]
    assert some["unmeasured"] == [f"seed {i} (failed)" for i in (2, 3, 4)]
    assert some["maps"][1]["note"] == "mean of 2 of 5 seeds, each a thin line"
    assert one["maps"][1]["note"] == "1 of 2 seeds"
    assert data["unshown"] == (
        "Without a map: gain 2 (5 seeds, 5 failed, the first: so); gain 3 (without a map); "
        "folder 5-0 (damaged)."
    )


def test_a_seed_that_diverged_or_was_done_early_takes_no_step_from_the_others(
    tmp_path: Path,
) -> None:
    for seed in range(5):
        write_point(tmp_path / str(seed), geometric(4, (-0.2, -0.1, -0.3)), seed=seed)
    write_point(tmp_path / "5", geometric(4, (-9.0,)), seed=5, state="diverged")
    early = geometric(4, (-0.2, -0.5)).assign_coords(step=[0, 100])  # at 200 as at 100
    write_point(tmp_path / "6", early, seed=6)
    (setting,) = explorer_data(load_runs(tmp_path), unit="nats")["settings"]
    assert setting["status"] == "7 seeds, 1 diverged"
    assert [map_["step"] for map_ in setting["maps"]] == [0, 100, 200]
    assert [map_["of"][-2:] for map_ in setting["maps"]] == [[0, 0], [None, 1], [None, 1]]
    assert setting["maps"][2]["curve"][1] == pytest.approx((5 * -0.3 - 0.5) / 6, abs=1e-3)
    assert setting["maps"][2]["note"].startswith("mean of 6 of 7 seeds; band")


@pytest.mark.parametrize("others", [(), ("done",), ("failed",)])
def test_runs_that_diverged_are_in_no_mean_after_training(
    others: tuple[str, ...], tmp_path: Path
) -> None:
    for seed, state in enumerate(("diverged", "diverged", *others)):
        rates = (-0.2, -0.4, -0.6) if state == "done" else (-0.1, -0.3, -9.0)
        write_point(tmp_path / str(seed), geometric(4, rates), seed=seed, state=state)
    (setting,) = explorer_data(load_runs(tmp_path), unit="nats")["settings"]
    assert setting["maps"][0]["of"] == [0] * (2 + len(others))
    assert setting["maps"][-1]["step"] == (200 if others else 0)
    assert all(map_["of"][:2] == [None, None] for map_ in setting["maps"][1:])
    for seed in setting["seeds"][:2]:  # which are shown by themselves, to their last step
        assert [map_["step"] for map_ in seed["maps"]] == [0, 100, 200]
        assert seed["status"] == "diverged"


def test_of_many_training_steps_the_first_and_the_last_are_kept(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(4, tuple(np.linspace(-1, 0, 31))))
    (run,) = explorer_data(load_runs(tmp_path), steps=4)["settings"]
    assert [map_["step"] for map_ in run["maps"]] == [0, 1000, 2000, 3000]


def test_all_steps_of_a_sequence_of_64_are_kept(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(64, (-0.1,)), length=64)
    (run,) = explorer_data(load_runs(tmp_path))["settings"]
    assert run["t"] == [*range(65)]


def test_long_maps_are_cut_and_their_first_lags_are_not(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(100, (-0.1,)), length=100)
    (run,) = explorer_data(load_runs(tmp_path), cells=5, unit="nats")["settings"]
    assert run["t"] == [0, 25, 50, 75, 100]
    assert run["measured"] == {"t": 101, "steps": 1}
    assert run["lags"] == [*range(17), 25, 50, 75, 100]
    np.testing.assert_allclose(run["maps"][0]["curve"], -0.1 * np.array(run["lags"]), atol=1e-3)


RISING = np.array([0.0, 1.0, 2.0, 1.5, 0.5, -0.5, -0.8])  # vanishing, but never falls to 1/e


@pytest.mark.parametrize(
    ("profile", "decades", "nats"),
    [
        (
            RISING,
            "to 7.4 at lag 4, falls to 0.45 at lag 12, stays below 1 from lag 10",
            "2.00 nats at",
        ),
        (
            RISING + 10,
            "7.4 at lag 4, falls to 0.45 at lag 12, stays below",
            "(1 is the norm at lag 0)",
        ),
        (
            np.array([-np.inf, 0.5, 1.0, -np.inf]),
            "1.6 at lag 4, falls to exactly 0 at lag 6",
            "0.50",
        ),
        (-np.arange(5.0), "", ""),
        (np.arange(5.0), "", ""),
        (np.full(3, -np.inf), "", ""),
        (np.full(3, np.nan), "", ""),
    ],
)
def test_a_curve_that_first_rises_is_told_by_its_peak_and_end(
    profile: np.ndarray, decades: str, nats: str
) -> None:
    for unit, expected in (("decades", decades), ("nats", nats)):
        said = course(profile, 2, unit)  # type: ignore[arg-type]
        assert expected in said
        assert bool(said) == bool(expected)


def numbers(profiles: list[np.ndarray], stride: int, unit: Any) -> str:
    """The words on curves of networks without zeros."""
    mean, *_ = mean_and_limits(np.stack(profiles, axis=1), "none")
    return words.numbers(profiles, [0.0] * len(profiles), mean, stride, unit)


def test_horizons_that_some_seeds_never_reach_are_counted() -> None:
    lags = np.arange(5.0)
    falling = [-0.5 * lags, -1.0 * lags]
    assert "horizon 1.5 ± 0.7 steps in 2 of 3 seeds, never in 1" in numbers(
        [*falling, 0 * lags], 1, "nats"
    )
    zero, unmeasured = np.full(5, -np.inf), np.full(5, np.nan)
    assert "/step in 2 of 3 seeds" in numbers([*falling, zero], 1, "nats")
    assert numbers([zero], 1, "nats") == "exactly zero at every lag; never falls to 1/e"
    assert numbers([unmeasured], 1, "nats") == "not measured"
    assert numbers([RISING], 1, "decades").endswith(
        "decades/step; never falls to 1/e; "
        "rises to 7.4 at lag 2, falls to 0.45 at lag 6, stays below 1 from lag 5"
    )


@pytest.mark.parametrize(
    ("decades", "expected"),
    [(-5.7, "falls to 2·10⁻⁶ at"), (3.6, "falls to 4·10³ at"), (-400, "falls to 1·10⁻⁴⁰⁰ at")],
)
def test_exponents_are_written_as_on_the_axis(decades: float, expected: str) -> None:
    profile = np.array([0, 5, decades]) * DECADE
    assert expected in numbers([profile], 1, "decades")
    rates = [np.arange(3.0) * rate * DECADE for rate in (1e-8, 2e-8)]
    assert "+1.5·10⁻⁸ ± 7·10⁻⁹ decades/step" in numbers(rates, 1, "decades")


def test_the_page_opens_on_the_longest_maps_of_each_model(tmp_path: Path) -> None:
    for i, (model, length) in enumerate(
        [("rnn", 4), ("lstm", 4), ("rnn", 12), ("gru", 12), ("rnn", 12), ("lstm", 12)]
    ):
        write_point(tmp_path / str(i), geometric(length), model=model, length=length, gain=1.0 + i)
    runs = load_runs(tmp_path)
    data = explorer_data(runs)
    opened = [data["settings"][i] for i in data["open"]]
    assert [(x["model"], x["t"][-1]) for x in opened] == [("rnn", 12), ("lstm", 12)]
    assert [data["shades"][name][0] for name in ("rnn", "gru", "lstm")] == [
        [style.model_colours(runs)[name]] for name in ("rnn", "gru", "lstm")
    ]


def test_twenty_four_runs_with_many_steps_stay_small(tmp_path: Path) -> None:
    maps = geometric(64, rates=tuple(np.linspace(-0.5, 0, 12)))
    write_point(tmp_path / "0", maps, length=64)
    page = explorer_page(explorer_data(copies(load_runs(tmp_path), 24)))
    assert len(page) < 1_000_000
    assert "://" not in page  # nothing is fetched


def test_runs_of_several_sweeps_are_told_apart(tmp_path: Path) -> None:
    for i in range(2):
        write_point(tmp_path / str(i), geometric(4))
    runs = load_runs(tmp_path).assign(sweep=["reach/today", "reach/tomorrow"])
    names = [setting["name"] for setting in explorer_data(runs)["settings"]]
    assert names == ["sweep reach/today", "sweep reach/tomorrow"]


def test_runs_of_one_setting_measured_at_other_steps_are_not_averaged(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(8), seed=0)
    write_point(tmp_path / "1", geometric(8, stride=2), seed=1)
    shown = explorer_data(load_runs(tmp_path))["settings"]
    assert [len(setting["t"]) for setting in shown] == [9, 5]
    assert [setting["seeds"] for setting in shown] == [[], []]


def test_a_run_without_a_map_is_named_with_its_probe(tmp_path: Path) -> None:
    maps = geometric(4)
    write_point(tmp_path / "0", maps.rename(jacobian_log_norm="lyapunov_exponent"))
    with pytest.raises(
        ValueError, match=r"no point measured jacobian_log_norm.*probe=\[spectral\]"
    ):
        explorer_data(load_runs(tmp_path))
