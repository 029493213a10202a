"""In no figure of the catalogue do texts, panels and legends overlap, whatever its style and size.

Every figure is drawn in every style at 1, 2, 4 and 9 panels (3 rows × 3 columns), of a sweep with a
long name, numbers of five digits and points that failed. Boxes are those of the renderer. A third
of the drawings, each figure in every style and at every number of panels, is among the fast tests;
the others are slow ones.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import combinations, product
from math import inf
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from synthetic_sweeps import all_probes, metrics_with, write_point

from gradlab import load_runs, records
from gradlab.figures import style
from gradlab.figures.catalogue import FIGURES
from gradlab.figures.places import FORMATS

TOUCH = 1.5  # pixels, at 150 an inch, by which boxes may overlap: those of letters have margins
LEAST_SHARE = 1 / 3
MODELS = ("lstm", "rnn", "Residual_network_with_gates")
ROWS = (8, 64, 16384)  # lengths; of a phase diagram, thresholds
LEVELS = (0.5, 2.0, 12345.0)  # gains; of clipping, thresholds
COLUMNS_AND_ROWS = {1: (1, 1), 2: (2, 1), 4: (2, 2), 9: (3, 3)}
PICTURES = [name for name, entry in FIGURES.items() if entry.formats == FORMATS]
ALONE: Mapping[str, dict[str, Any]] = {  # figures of one size
    "views": {"point": 2},
    "error_surface": {"start": (5.0, -2.45), "learning_rate": 0.01, "threshold": 1.0, "updates": 9},
}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return the function from figure and number of panels to runs; records are read once."""
    folder = tmp_path_factory.mktemp("sweeps")

    @cache
    def sweep(kind: str) -> pd.DataFrame:
        for number, point in enumerate(points(kind)):
            probes = all_probes(4) if kind == "lines" else None
            metrics = None if kind == "phase" else metrics_with([3.0, 2.0, 1.0], 0.5)
            summary = {"eval/accuracy": 0.95, "jacobian/horizon": 12345.6}
            write_point(
                folder / kind / str(number), probes, **point, metrics=metrics, summary=summary
            )
        for seed in (1, 2):
            write_point(folder / kind / f"failed{seed}", None, **point, seed=seed, state="failed")
        return load_runs(folder / kind, "all")

    def runs(name: str, panels: int) -> pd.DataFrame:
        columns, rows = COLUMNS_AND_ROWS[panels]
        everything = sweep(name if name in ("phase", "clipping") else "lines")
        row = everything["clip.threshold" if name == "phase" else "task.length"]
        return everything[everything["model.name"].isin(MODELS[-columns:]) & row.isin(ROWS[-rows:])]

    with pytest.MonkeyPatch.context() as patch:
        for name in ("load_gradients", "load_metrics"):
            patch.setattr(records, name, cache(getattr(records, name)))
        yield runs


def points(kind: str) -> Iterator[dict[str, Any]]:
    """Yield the settings of a sweep over models and ROWS, and what a panel of a figure needs."""
    for model, row, level in product(MODELS, ROWS, LEVELS):
        if kind == "phase":
            for length in (8, 64, 16384):
                yield {"model": model, "threshold": row, "gain": level, "length": length}
        elif kind == "clipping":
            for rate in (0.01, 0.00012345):
                yield {"model": model, "length": row, "threshold": level, "rate": rate}
            yield {"model": model, "length": row, "threshold": inf, "rate": 0.01}
        else:
            yield {"model": model, "length": row, "gain": level}


def options(name: str, panels: int) -> dict[str, Any]:
    """Return the arguments of a figure that lay out a sweep in so many panels."""
    if name in ALONE:
        return ALONE[name]
    taken = {option.settings.get("dest", option.flag[2:]) for option in FIGURES[name].options}
    if not {"col", "row"} <= taken:
        return {}
    if name == "heatmap":
        columns, rows = COLUMNS_AND_ROWS[panels]
        where = {"init.gain": LEVELS[-columns:], "model.name": MODELS[-rows:]}
        return {"col": "init.gain", "row": "model.name", "step": "last", "where": where}
    row = "clip.threshold" if name == "phase" else "task.length"
    return {"col": "model.name", "row": row if panels > 2 else None}


