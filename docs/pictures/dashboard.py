"""Draw the pictures of docs/dashboard.md from a sweep's runs.

pip install pexpect pyte vl-convert-python
python -m gradlab +experiment=quickstart 'seed=range(3)' train.steps=40
python docs/pictures/dashboard.py runs/quickstart/DATE
"""

import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pyte
import vl_convert
from PIL import Image
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from rich.terminal_theme import MONOKAI

from gradlab import records
from gradlab.tracking import charts, dashboard
from gradlab.tracking.setting import setting_of

HERE = Path(__file__).parent
COLUMNS, ROWS = 150, 48
# "f" filters runs, "/" metrics, a space selects a run to draw, "3" shows pictures.
RUNS = ("f", "LSTM.*length 64.*none", "\r", " ", *"s s s s s s s s ")
METRICS = ("/", "accuracy|decay_rate|horizon|lag_|clip_fraction", "\r", "3")
ANSWERS = {b"\x1b[6n": "\x1b[1;1R", b"\x1b]11;?": "\x1b]11;rgb:0000/0000/0000\x07"}
# The runs whose maps are in the picture.
SHOWN = [f"LSTM, gain {gain}, length 64, clip threshold none, seed 0" for gain in (0.5, 2)]
FRAME = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg"><style>{styles}
text {{ font-family: monospace; font-size: {char_height}px; white-space: pre; }}</style>
<defs>{lines}</defs><rect width="100%" height="100%" fill="#0c0c0c"/>
<g transform="translate(8, 8)">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""


def leet_screen(runs: Path) -> pyte.Screen:
    """Return the screen of W&B's terminal dashboard of a folder of runs, after some keys."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    (runs / ".wandb-leet.json").unlink(missing_ok=True)  # where it keeps what was filtered last
    home = {"HOME": tempfile.mkdtemp(), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    command = ["-m", "wandb", "leet", str(runs)]
    process = pexpect.spawn(
        sys.executable, command, env={**os.environ, **home}, dimensions=(ROWS, COLUMNS)
    )

    def show(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                output = process.read_nonblocking(1 << 16, timeout=0.2)
            except pexpect.TIMEOUT:
                continue
            stream.feed(output)
            for question in ANSWERS.keys() & {x for x in ANSWERS if x in output}:
                process.send(ANSWERS[question])

    show(6)
    for key in (*RUNS, *METRICS):
        process.send(key)
        show(1)
    process.setwinsize(ROWS, COLUMNS - 1)  # it draws everything anew
    show(2)
    screen.reset()
    process.setwinsize(ROWS, COLUMNS)
    show(3)
    process.close(force=True)
    return screen


def segments(screen: pyte.Screen) -> Iterator[Segment]:
    """Yield the characters of a screen with their styles."""
    for row in range(ROWS):
        for column in range(COLUMNS):
            cell = screen.buffer[row][column]
            fore, back = (cell.bg, cell.fg) if cell.reverse else (cell.fg, cell.bg)
            yield Segment(cell.data, Style(color=_colour(fore), bgcolor=_colour(back)))
        yield Segment.line()


def _colour(name: str) -> str | None:
    is_hex = len(name) == 6 and all(letter in "0123456789abcdef" for letter in name.lower())
    named = {"default": None, "brown": "yellow"}
    return f"#{name}" if is_hex else named.get(name, name.replace("bright", "bright_"))


def panels(sweep: Path) -> dict[str, Any]:
    """Return the published panels that gradlab's own charts draw, with the rows of the runs."""
    views = []
    for panel in (x for section in dashboard.sections("me").values() for x in section):
        chart = charts.charts().get(getattr(panel, "chart_name", "").removeprefix("me/"))
        if chart:
            table = [*rows(sweep, panel.query["summaryTable"]["tableKey"])]
            if "facet" in chart:
                table = [row for row in table if row["name"] in SHOWN]
            view = charts.filled(chart, table, panel.chart_fields, panel.chart_strings)
            views.append(view | ({"width": 400} if "width" in view else {}))
    views.sort(key=lambda view: "facet" in view)  # the maps last
    return {"$schema": charts.SCHEMA, "concat": views, "columns": 2}


def rows(sweep: Path, table: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table of each point's run, named as the run is."""
    for point in sorted(path.parent for path in sweep.glob(f"*/{records.STATUS}")):
        setting = setting_of(point, records.load_yaml(point / records.CONFIG), "").name
        for path in (point / records.WANDB).glob(f"files/media/table/{table}_*.table.json"):
            content = json.loads(path.read_text(encoding="utf-8"))
            for row in content["data"]:
                yield dict(zip(content["columns"], row, strict=True)) | {"name": setting}


def main() -> None:
    """Draw both pictures."""
    sweep = Path(sys.argv[1])
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    drawn = Segment.simplify(segments(leet_screen(sweep / records.WANDB)))
    console.print(Segments(drawn), end="")
    console.save_svg(str(HERE / "leet.svg"), theme=MONOKAI, code_format=FRAME)
    picture = vl_convert.vegalite_to_png(panels(sweep), vl_version="5.20", scale=1.2)
    Image.open(io.BytesIO(picture)).convert("RGB").save(HERE / "panels.png", optimize=True)


if __name__ == "__main__":
    main()
