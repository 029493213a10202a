"""Maps as one picture, with axes and a colour bar, at the cost of their pixels.

Matplotlib draws the frame once; the maps of every point are then laid into a copy of it. (A figure
for each point would cost a sweep a quarter of a second a point.)
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradlab.figures import style
from gradlab.figures.map_images import MAX_LIMIT, map_pixels, norm_ticks

DPI = 100
LEFT, RIGHT, TOP, BOTTOM, GAP = 72, 120, 34, 52, 36  # pixels around the panels and between them
BAR_GAP, BAR = 20, 14  # pixels between the panels and the colour bar, and its width


class _Frame(NamedTuple):
    pixels: UInt8[np.ndarray, "height width 4"]
    lefts: list[int]  # of the panels; their top is TOP


def map_picture(
    maps: Sequence[Float[np.ndarray, "t k"]],
    titles: Sequence[str],
    *,
    stride: int = 1,
    label: str = "norm",
    side: int = 320,
) -> UInt8[np.ndarray, "height width 4"]:
    """Return maps side by side as a picture, RGBA: axes in steps, and a colour bar in decades.

    The colours end at ±MAX_LIMIT, so that pictures of several runs compare. Norms that are exactly
    zero are grey.

    Args:
        maps: log norms, nats, all of one size; only k ≤ t is shown.
        titles: one over each.
        stride: steps from one row to the next.
        label: of the colour bar.
        side: pixels along an axis of a map, at most; at least half of them.
    """
    panels = [map_pixels([log_norms], side) for log_norms in maps]
    size = len(panels[0])
    frame = _frame(size, len(maps[0]), stride, tuple(titles), label)
    picture = frame.pixels.copy()
    for left, panel in zip(frame.lefts, panels, strict=True):
        picture[TOP : TOP + size, left : left + size] = panel
    return picture


@lru_cache(maxsize=16)
def _frame(size: int, cells: int, stride: int, titles: tuple[str, ...], label: str) -> _Frame:
    """Draw all but the maps: panels of `size` pixels, for `cells` cells of `stride` steps."""
    low, high = -stride / 2, stride * (cells - 0.5)
    lefts = [LEFT + number * (size + GAP) for number in range(len(titles))]
    bar_left, height = lefts[-1] + size + BAR_GAP, TOP + size + BOTTOM
    width = bar_left + BAR + RIGHT

    def box(left: int, wide: int) -> tuple[float, float, float, float]:
        return (left / width, BOTTOM / height, wide / width, size / height)

    with style.theme("notebook"):
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        canvas = FigureCanvasAgg(figure)
        for left, title in zip(lefts, titles, strict=True):
            axes = figure.add_axes(box(left, size))
            axes.set(xlim=(low, high), ylim=(high, low), xlabel="k (steps)", title=title)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelleft=left == LEFT)  # the panels share their axes
        figure.axes[0].set_ylabel("t (steps)")
        bar = figure.add_axes(box(bar_left, BAR))
        colours = ScalarMappable(Normalize(-MAX_LIMIT, MAX_LIMIT), style.norm_colours())
        norm_ticks(figure.colorbar(colours, cax=bar, label=label, extend="both"), MAX_LIMIT)
        canvas.draw()
        return _Frame(np.asarray(canvas.buffer_rgba()).copy(), lefts)
