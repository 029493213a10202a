"""A sweep's own record: sweep.json, and which folder is a sweep's."""

import json
import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from gradlab.records.files import read_text, write_whole
from gradlab.records.layout import MULTIRUN, SWEEP
from gradlab.records.seals import seal_of


def sweep_folder(point: Path) -> Path:
    """Return the folder of a point's sweep: the nearest above it that records one, else the next.

    (With hydra.sweep.subdir=A/B the points lie deeper than one folder below their sweep's.)
    """
    above = point.parents
    recorded = (f for f in above if (f / SWEEP).exists() or (f / MULTIRUN).exists())
    return next(recorded, point.parent)


def save_sweep(folder: Path, points: Sequence[Mapping[str, Any]]) -> None:
    """Write or replace sweep.json, sealed; the sweep's id is drawn the first time, and stays."""
    sweep_id = sweep_id_of(folder) if (folder / SWEEP).exists() else secrets.token_hex(4)
    plain = json.loads(json.dumps(({"id": sweep_id} if sweep_id else {}) | {"points": points}))
    text = json.dumps(plain | {"seal": seal_of(plain)}, indent=1)
    write_whole(folder / SWEEP, lambda path: path.write_text(text, encoding="utf-8"))


def sweep_id_of(folder: Path) -> str:
    """Return the id that tells a sweep from others of its name and date; "" if it has none.

    It is random, since a command that is repeated elsewhere makes another sweep of equal content.
    """
    try:
        return str(_content(folder)["id"])
    except (OSError, ValueError, KeyError):  # of an earlier version, or another launcher
        return ""


def load_sweep(folder: Path) -> list[dict[str, Any]]:
    """Read the points in sweep.json.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged.
    """
    points: list[dict[str, Any]] = _content(folder)["points"]
    return points


def _content(folder: Path) -> dict[str, Any]:
    path = folder / SWEEP
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)  # every point asks for it, and the file grows with their number
def _read(path: Path, _changed: int) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(read_text(path))
        is_whole = all(map(_is_point, content["points"])) and (
            # The first versions wrote neither.
            not {"id", "seal"} & set(content) or content["seal"] == seal_of(content)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged") from error
    if not is_whole:
        raise ValueError(f"{path} was edited")
    return content


def _is_point(entry: dict[str, Any]) -> bool:
    folder = entry["folder"]
    return isinstance(folder, str) and "\0" not in folder and isinstance(entry["config"], dict)
