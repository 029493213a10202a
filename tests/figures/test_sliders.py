"""A slider shows each value's figure, with Python behind it and without."""

import json
import re
from base64 import b64decode
from io import BytesIO

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gradlab import figures

drawn: list[float] = []


def draw(value: float) -> Figure:
    drawn.append(value)
    figure, ax = plt.subplots(figsize=(2, 1))
    ax.bar([0], [value])
    ax.set_ylim(0, 2)
    return figure


def slider() -> figures.Slider:
    drawn.clear()
    return figures.Slider(draw, [0.5, 1.0, 2.0], label='gain "g"', start=1.0)


def test_a_page_has_the_figure_of_every_value() -> None:
    page = slider().html()
    frames = json.loads(re.search(r"frames = (\[.*?\]), values", page)[1])  # type: ignore[index]
    pictures = [Image.open(BytesIO(b64decode(frame))).convert("L") for frame in frames]
    ink = [sum(picture.histogram()[:200]) for picture in pictures]
    assert ink[0] < ink[1] < ink[2]  # the bars grow
    assert 'values = ["0.5", "1.0", "2.0"]' in page
    assert 'max="2" value="1"' in page
    assert 'aria-label="gain &quot;g&quot;"' in page
    assert not plt.get_fignums()  # else a notebook shows them a second time


def test_a_notebook_draws_what_it_is_asked_for_and_keeps_it() -> None:
    pytest.importorskip("ipywidgets", reason="ipywidgets, which moves the slider, is missing")
    moved = slider()
    control, image = moved.widget().children
    assert drawn == [1.0]
    control.value = 2
    assert image.value == moved.picture(2)
    assert image.value != moved.picture(1)
    control.value = 1
    assert drawn == [1.0, 2.0]


def test_pages_get_frames_and_notebooks_a_widget(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipywidgets", reason="ipywidgets, which moves the slider, is missing")
    monkeypatch.setenv("GRADLAB_SLIDER_FRAMES", "1")
    assert "<input" in slider()._repr_mimebundle_()["text/html"]
    monkeypatch.delenv("GRADLAB_SLIDER_FRAMES")
    assert "application/vnd.jupyter.widget-view+json" in slider()._repr_mimebundle_()


def test_a_slider_needs_values_and_starts_at_one_of_them() -> None:
    with pytest.raises(ValueError, match="needs values"):
        figures.Slider(draw, [], label="g")
    with pytest.raises(ValueError, match=r"one of \[1\]; got 2"):
        figures.Slider(draw, [1], label="g", start=2)
