"""A point's folder made anew from the content of its W&B run, whoever logged that.

A run's files hold the point's records, which count as they were sealed, and for a run of their
config. The records of a run without them, which was cut off or is of an earlier version, are made
anew from its config, rows and summary. What a run says is data: a run that names a place outside
the folder that it is restored to is refused.
"""

import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pandas as pd

from gradlab import records
from gradlab.printable import printable
from gradlab.records.files import RecordError
from gradlab.tracking.run_config import BOOKKEEPING, PATH_KEY, SWEEP_KEY, is_point, point_config
from gradlab.tracking.runs import RECORD_FILES, end_entries

NONFINITE = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}
PATH_PARTS = 3  # NAME/DATE/POINT, at least
RESTORED = "restored_from"  # in a status: the run that the point was read back from
RUN_OR_SWEEP_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
DRIVE = re.compile(r"[A-Za-z]:")  # of Windows


class Run(NamedTuple):
    """The content of a W&B run; `history` are its logged rows."""

    run_id: str
    started: str  # time, in ISO 8601
    whole: bool  # it has its end, so it was not cut off
    config: Mapping[str, Any]
    history: Iterable[Mapping[str, Any]]
    summary: Mapping[str, Any]
    maps: Path | None = None  # gradients.nc as the run's artifact


class Restored(NamedTuple):
    """A run's point, in a folder of its own."""

    folder: Path
    origin: str  # the log, or the run on the server
    run_id: str
    started: int  # nanoseconds since 1970
    whole: bool
    sweep_id: str  # "" if its sweep has none
    path: PurePosixPath  # NAME/DATE/NUMBER
    content: str  # its config less bookkeeping

    @property
    def age(self) -> tuple[bool, int, int, str]:
        """Return what orders the runs of one point, the one that counts last.

        A run that was cut off comes before a whole one, then the time decides, then the number of
        its files (a copy may lack some), then its name.
        """
        files = sum((self.folder / name).exists() for name in RECORD_FILES.values())
        return self.whole, self.started, files, self.origin


def restore_or_say(origin: str, restore: Callable[[], Restored | None]) -> Restored | None:
    """Restore a run; one that cannot be read is named, and left out.

    Raises:
        RecordError: the point's folder cannot be written.
    """
    try:
        return restore()
    except RecordError:
        raise
    except Exception as error:  # what others wrote can be wrong in any way
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        say_left_out(origin, text)
        return None


def say_left_out(what: str, reason: str) -> None:
    """Print that something is left out, without the control characters that its name may have."""
    print(printable(f"gradlab: {what} is left out: {reason}."), file=sys.stderr)


def restore_run(run: Run, folder: Path, origin: str) -> Restored | None:
    """Make a point's folder of a run's, which holds what its files have; None if it has no point.

    A run that was cut off has no status yet, so its point's is "running". Where the run's files are
    not whole, or another run's, the point's status is "damaged", and it has no numbers.

    Raises:
        ValueError: the run's id or the place that it gives its point is no plain name.
    """
    if not is_point(run.config):
        return None
    config = _plain(point_config(run.config))
    path, sweep_id = place_below(run.config[PATH_KEY]), run.config.get(SWEEP_KEY, "")
    for key, name in (("id", run.run_id), (SWEEP_KEY, sweep_id or "none")):
        if not (isinstance(name, str) and RUN_OR_SWEEP_ID.fullmatch(name)):
            raise ValueError(f"its {key} is {name!r}, not letters and digits")
    mark = {RESTORED: f"W&B run {run.run_id}"}
    try:
        status = _check_records(folder, config, run.whole)
    except (ValueError, OSError) as error:
        _delete_records(folder)
        reason = f"the records of {origin} do not count: {_renamed(str(error), folder)}"
        records.save_config(folder, config, mark | {"state": "damaged", "reason": reason})
    else:
        if status:
            records.save_status(folder, status | mark)
        else:
            _make_records(folder, run, config, mark)
    started = int(pd.to_datetime(run.started, utc=True, errors="coerce").value)
    content = _content(config)
    return Restored(folder, origin, run.run_id, started, run.whole, sweep_id, path, content)