def drawn(figure: Figure) -> list[Text]:
    """Lay a figure out as saving it does; return the texts that are drawn."""
    texts: list[Text] = []

    def draw(text: Text, renderer: Any) -> None:
        if text.get_visible() and text.get_text().strip():
            texts.append(text)
        original(text, renderer)

    original = Text.draw
    with style.theme(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", draw)
        figure.draw_without_rendering()
    return texts


def faults(figure: Figure) -> list[str]:
    """Return a sentence for each overlap, each cut-off text, and each panel that is too small.

    A panel's fair share is the area of its cell of the grid that it stands in, or of the largest
    square in that cell if it is a map, where the grid has all of the figure that title, legend,
    notes and colour bars leave, and labels have nothing. Colour bars are no panels.
    """
    texts = drawn(figure)
    boxes = [_box(text) for text in texts]
    names = [text.get_text().replace("\n", " ")[:30] for text in texts]
    found = []
    for (i, one), (j, other) in combinations(enumerate(boxes), 2):
        if one.overlaps(other):
            found.append(f"{names[i]!r} and {names[j]!r} overlap")
    for text, box, name in zip(texts, boxes, names, strict=True):
        for axes in figure.axes:
            inside = text in axes.texts and _contains(axes.bbox, box)
            if not inside and axes.bbox.overlaps(box):
                found.append(f"{name!r} lies on a panel")
        if not _contains(figure.bbox, box):
            found.append(f"{name!r} is cut off")
    return found + _legend_faults(figure) + _small_panels(figure)


def _box(text: Text) -> Bbox:
    """Return the box of a text's letters, without empty lines above them."""
    box, lines = text.get_window_extent(), text.get_text().count("\n") + 1
    empty = lines - text.get_text().lstrip().count("\n") - 1
    return Bbox([box.min, (box.x1, box.y1 - box.height * empty / lines)]).padded(-TOUCH)


def _contains(outer: Any, inner: Bbox) -> bool:
    return bool(
        outer.x0 <= inner.x0
        and outer.y0 <= inner.y0
        and inner.x1 <= outer.x1
        and inner.y1 <= outer.y1
    )


def _legend_faults(figure: Figure) -> list[str]:
    boxes = [legend.get_window_extent().padded(-TOUCH) for legend in figure.findobj(Legend)]
    on = any(axes.bbox.overlaps(box) for axes in figure.axes for box in boxes)
    cut = any(not _contains(figure.bbox, box) for box in boxes)
    return ["a legend lies on a panel"] * on + ["a legend is cut off"] * cut


def panels_of(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def _small_panels(figure: Figure) -> list[str]:
    around = [text for text in (figure._suptitle, figure._supxlabel) if text is not None]
    taken = sum(artist.get_window_extent().height for artist in (*around, *figure.findobj(Legend)))
    bars = [axes.get_tightbbox() for axes in figure.axes if axes not in panels_of(figure)]
    beside = sum(bar.width for bar in bars if bar is not None)
    body = Bbox.from_bounds(0, 0, figure.bbox.width - beside, figure.bbox.height - taken)
    found = []
    for axes in panels_of(figure):
        share = axes.bbox.width * axes.bbox.height / _fair_share(axes, body)
        if share < LEAST_SHARE:
            found.append(f"a panel has {share:.2f} of its share")
    return found


def _fair_share(axes: Axes, body: Bbox) -> float:
    """Return the area of a panel's cell of its grid, if the grid had all of `body`."""
    place = axes.get_subplotspec()
    assert place is not None
    grid = place.get_gridspec()
    widths, heights = np.array(grid.get_width_ratios()), np.array(grid.get_height_ratios())
    width = widths[list(place.colspan)].sum() / widths.sum()
    height = heights[list(place.rowspan)].sum() / heights.sum()
    width, height = float(width * body.width), float(height * body.height)
    return width * height if axes.get_aspect() == "auto" else min(width, height) ** 2


SPOILT: Mapping[str, Callable[[Any], object]] = {  # a fault: what makes it, in two panels
    "overlap": lambda panels: [panels[0].text(x, 0.5, "here") for x in (0.4, 0.5)],
    "lies on a panel": lambda panels: panels[0].text(1.3, 0.5, "far away"),
    "is cut off": lambda panels: panels[1].text(0.5, 0.5, "wider than what is left of its panel"),
    "of its share": lambda panels: panels[0].set_position((0.2, 0.2, 0.2, 0.2)),
    "a legend lies on a panel": lambda panels: panels[0].figure.legend(
        handles=panels[0].plot([0, 1], label="all"), loc="center"
    ),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_each_fault_is_found(fault: str) -> None:
    figure, body = style.new_figure(4.0, 3.0)
    panels = body.subplots(1, 2)
    style.finish(figure, ["A note."])
    assert faults(figure) == []
    figure.set_layout_engine("none")
    SPOILT[fault](panels)
    assert any(fault in found for found in faults(figure))


def cases() -> Iterator[Any]:
    for name, panels, look in product(PICTURES, COLUMNS_AND_ROWS, style.STYLES):
        if name in ALONE and panels > 1:
            continue
        places = (
            PICTURES.index(name),
            list(COLUMNS_AND_ROWS).index(panels),
            list(style.STYLES).index(look),
        )
        is_fast = name in ALONE or sum(places) % 3 == 0
        yield pytest.param(name, panels, look, marks=[] if is_fast else [pytest.mark.slow])


@pytest.mark.parametrize(("name", "panels", "look"), [*cases()])
def test_nothing_overlaps_and_every_panel_has_its_share(
    name: str, panels: int, look: str, sweeps: Any
) -> None:
    entry = FIGURES[name]
    given = (sweeps(name, panels),) if entry.has_runs else ()
    with style.theme(look):
        figure = resolve_name(entry.function)(*given, **options(name, panels)).figure
    if "col" in options(name, panels):
        assert len(panels_of(figure)) % panels == 0
    assert faults(figure) == []
