"""Points in W&B's offline logs.

The logs have W&B's own binary format, which its Python package cannot read; `wandb leet inspect`
prints them as JSON. Nothing outside the sweep that a log lies in is read, whatever its links and
records say.
"""

import hashlib
import json
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copyfile
from typing import Any

from gradlab import records
from gradlab.tracking.points import Restored, Run, restore_or_say, restore_run, say_left_out
from gradlab.tracking.run_config import SWEEP_KEY
from gradlab.tracking.runs import ARTIFACT_TYPE, RECORD_FILES, RECORDS

SWEEP_MARKS = (records.SWEEP, records.MULTIRUN)


def restore_logs(source: Path, staging: Path) -> list[Restored]:
    """Restore every point whose log lies below a folder, each in a folder of its own.

    Args:
        source: the folder, or one above it.
        staging: where to make the points' folders.
    """
    from wandb.util import get_core_path

    program = get_core_path()  # in this thread: Python's imports and threads do not go together
    logs = sorted(find_logs(source))

    def restore(numbered: tuple[int, Path]) -> Restored | None:
        number, log = numbered
        return restore_or_say(str(log), lambda: _restore_log(program, log, staging / str(number)))

    with ThreadPoolExecutor() as pool:
        return list(filter(None, pool.map(restore, enumerate(logs))))


def find_logs(source: Path) -> Iterator[Path]:
    """Find the logs below a folder, each once.

    Links are followed, since sweeps may be linked together, but not out of a sweep's own folder.
    """
    folders, seen = [source.resolve()], set[Path]()
    while folders:
        folder = folders.pop()
        if folder in seen:
            continue
        seen.add(folder)
        sweep = _sweep_around(folder)
        for path in _entries(folder):
            is_log = path.match("run-*.wandb") and path.is_file()
            if not (is_log or path.is_dir()):
                continue
            real = path.resolve()
            if path.is_symlink() and sweep and not real.is_relative_to(sweep):
                say_left_out(str(path), "it leads out of its sweep")
            elif is_log:
                yield real
            else:
                folders.append(real)


def _sweep_around(folder: Path) -> Path | None:
    """Return the folder of the sweep that a folder is or lies in, if it has the record of one."""
    around = (folder, *folder.parents)
    recorded = (x for x in around if any((x / mark).exists() for mark in SWEEP_MARKS))
    return next(recorded, None)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        say_left_out(str(folder), error.strerror or str(error))
        return []


def _restore_log(program: str, log: Path, folder: Path) -> Restored | None:
    """Restore a point from its log, if that has one."""
    header: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    artifact: list[dict[str, Any]] = []
    whole = False
    for record in _inspect(program, log):
        match record["type"]:
            case "run" if header is None:
                header = record["run"]
            case "history":
                rows.append(record["history"]["item"])
            case "summary":
                summary |= record["summary"].get("update", {})
            case "artifact" if record["artifact"]["type"] == ARTIFACT_TYPE:
                artifact = record["artifact"]["manifest"]["contents"]
            case "exit":
                whole = True
    if header is None:
        raise ValueError("it has no run that can be read")
    files = log.parent / "files" / RECORDS
    for name, path in RECORD_FILES.items():
        if (files / name).is_file() and records.lies_inside(files / name, log.parent):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            copyfile(files / name, folder / path)
    config = header["config"]["update"]
    is_earlier = not (folder / records.STATUS).exists()  # its records are not among its files
    maps = _find_maps(artifact, log, config.get(SWEEP_KEY, "")) if is_earlier else None
    run = Run(header["run_id"], header["start_time"], whole, config, rows, summary, maps)
    return restore_run(run, folder, str(log))


def _find_maps(contents: Sequence[Mapping[str, Any]], log: Path, sweep_id: str) -> Path | None:
    """Return the maps that a log names as its artifact.

    They are read where they certainly are that artifact: in the run's own sweep, which may have
    been moved, or beside the log; and with the digest that the log has of them.
    """
    sweep = _sweep_around(log.parent)
    place = sweep if sweep and records.sweep_id_of(sweep) == sweep_id else log.parent
    for entry in contents:
        if entry["path"] == records.GRADIENTS:
            named = Path(entry["local_path"])
            for path in (named, place / named.parent.name / records.GRADIENTS):
                if records.lies_inside(path, place) and path.is_file() and _fits(path, entry):
                    return path
    return None


def _fits(path: Path, entry: Mapping[str, Any]) -> bool:
    """Return whether a file is the one of an entry of an artifact's manifest."""
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
    size = path.stat().st_size
    return (str(size), b64encode(md5).decode()) == (str(entry["size"]), entry["digest"])


def _inspect(program: str, log: Path) -> Iterator[dict[str, Any]]:
    """Return the records of a log; if it was cut off, the complete ones."""
    # The program behind `wandb leet inspect --json LOG`; to call it directly saves a second.
    options = ("--json", "--no-observability", "--run-file", log, log.parents[1])
    command = [program, "leet", "inspect", *map(str, options)]
    output = subprocess.run(
        command, capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL, check=False
    ).stdout
    return map(json.loads, filter(None, output.split("\n")))
