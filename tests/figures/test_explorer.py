"""The interactive page holds maps and curves of settings and seeds, and a browser shows them."""

import base64
import json
import shutil
import statistics
import zlib
from collections.abc import Callable, Iterator
from itertools import accumulate, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_sweeps import geometric, write_point

from gradlab import load_runs
from gradlab.figures import style
from gradlab.figures.bands import interval_of_mean
from gradlab.figures.explorer import explorer_data, explorer_page
from gradlab.figures.explorer.packing import pack
from gradlab.figures.explorer.words import course, numbers

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
]
DECADE = np.log(10)
RATES = (-0.50, -0.42, -0.61, -0.35, -0.47)  # of five seeds, nats per step


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


def write_seeds(folder: Path, rates: tuple[float, ...] = RATES, **options: Any) -> None:
    for seed, rate in enumerate(rates):
        maps = geometric(8, rates=(rate, rate / 2))
        write_point(
            folder / f"{options.get('model', 'a')}{seed}-{options.get('gain', 1)}",
            maps,
            seed=seed,
            **options,
        )


def copies(runs: pd.DataFrame, count: int) -> pd.DataFrame:
    """The run of a table so many times, as if the gain varied."""
    many = runs.loc[[0] * count].reset_index(drop=True)
    return many.assign(**{"init.gain": 1.0 + np.arange(count)})


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
    assert before["numbers"] == (
        f"decay rate −{-mean:.3f} ± {spread:.3f} nats/step; "
        f"horizon {statistics.mean(horizons):.2f} ± {reach:.2f} steps"
    )
    assert after["note"] == "mean of 5 seeds; band: 95 % bootstrap interval of the mean"
    resampled = [8 * statistics.mean(seeds) for seeds in product(RATES, repeat=5)]  # all there are
    exact = np.quantile(resampled, (0.025, 0.975))
    np.testing.assert_allclose((before["low"][8], before["high"][8]), exact, atol=0.06)
    assert (before["low"][0], before["high"][0]) == (0, 0)


def test_the_interval_leaves_zeros_out_as_the_mean_does() -> None:
    curves = np.array(
        [[0.0, -1, -np.inf], [0, -2, -np.inf], [0, -np.inf, -np.inf], [0, -3, np.nan]]
    )
    low, high = interval_of_mean(curves.T)
    assert (low[0], high[0]) == (0, 0)
    assert -3 <= low[1] < -2 < high[1] <= -1
    assert np.isnan([low[2], high[2]]).all()


def test_of_fewer_than_four_seeds_each_is_a_line(tmp_path: Path) -> None:
    write_seeds(tmp_path, RATES[:3])
    (setting,) = explorer_data(load_runs(tmp_path))["settings"]
    assert [map_["note"] for map_ in setting["maps"]] == ["mean of 3 seeds, each a thin line"] * 2
    assert all("low" not in map_ for map_ in setting["maps"])
    assert setting["maps"][1]["of"] == [1, 1, 1]


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


def test_of_many_training_steps_the_first_and_the_last_are_kept(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(4, tuple(np.linspace(-1, 0, 31))))
    (run,) = explorer_data(load_runs(tmp_path), steps=4)["settings"]
    assert [map_["step"] for map_ in run["maps"]] == [0, 1000, 2000, 3000]


def test_long_maps_are_cut_and_their_first_lags_are_not(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(100, (-0.1,)), length=100)
    (run,) = explorer_data(load_runs(tmp_path), cells=5, unit="nats")["settings"]
    assert run["t"] == [0, 25, 50, 75, 100]
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


