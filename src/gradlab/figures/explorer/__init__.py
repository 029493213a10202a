"""Interactive page of a sweep: the maps of every setting over training, and their decay.

The page is page.html with style, script and data inside. It needs no server, no network and no
library.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab.figures import selection, style, units
from gradlab.figures.explorer.counts import without_map
from gradlab.figures.explorer.packing import as_text
from gradlab.figures.explorer.series import Kept, setting_series, settings
from gradlab.figures.map_images import MAX_LIMIT

PAGE_CELLS, PAGE_STEPS = 65, 12  # of a map: times 0 to 64; training steps of a run, at most
MOST = 4  # settings shown at once
OPEN = 2  # when the page opens


def explorer_data(
    runs: pd.DataFrame,
    cells: int = PAGE_CELLS,
    steps: int = PAGE_STEPS,
    unit: units.Unit | None = None,
) -> dict[str, Any]:
    """Return the data that the page shows, ready for JSON.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        cells: along an axis of a map, at most; of a longer sequence, evenly spread steps are kept.
        steps: training steps of each setting, at most; evenly spread ones are kept.
        unit: of all log norms and rates in it; None: that of the surrounding `theme`.

    Returns:
        `unit`; `colours` (256 RGB triples from low to high, base64) and `limit` (where they end);
        `shades`, of each model's colour for 1, 2, … series of it; `settings`, from
        `series.setting_series`, a list; `unshown`, the sentence on points that are in none of them;
        and `open`, the settings shown at first: those with the longest maps, one of each of two
        models.

    Raises:
        ValueError: no run has gradients.

    Example:
        >>> from gradlab.figures.explorer import explorer_data
        >>> explorer_data(runs)["settings"][0]["name"]
        'RNN, gain 0.5'
    """
    unit = unit or units.current_unit()
    points, usable = selection.readable(runs), selection.with_gradients(runs)
    kept = Kept(cells, steps, unit)
    shown, unshown = list[dict[str, Any]](), list[str]()
    for name, rows in settings(points):
        series = setting_series(name, rows, usable.index, kept)
        rest = rows[~rows.index.isin(usable.index)]
        if len(series) != 1 and len(rest):  # in no series
            unshown.append(without_map(name, rest))
        shown += series
    unreadable = selection.every_point(runs).drop(points.index)  # their configs cannot be trusted
    folders = (Path(path).name for path in unreadable["path"])
    unshown += map("folder {} ({})".format, folders, unreadable["status"])
    ramp = np.asarray(style.norm_colours()(np.linspace(0, 1, 256)))[:, :3]
    colours = style.model_colours(usable)
    return {
        "unit": unit,
        "colours": as_text((ramp * 255).round().astype(np.uint8).tobytes()),
        "limit": max(1.0, round(units.from_nats(MAX_LIMIT, unit))),
        "shades": {
            model: [style.shades(colours[model], count + 1) for count in range(MOST)]
            for model in dict.fromkeys(usable["model.name"])
        },
        "settings": shown,
        "unshown": f"Without a map: {'; '.join(unshown)}." if unshown else "",
        "open": _open(shown),
    }


def explorer(
    runs: pd.DataFrame,
    cells: int = PAGE_CELLS,
    steps: int = PAGE_STEPS,
    unit: units.Unit | None = None,
) -> str:
    """Return the page of a sweep as HTML; see `explorer_data`."""
    return explorer_page(explorer_data(runs, cells, steps, unit))


def explorer_page(data: dict[str, Any]) -> str:
    """Return the page as HTML.

    Args:
        data: from `explorer_data`.
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    parts = {
        "STYLE": _part("page.css"),
        "SCRIPT": _part("page.js"),
        "DATA": text.replace("<", "\\u003c"),  # "</script>" or "<!--" in a name would end the data
    }
    page = _part("page.html")
    for name, part in parts.items():  # the data last: nothing in it is replaced
        page = page.replace(f"/*{name}*/", part)
    return page


def _part(name: str) -> str:
    return files("gradlab.figures.explorer").joinpath(name).read_text(encoding="utf-8")


def _open(shown: list[dict[str, Any]]) -> list[int]:
    """Return which settings the page opens on: the longest maps, one setting of each model."""
    longest = max(series["t"][-1] for series in shown)
    first: dict[str, int] = {}
    for i, series in enumerate(shown):
        if series["t"][-1] == longest:
            first.setdefault(series["model"], i)
    return list(first.values())[:OPEN]
