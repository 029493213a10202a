"""The Python of the README and of every page runs as it stands there; tables and diffs are true."""

import re
import shutil
import sys
import types
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from math import inf
from pathlib import Path

import matplotlib as mpl
import pytest
import wandb
from synthetic_sweeps import all_probes, metrics_with, write_point

import gradlab

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ELSEWHERE = ("api", "examples", "lecture", "studies")  # other tests run them, or they are made
PAGES = [ROOT / "README.md"] + [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if page.relative_to(DOCS).parts[0] not in (*ELSEWHERE, "contributing.md", "changelog.md")
]
OPTIONAL = {name: name for name in ("torch", "lightning", "equinox", "haiku", "keras")}
SMALLER = {  # shorter sequences, fewer points
    "(1000, 8)": "(50, 8)",
    "(100, 3)": "(20, 3)",
    "(200, 3)": "(30, 3)",
    'task="echo",': 'task="echo", **{"task.length": 12},',
    '{"steps": 50}': '{"steps": 9}',
    '{"steps": 100}': '{"steps": 9}',
    "t=50, k=40": "t=10, k=5",
    "point=100": "point=10",
}


def blocks_of(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def unpack_quickstart(folder: Path) -> None:
    """Give a page the quickstart that its reader has run."""
    bundle = ROOT / "experiments" / "quickstart" / "results.zip"
    shutil.unpack_archive(bundle, folder / "runs" / "quickstart" / "of_the_bundle")


def write_gallery(folder: Path) -> None:
    """Give a page a sweep such as it draws: fewer points, made up, with what all probes measure."""
    probes = {length: all_probes(length) for length in (8, 64)}
    logged = {"eval/accuracy": 0.5, "train/grad_norm": 1.0}
    settings = product(("rnn", "lstm"), (0.5, 1.0, 2.0), (1.0, inf), probes)
    for number, (model, gain, threshold, length) in enumerate(settings):
        write_point(
            folder / "runs" / "gallery" / str(number),
            probes[length],
            model=model,
            gain=gain,
            threshold=threshold,
            length=length,
            metrics=metrics_with([2.0, 1.0, 0.5]).assign(**logged),
            summary={"eval/loss": 0.5},
        )


PREPARED: dict[str, Callable[[Path], object]] = {
    "start.md": unpack_quickstart,
    "figures.md": lambda folder: (write_gallery(folder), unpack_quickstart(folder)),
}


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks_of(p)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()  # W&B keeps the folder that this process was in when it was first set up
    mpl.use("agg")
    PREPARED.get(page.name, lambda folder: None)(tmp_path)
    missing = {name for name in OPTIONAL if find_spec(name) is None}
    module = types.ModuleType("page")  # whose classes can be found again, as a notebook's can
    monkeypatch.setitem(sys.modules, module.__name__, module)
    left_out = set[str]()
    for number, block in enumerate(blocks_of(page), start=1):
        absent = {name for name in missing if re.search(rf"\b{name}\b", block)}
        left_out |= absent
        if absent or "DATE" in block:  # a sweep of the reader's
            continue
        for words, fewer in SMALLER.items():
            block = block.replace(words, fewer)
        exec(compile(block, f"{page.name}, block {number}", "exec"), vars(module))
    wandb.teardown()
    for folder in re.findall(r'folder="(runs/\w+)"', page.read_text()):
        if Path(folder).exists() or not left_out:
            assert set(gradlab.load_runs(folder)["status"]) == {"done"}, folder
    if left_out:
        pytest.skip(f"{', '.join(sorted(left_out))}, which some of {page.name} needs, is missing")


@pytest.mark.parametrize("words", SMALLER)
def test_what_is_made_smaller_stands_on_a_page(words: str) -> None:
    assert any(words in block for page in PAGES for block in blocks_of(page))


def test_the_diff_in_contributing_is_of_the_files_as_they_are() -> None:
    (diff,) = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    shown = 0
    for part in re.split(r"^\+\+\+ b/", diff, flags=re.MULTILINE)[1:]:
        name, *lines = part.splitlines()
        added = [line[1:] for line in lines if line.startswith("+")]
        rest = iter((ROOT / name).read_text().splitlines())
        for line in added:
            assert line in rest, f"{name} has no line {line!r} at this place"  # in their order
        shown += len(added)
    assert shown > 20


def test_the_table_of_cells_has_every_one() -> None:
    page = (DOCS / "parts.md").read_text()
    (table,) = re.findall(r"\| `model=` \| the cell \|\n(.*?)\n\n", page, re.DOTALL)
    cells = {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert cells == {path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")}
    networks = {path.stem for path in (ROOT / "conf" / "network").glob("*.yaml")}
    assert cells - {"rnn", "lstm"} <= networks >= {"tanh_glorot", "lstm_forget_1"}