def test_horizons_that_some_seeds_never_reach_are_counted() -> None:
    lags = np.arange(5.0)
    falling = [-0.5 * lags, -1.0 * lags]
    assert "horizon 1.50 ± 0.71 steps in 2 of 3 seeds, never in 1" in numbers(
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not on the PATH")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Open a page and wait for its maps; in the end nothing has gone wrong in the console."""

    def open_page(page: str) -> None:
        path = tmp_path / "explore.html"
        path.write_text(page, encoding="utf-8")
        browser.get(path.as_uri())
        until(browser, "return performance.getEntriesByName('first maps').length === 1")

    yield open_page
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def until(browser: Any, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20, 0.05).until(lambda driver: driver.execute_script(condition))


def all_of(browser: Any, selector: str) -> list[Any]:
    return browser.find_elements("css selector", selector)


def maps_are(browser: Any, count: int) -> None:
    until(browser, f"return document.querySelectorAll('#maps canvas').length === {count}")


def colour_at(browser: Any, canvas: int, row: int) -> list[int]:
    pixel = f"getImageData(0, {row}, 1, 1).data"
    context = f"document.querySelectorAll('#maps canvas')[{canvas}].getContext('2d')"
    return browser.execute_script(f"return [...{context}.{pixel}]")


def test_a_browser_shows_settings_seeds_and_values(
    browser: Any, show: Callable[[str], None], tmp_path: Path
) -> None:
    from selenium.webdriver import Keys
    from selenium.webdriver.common.action_chains import ActionChains

    write_seeds(tmp_path)
    write_seeds(tmp_path, (0.25, 0.25), model="lstm")
    show(explorer_page(explorer_data(load_runs(tmp_path))))

    def value_line() -> str:
        return all_of(browser, "#value")[0].text

    maps_are(browser, 4)  # before beside after, of both models
    assert [x.text for x in all_of(browser, "figcaption b")] == ["before training", "step 100"] * 2
    assert len(all_of(browser, "#decay .band")) == 1  # of five seeds, not of two
    assert len(all_of(browser, "#decay .seed")) == 2
    assert len(all_of(browser, "#decay .curve")) == 4 + 2
    note = all_of(browser, "#note")[0].text
    assert "RNN: mean of 5 seeds; band: 95 % bootstrap interval of the mean." in note
    assert "LSTM: mean of 2 seeds, each a thin line." in note
    red, _, blue, _ = colour_at(browser, 3, 8)
    assert red > blue  # the LSTM's norms grow
    red, _, blue, _ = colour_at(browser, 0, 8)
    assert red < blue
    labels = {label.text for label in all_of(browser, "#decay text")}
    assert {"1", "10⁻¹", "lag t − k (steps)"} <= labels

    before = all_of(browser, "#maps canvas")[0]
    ActionChains(browser).move_to_element_with_offset(before, -90, 90).perform()
    mean = statistics.mean(RATES) * 8
    assert value_line() == (
        f"RNN: t = 8, k = 0, lag 8: before training norm {np.exp(mean):.3g} "
        f"(−{-mean / DECADE:.3f} decades), step 100 norm {np.exp(mean / 2):.3g} "
        f"(−{-mean / 2 / DECADE:.3f} decades)"
    )
    before.send_keys(Keys.ARROW_UP)
    before.send_keys(Keys.ARROW_RIGHT)
    assert "t = 7, k = 1, lag 6" in value_line()

    all_of(browser, ".entry button")[0].click()
    boxes = all_of(browser, "#settings input")
    assert len(boxes) == 2 + 5
    boxes[1].send_keys(Keys.SPACE)  # seed 0
    maps_are(browser, 6)
    headings = [heading.text for heading in all_of(browser, "h3")]
    assert headings == ["RNN", "LSTM", "RNN, seed 0"]
    boxes[2].send_keys(Keys.SPACE)
    maps_are(browser, 8)
    assert [box.is_enabled() for box in boxes] == [True] * 3 + [False] * 3 + [True]
    for box in boxes:
        if box.is_selected():
            box.send_keys(Keys.SPACE)
    maps_are(browser, 0)
    all_of(browser, "#filter")[0].send_keys("lstm")
    assert [x.text for x in all_of(browser, ".entry > label") if x.is_displayed()] == ["LSTM"]


def test_a_browser_plays_the_training_by_click_and_key(
    browser: Any, show: Callable[[str], None], tmp_path: Path
) -> None:
    from selenium.webdriver import Keys

    write_point(tmp_path / "0", geometric(8, rates=(-0.5, 0.1, 0.2, 0.5)))
    show(explorer_page(explorer_data(load_runs(tmp_path))))
    seen = "window.seen = new Set(); new MutationObserver(() => seen.add(byId('at').textContent))"
    browser.execute_script(f"{seen}.observe(byId('at'), {{childList: true}})")
    play, at = all_of(browser, "#play")[0], all_of(browser, "#at")[0]
    assert (at.text, play.text) == ("300", "▶ Play")  # opens after training
    browser.execute_script("byId('speed').value = 350")
    play.click()
    assert play.text == "❚❚ Pause"
    until(browser, "return byId('play').textContent === '▶ Play'")  # which ends by itself
    assert browser.execute_script("return [...seen]") == ["0", "100", "200", "300"]
    assert colour_at(browser, 0, 8) != colour_at(browser, 1, 8)  # the left map stays the first

    canvas = all_of(browser, "#maps canvas")[1]
    browser.execute_script("byId('speed').value = 1400")
    canvas.send_keys(Keys.SPACE)
    until(browser, "return byId('at').textContent === '100'")
    canvas.send_keys(Keys.SPACE)  # pauses
    assert play.text == "▶ Play"
    all_of(browser, "#step")[0].send_keys(Keys.ARROW_LEFT)
    assert (at.text, all_of(browser, "figcaption b")[1].text) == ("0", "before training")


def test_a_phone_shows_all_without_scrolling_sideways(
    browser: Any, show: Callable[[str], None], tmp_path: Path
) -> None:
    write_seeds(tmp_path)
    write_seeds(tmp_path, model="lstm")
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        show(explorer_page(explorer_data(load_runs(tmp_path))))
        maps_are(browser, 4)
        wide = "return document.documentElement.scrollWidth"
        assert browser.execute_script(wide) == 360
        boxes = [x.rect for x in all_of(browser, "#decay text")]
        assert all(x["x"] >= 0 and x["x"] + x["width"] <= 360 for x in boxes)
        assert min(x["height"] for x in boxes) > 10  # text is not shrunk with its picture
        before, after = (x.rect for x in all_of(browser, "#maps canvas")[:2])
        assert before["y"] == after["y"]
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_two_hundred_maps_of_256_steps_show_within_two_seconds(
    browser: Any, show: Callable[[str], None], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    maps = geometric(256, rates=tuple(-0.5 / (1 + np.arange(12)))).isel(sample=[0])
    noise = rng.normal(0, 0.1, maps["jacobian_log_norm"].shape)  # which does not compress
    write_point(tmp_path / "0", (maps + noise).assign_attrs(maps.attrs), length=256)
    page = explorer_page(explorer_data(copies(load_runs(tmp_path), 17)))
    data = json.loads(page[page.index('json">') + 6 : page.index("</script>")])
    assert sum(len(setting["maps"]) for setting in data["settings"]) == 204
    assert len(page) < 3_000_000
    show(page)
    drawn = browser.execute_script("return performance.getEntriesByName('first maps')[0].startTime")
    assert drawn < 2000  # ms since the navigation began; about 200 on two cores


NAMES = (
    '</script><script>document.title="x"</script>',
    '<!-- <script> <img src=x onerror="document.title=1">',
    "line\u2028line ${name} /*DATA*/ __proto__",
)


def hostile_page(folder: Path) -> str:
    for i in range(len(NAMES)):
        write_point(folder / str(i), geometric(4), gain=1.0 + i)
    runs = load_runs(folder).assign(**{"model.name": NAMES}, status='</script><b id="bold">')
    return explorer_page(explorer_data(runs.drop(columns="init.gain")))


def test_text_of_a_run_cannot_end_the_data(tmp_path: Path) -> None:
    page = hostile_page(tmp_path)
    start = page.index(">", page.index('id="data"')) + 1
    data = json.loads(page[start : page.index("<", start)])
    assert [setting["name"] for setting in data["settings"]] == list(NAMES)


def test_a_browser_shows_names_as_text(
    browser: Any, show: Callable[[str], None], tmp_path: Path
) -> None:
    show(hostile_page(tmp_path / "sweep"))
    assert browser.title == "gradlab: how far does the gradient reach?"
    status = '(</script><b id="bold">)'
    labels = [label.text for label in all_of(browser, ".entry label")]
    assert labels[:2] == [f"{name} {status}" for name in NAMES[:2]]
    assert [heading.text for heading in all_of(browser, "h3")] == list(NAMES[:2])
    assert all_of(browser, "#bold, img") == []


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
    with pytest.raises(ValueError, match=r"did not measure jacobian_log_norm.*probe=\[spectral\]"):
        explorer_data(load_runs(tmp_path))
