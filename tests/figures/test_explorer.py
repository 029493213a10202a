"""The interactive page holds the data of the maps, and a browser shows them."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_sweeps import geometric, write_point

from gradlab import load_runs
from gradlab.figures.explorer import explorer_data, explorer_page, pack

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


def unpack(values: dict[str, Any]) -> np.ndarray:
    codes = np.frombuffer(base64.b64decode(values["codes"]), "<u2").astype(float)
    numbers = np.where(codes == 0, -np.inf, values["low"] + (codes - 1) * values["step"])
    return np.where(codes == values["missing"], np.nan, numbers)


def test_maps_survive_packing_to_a_65534th_of_their_range() -> None:
    values = np.array([-300.0, -np.inf, 0.0, 12.5, -1e-3])
    np.testing.assert_allclose(unpack(pack(values)), values, atol=312.5 / 65534)
    assert (unpack(pack(np.full(3, -np.inf))) == -np.inf).all()
    assert unpack(pack(np.full(3, 2.0))).tolist() == [2, 2, 2]
    gaps = np.array([np.nan, -300.0, -np.inf, 12.5])
    np.testing.assert_allclose(unpack(pack(gaps)), gaps, atol=312.5 / 65533)
    assert np.isnan(unpack(pack(np.full(3, np.nan)))).all()


def test_the_page_holds_maps_curves_and_horizons(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(6, rates=(-0.5, -0.1)), length=6)
    (run,) = explorer_data(load_runs(tmp_path))["runs"]
    before, after = run["maps"]
    assert (before["step"], after["step"]) == (0, 100)
    assert before["horizon"] == pytest.approx(2)
    assert after["horizon"] is None
    assert after["curve"] == pytest.approx([-0.1 * lag for lag in range(7)], abs=1e-4)
    row, column = np.tril_indices(7)
    np.testing.assert_allclose(unpack(before["values"]), -0.5 * (row - column), atol=1e-4)


def test_twenty_four_runs_with_many_steps_stay_small(tmp_path: Path) -> None:
    maps = geometric(64, rates=tuple(np.linspace(-0.5, 0, 12)))
    for i in range(24):
        write_point(tmp_path / str(i), maps, length=64, gain=1.0 + i)
    page = explorer_page(explorer_data(load_runs(tmp_path)))
    assert len(page) < 3_000_000
    assert "://" not in page  # nothing is fetched


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not on the PATH")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def test_a_browser_shows_runs_steps_and_values(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver import Keys
    from selenium.webdriver.common.action_chains import ActionChains

    for i, (model, rate) in enumerate((("rnn", -0.5), ("lstm", 0.25))):
        write_point(tmp_path / str(i), geometric(8, rates=(rate, 2 * rate)), model=model)
    page = tmp_path / "explore.html"
    page.write_text(explorer_page(explorer_data(load_runs(tmp_path))))
    browser.get(page.as_uri())

    def all_of(selector: str) -> list[Any]:
        return browser.find_elements("css selector", selector)

    def value_line() -> str:
        return all_of("#value")[0].text

    (canvas,) = all_of("#maps canvas")
    ActionChains(browser).move_to_element_with_offset(canvas, -90, 90).perform()
    assert value_line() == "RNN, step 100: t = 8, k = 0, lag 8: -8.000 nats, norm 3.35e-4"

    slider, _ = all_of("#step")[0], all_of("#runs input")
    slider.send_keys(Keys.ARROW_LEFT)
    assert all_of("#at")[0].text == "0"
    canvas.send_keys(Keys.ARROW_UP)
    assert value_line() == "RNN, step 0: t = 7, k = 0, lag 7: -3.500 nats, norm 0.0302"
    canvas.send_keys(Keys.ARROW_RIGHT)
    assert "k = 1, lag 6: -3.000 nats" in value_line()

    all_of("#runs input")[1].send_keys(Keys.SPACE)
    assert len(all_of("#maps canvas")) == 2
    assert len(all_of("#decay polyline")) == 4  # before and now, of each
    red, _, blue = browser.execute_script(
        "return [...document.querySelectorAll('#maps canvas')[1]"
        ".getContext('2d').getImageData(0, 8, 1, 1).data].slice(0, 3)"
    )
    assert red > blue  # the LSTM's norms grow
    all_of("#filter")[0].send_keys("lstm")
    assert [label.text for label in all_of("#runs label") if label.is_displayed()] == ["LSTM"]
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


NAMES = (
    '</script><script>document.title="x"</script>',
    '<!-- <script> <img src=x onerror="document.title=1">',
    "line\u2028line ${name}",
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
    assert [run["name"] for run in data["runs"]] == list(NAMES)


def test_a_browser_shows_names_as_text(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "explore.html"
    path.write_text(hostile_page(tmp_path / "sweep"), encoding="utf-8")
    browser.get(path.as_uri())
    assert browser.title == "gradlab: how far does the gradient reach?"
    labels = browser.find_elements("css selector", "#runs label")
    status = '(</script><b id="bold">)'
    assert [label.text for label in labels[:2]] == [f"{name} {status}" for name in NAMES[:2]]
    caption = browser.find_element("css selector", "figcaption")
    assert caption.text == NAMES[0]
    assert browser.find_elements("css selector", "#bold, img") == []
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def test_runs_of_several_sweeps_are_told_apart(tmp_path: Path) -> None:
    for i in range(2):
        write_point(tmp_path / str(i), geometric(4))
    runs = load_runs(tmp_path).assign(sweep=["reach/today", "reach/tomorrow"])
    names = [run["name"] for run in explorer_data(runs)["runs"]]
    assert names == ["sweep reach/today", "sweep reach/tomorrow"]


def test_a_run_without_a_map_is_named_with_its_probe(tmp_path: Path) -> None:
    maps = geometric(4)
    write_point(tmp_path / "0", maps.rename(jacobian_log_norm="lyapunov_exponent"))
    with pytest.raises(ValueError, match=r"did not measure jacobian_log_norm.*probe=\[spectral\]"):
        explorer_data(load_runs(tmp_path))
