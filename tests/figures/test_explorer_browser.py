"""A browser shows the interactive page: settings, seeds, training, on a phone too, and in time."""

import json
import shutil
import statistics
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_sweeps import RATES, copies, geometric, write_point, write_seeds

from gradlab import load_runs
from gradlab.figures.explorer import explorer_data, explorer_page

DECADE = np.log(10)  # nats
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


def each_of(browser: Any, selector: str, value: str) -> list[Any]:
    """Return a value of each element x, all of one moment: the decay is drawn anew at any time."""
    elements = "[...document.querySelectorAll(arguments[0])]"
    return browser.execute_script(f"return {elements}.map(x => {value})", selector)


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
    assert [x.text for x in all_of(browser, "figcaption b")] == [
        f"{moment} ({count} seeds)"
        for count in (5, 2)
        for moment in ("before training", "step 100")
    ]
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
    labels = each_of(browser, "#decay text", "x.textContent")
    assert {"1", "10⁻¹", "lag t − k (steps)"} <= set(labels)

    before = all_of(browser, "#maps canvas")[0]
    ActionChains(browser).move_to_element_with_offset(before, -90, 90).perform()
    mean = statistics.mean(RATES) * 8
    assert value_line() == (
        f"RNN: t = 8, k = 0, lag 8: before training (5 seeds) norm {np.exp(mean):.3g} "
        f"(−{-mean / DECADE:.3f} decades); step 100 (5 seeds) norm {np.exp(mean / 2):.3g} "
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
    assert value_line() == ""
    boxes[0].send_keys(Keys.SPACE)
    maps_are(browser, 2)
    assert value_line().startswith("Point at a map")
    all_of(browser, "#filter")[0].send_keys("lstm")
    assert [x.text for x in all_of(browser, ".entry > label") if x.is_displayed()] == ["LSTM"]


def test_a_name_has_the_room_beside_a_long_status(
    browser: Any, show: Callable[[str], None], tmp_path: Path
) -> None:
    for i in range(8):
        gain, state = 1.0 + i // 4, "diverged" if i < 4 else "done"
        write_point(tmp_path / str(i), geometric(4), gain=gain, rate=gain, seed=i % 4, state=state)
    show(explorer_page(explorer_data(load_runs(tmp_path))))
    names = all_of(browser, ".entry > label")
    assert [x.text for x in names] == [f"gain {i}, learning rate {i}" for i in (1, 2)]
    one_line = 1.5 * all_of(browser, "legend")[0].size["height"]
    assert all(x.size["height"] < one_line for x in names)


def test_a_browser_shows_where_seeds_are_exactly_zero(
    browser: Any, show: Callable[[str], None], tmp_path: Path
) -> None:
    from selenium.webdriver import Keys

    for seed, reach in enumerate((np.inf, np.inf, np.inf, np.inf, 5)):
        write_point(tmp_path / str(seed), geometric(8, (-1.0 - seed,), reach=reach), seed=seed)
    show(explorer_page(explorer_data(load_runs(tmp_path))))
    maps_are(browser, 1)

    def lags(selector: str) -> list[tuple[float, float]]:
        """The first and the last lag of each line."""
        points = [x.split() for x in each_of(browser, selector, "x.getAttribute('points')")]
        ends = [[float(at.split(",")[0]) for at in (line[0], line[-1])] for line in points]
        right = max(x for _, x in ends)
        return [tuple(round(8 * (x - 62) / (right - 62), 6) for x in line) for line in ends]

    seeds = [(5, 8)] * 4 + [(5, 5)]  # from where the mean of all five ends
    assert lags("#decay .curve") == [*seeds, (0, 5)]
    assert len(all_of(browser, "#decay .horizon")) == 1
    assert "in some seeds" in all_of(browser, "#note")[0].text
    odd, even = colour_at(browser, 0, 7), colour_at(browser, 0, 8)  # lags 7 and 8
    assert odd[:3] == [128] * 3 != even[:3]
    all_of(browser, "#maps canvas")[0].send_keys(Keys.ARROW_DOWN)  # focus is on the longest lag
    mean = -8 * np.mean([1, 2, 3, 4]) / DECADE
    assert all_of(browser, "#value")[0].text.endswith(
        f"(−{-mean:.3f} decades), mean of 4 of 5 seeds: exactly zero in 1"
    )


def test_a_browser_shows_no_mean_of_diverged_seeds_as_one_after_training(
    browser: Any, show: Callable[[str], None], tmp_path: Path
) -> None:
    write_seeds(tmp_path, (-0.5, -0.4))
    write_point(tmp_path / "2", geometric(8), seed=2, state="diverged")
    write_seeds(tmp_path, (-0.3, -0.2), gain=2.0, state="diverged")
    show(explorer_page(explorer_data(load_runs(tmp_path))))
    browser.execute_script("choose(data.settings)")
    maps_are(browser, 3)
    assert [x.text for x in all_of(browser, "figcaption b")] == [
        "before training (3 seeds)",
        "step 100 (2 of 3 seeds)",
        "before training (2 seeds)",
    ]
    curves = (
        "return [...document.querySelectorAll('#decay g')].map(g => g.querySelectorAll({}).length)"
    )
    solid = "'.curve:not(.before)'"
    assert browser.execute_script(curves.format(solid)) == [3, 0]
    assert browser.execute_script(curves.format("'.before'")) == [1, 3]
    note = all_of(browser, "#note")[0].text
    assert "Gain 1: mean of 2 of 3 seeds, each a thin line; dashed: 3 seeds." in note
    assert "Seeds that diverged are in means before" in note


def test_a_filter_takes_whole_values_each_after_its_word(
    browser: Any, show: Callable[[str], None], tmp_path: Path
) -> None:
    swept = product((0.5, 1.0, 1.5), (1.0, 15.0, np.inf), range(2))
    for number, (gain, threshold, seed) in enumerate(swept):
        options: dict[str, Any] = {"gain": gain, "threshold": threshold, "seed": seed}
        write_point(tmp_path / str(number), geometric(4), **options)
    write_point(tmp_path / "18", geometric(4), gain=2.0, seed=0)
    write_point(tmp_path / "19", None, gain=2.0, seed=3, state="failed")
    show(explorer_page(explorer_data(load_runs(tmp_path))))

    def found(text: str) -> list[str]:
        browser.execute_script("byId('filter').oninput({target: {value: arguments[0]}})", text)
        return [x.text for x in all_of(browser, ".entry > label") if x.is_displayed()]

    at_one = [f"gain 1, clip threshold {x}" for x in ("1", "15", "none")]
    assert len(found("")) == 10
    for text in ("gain 1", "gain=1.0", "gai 1 clip"):
        assert found(text) == at_one, text
    assert found("gain 1, threshold none") == at_one[2:]
    assert found("threshold 5") == found("5 seeds") == []
    browser.execute_script("document.querySelectorAll('.entry button').forEach(x => x.click())")
    assert found("gain 1") == at_one  # also where seeds are listed, among them seed 1
    assert found("seed 1, gain 1") == found("gain=1 seed=1") == at_one
    assert found("seed 3") == ["gain 2, clip threshold none"]  # which has one seed more, and no map
    assert found("seed 2") == found("3 seed") == []


def test_a_page_says_what_it_does_not_show(
    browser: Any, show: Callable[[str], None], tmp_path: Path
) -> None:
    from selenium.webdriver import Keys

    write_point(tmp_path / "0", geometric(8, rates=(-0.5, 0.1, 0.2, 0.5)))
    show(explorer_page(explorer_data(load_runs(tmp_path), cells=5, steps=3)))
    (about,) = all_of(browser, "#maps small")
    assert about.text == (
        "t ↓ and k → from 0 to 8 (5 of 9 that were measured); "
        "training steps (3 of 4 that were measured)"
    )
    limit, ends = all_of(browser, "#limit")[0], all_of(browser, "#least, #most")
    limit.send_keys(Keys.CONTROL, "a")
    limit.send_keys("400")
    limit.send_keys("0000000")  # beyond what the field takes: the colours stay
    assert [x.text for x in ends] == ["≤ 10⁻⁴⁰⁰", "≥ 10⁴⁰⁰"]
    all_of(browser, "#settings input")[0].click()
    maps_are(browser, 0)
    assert "No setting is chosen: tick one" in all_of(browser, "#decay")[0].text
    browser.execute_script("byId('decay').style.width = 0; drawDecay()")  # before it is laid out
    assert "NaN" not in browser.execute_script("return byId('decay').innerHTML")


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
        boxes = each_of(browser, "#decay text", "x.getBoundingClientRect().toJSON()")
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