def _check_records(folder: Path, config: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    """Return the status among a run's files; {} if there are none, or none were finished.

    Raises:
        ValueError: a file is missing, is not as it was written, or is another run's.
    """
    found = [path for path in RECORD_FILES.values() if (folder / path).exists()]
    finished = Path(records.STATUS) in found  # it is written last
    if not found or not (finished or whole):
        return {}
    for path in (Path(records.STATUS), records.CONFIG):
        if path not in found:
            raise ValueError(f"{folder / path} is missing")
    status = records.load_verified(folder)
    if str(records.CONFIG) not in status.get("files", {}):
        raise ValueError(f"{folder / records.STATUS} has no seal of {records.CONFIG.name}")
    if _content(_plain(records.load_yaml(folder / records.CONFIG))) != _content(config):
        raise ValueError(f"{folder / records.CONFIG} is another run's")
    return status


def _make_records(
    folder: Path, run: Run, config: Mapping[str, Any], mark: Mapping[str, str]
) -> None:
    """Make a point's records from its run's config, rows, summary and artifact."""
    _delete_records(folder)
    rows = pd.DataFrame(filter(None, map(_metrics_row, run.history)))
    status = {**_status(_plain(run.summary), rows), **mark}
    records.save_config(folder, config, status)
    records.save_metrics(folder, rows, status)
    if run.maps:
        shutil.copyfile(run.maps, folder / records.GRADIENTS)
        records.seal_file(folder, status, records.GRADIENTS, folder / records.GRADIENTS)


def _delete_records(folder: Path) -> None:
    for path in RECORD_FILES.values():
        (folder / path).unlink(missing_ok=True)


def _renamed(text: str, folder: Path) -> str:
    """Return a message with the names that a point's files have in W&B."""
    for name, path in RECORD_FILES.items():
        text = text.replace(str(folder / path), name)
    return text


def _content(config: Mapping[str, Any]) -> str:
    """Return, as text, a config less bookkeeping, in what W&B keeps apart: not 2 and 2.0."""
    decisive = {key: _as_floats(node) for key, node in config.items() if key not in BOOKKEEPING}
    return json.dumps(decisive, sort_keys=True)


def _as_floats(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {str(key): _as_floats(child) for key, child in node.items()}
    if isinstance(node, list):
        return [_as_floats(child) for child in node]
    if isinstance(node, bool) or not isinstance(node, int | float):
        return node
    return None if math.isnan(node) else float(node) + 0.0  # -0.0 becomes 0.0


def place_below(text: Any) -> PurePosixPath:
    """Return the place that a run gives its point, NAME/DATE/POINT.

    Raises:
        ValueError: it is none, or may lead outside the folder that it is put below.
    """
    parts = text.split("/") if isinstance(text, str) else []
    if len(parts) < PATH_PARTS or not all(map(is_plain_name, parts)):
        raise ValueError(f"its {PATH_KEY} is {text!r}, not NAME/DATE/POINT in plain names")
    return PurePosixPath(*parts)


def is_plain_name(part: str) -> bool:
    """Return whether a name is that of a file or a folder on every system, and no way to others."""
    plain = part.isprintable() and not set(part) & set("/\\") and not DRIVE.match(part)
    return plain and part not in ("", ".", "..")


def _status(summary: Mapping[str, Any], metrics: pd.DataFrame) -> dict[str, Any]:
    """Make a point's status from its run's summary and rows."""
    status = {"state": summary.get("status", "running"), "reason": summary.get("reason", "")}
    if "verdict" not in summary:
        return status
    last = metrics.iloc[-1].dropna().to_dict() | {"train/step": int(metrics["train/step"].iloc[-1])}
    entries = end_entries(summary)
    numbers = {name: float(x) for name, x in entries.items() if isinstance(x, int | float)}
    return status | {"summary": last | entries | numbers}


def _metrics_row(row: Mapping[str, Any]) -> dict[str, float]:
    """Return a logged row without W&B's own columns; {} if it contains pictures or tables."""
    values = {name: _plain(value) for name, value in row.items() if not name.startswith("_")}
    if not all(isinstance(value, int | float) for value in values.values()):
        return {}
    step = {"train/step": int(values["train/step"])} if "train/step" in values else {}
    return {name: float(value) for name, value in values.items()} | step


def _plain(value: Any) -> Any:
    """Return a JSON value with floats for the non-finite numbers that W&B stores as strings."""
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(child) for child in value]
    return NONFINITE.get(value, value) if isinstance(value, str) else value
