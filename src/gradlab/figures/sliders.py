"""A slider that moves a figure through the values of one setting, in a notebook or a web page."""

import json
import os
from base64 import b64encode
from collections.abc import Callable, Sequence
from html import escape
from io import BytesIO
from typing import Any, Generic, TypeVar
from uuid import uuid4

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

Value = TypeVar("Value")
DPI, WIDTH = 144, 700  # of a picture; pixels of a page
WITH_FRAMES = "GRADLAB_SLIDER_FRAMES"  # set where pages are built that no Python answers

_PAGE = """<div id="{id}" style="max-width: {width}px">
<label>{label} <b></b> <input type="range" min="0" max="{last}" value="{start}"
 style="width: 60%; vertical-align: middle" aria-label="{label}"></label>
<img alt="{label}" style="width: 100%">
</div>
<script>
(() => {{
  const root = document.getElementById("{id}"), frames = {frames}, values = {values};
  const slider = root.querySelector("input");
  const show = () => {{
    root.querySelector("img").src = "data:image/png;base64," + frames[slider.value];
    root.querySelector("b").textContent = values[slider.value];
  }};
  slider.addEventListener("input", show);
  show();
}})();
</script>"""


class Slider(Generic[Value]):
    """The last line of a notebook's cell: a figure, and a slider over the values it is drawn for.

    A value is drawn when the slider first comes to it, and kept. In a page that is built with the
    environment variable GRADLAB_SLIDER_FRAMES set, all values are drawn beforehand, so that the
    slider answers there too, without Python.

    Args:
        draw: returns the figure for a value.
        values: where the slider can stand, in their order.
        label: of the slider.
        start: where it stands first; by default at the first value.

    Raises:
        ValueError: there are no values, or `start` is none of them.

    Example:
        >>> def draw(gain):
        ...     tanh = nnx.SimpleCell(
        ...         3, 8, recurrent_kernel_init=nnx.initializers.orthogonal(gain), rngs=nnx.Rngs(0)
        ...     )
        ...     return gradlab.draw_decay(gradlab.jacobian_map(tanh, x)).figure
        >>> slider = gradlab.figures.Slider(draw, [0.5, 1.0, 1.5], label="gain g", start=1.0)
        >>> slider
        Slider(gain g: 0.5, 1.0, 1.5)
        >>> slider.figure(2).axes[0].get_xlabel()
        'lag t − k (steps)'
    """

    def __init__(
        self,
        draw: Callable[[Value], Figure],
        values: Sequence[Value],
        *,
        label: str,
        start: Value | None = None,
    ) -> None:
        """Check the values; nothing is drawn before the slider is shown."""
        self.draw, self.values, self.label = draw, list(values), label
        if not self.values:
            raise ValueError("a slider needs values to stand at; got none.")
        if start is not None and start not in self.values:
            raise ValueError(f"start must be one of {self.values}; got {start!r}.")
        self.start = 0 if start is None else self.values.index(start)
        self._pictures: dict[int, bytes] = {}

    def figure(self, place: int | None = None) -> Figure:
        """Return the figure of the value at a place, by default where the slider starts."""
        figure = self.draw(self.values[self.start if place is None else place])
        plt.close(figure)  # else a notebook shows it once more
        return figure

    def picture(self, place: int) -> bytes:
        """Return the figure of the value at a place, as PNG."""
        if place not in self._pictures:
            file = BytesIO()
            self.figure(place).savefig(file, format="png", dpi=DPI, bbox_inches="tight")
            self._pictures[place] = file.getvalue()
        return self._pictures[place]

    def html(self) -> str:
        """Return the slider and the figures of all its values as HTML that needs nothing else."""
        pictures = [self.picture(place) for place in range(len(self.values))]
        return _PAGE.format(
            id=f"slider-{uuid4().hex}",
            label=escape(self.label, quote=True),
            last=len(self.values) - 1,
            start=self.start,
            width=WIDTH,
            frames=json.dumps([b64encode(picture).decode() for picture in pictures]),
            values=json.dumps([str(value) for value in self.values]),
        )

    def widget(self) -> Any:
        """Return the slider as a widget of Jupyter, which draws on demand.

        Raises:
            ModuleNotFoundError: ipywidgets is missing.
        """
        try:
            import ipywidgets
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "sliders need ipywidgets: pip install 'gradlab[notebook]'."
            ) from None
        slider = ipywidgets.SelectionSlider(
            options=[(str(value), place) for place, value in enumerate(self.values)],
            value=self.start,
            description=self.label,
            continuous_update=False,
            style={"description_width": "initial"},
            layout={"width": "30em"},
        )
        image = ipywidgets.Image(value=self.picture(self.start), format="png", width=WIDTH)
        slider.observe(lambda change: setattr(image, "value", self.picture(change["new"])), "value")
        return ipywidgets.VBox([slider, image])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        if os.environ.get(WITH_FRAMES):
            return {"text/html": self.html(), "text/plain": repr(self)}
        bundle: dict[str, Any] = self.widget()._repr_mimebundle_()
        return bundle

    def __repr__(self) -> str:
        """Return the label and the values."""
        return f"Slider({self.label}: {', '.join(map(str, self.values))})"
