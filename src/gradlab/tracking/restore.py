"""Reading sweeps from Weights & Biases: their points' folders are restored, then read as usual.

So every function that reads a sweep's folder works on the restored one.
"""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePosixPath

import pandas as pd

from gradlab import records
from gradlab.records.files import write_whole
from gradlab.records.table import Columns, load_runs
from gradlab.tracking.offline_logs import restore_logs
from gradlab.tracking.points import RESTORED, Restored, say_left_out
from gradlab.tracking.runs import RECORD_FILES
from gradlab.tracking.server_runs import restore_project

# The status comes first: where several restore a point at once, none sees the others' without it.
RESTORED_FILES = sorted(map(str, RECORD_FILES.values()), key=lambda name: name != records.STATUS)
MARKS = (*RESTORED_FILES, records.TABLE, records.CHECKPOINTS, records.SWEEP, records.MULTIRUN)


def load_wandb(
    source: str | Path, folder: str | Path | None = None, columns: Columns = "varying"
) -> pd.DataFrame:
    """Read the points of one or more sweeps from W&B, as `gradlab.load_runs` does from disk.

    Each point is one row, however many copies of its run there are, and wherever its sweep's folder
    was copied to and gone on with. Of several runs of one point, it is the one that started last of
    those that were not cut off, if there is one.

    Args:
        source: a folder with offline runs (`runs/NAME/DATE/wandb`, or one above it); or, on the
            server, "ENTITY/PROJECT" for all sweeps or "ENTITY/PROJECT/NAME/DATE" for one.
        folder: where to write the points' records; by default a temporary folder, which is
            deleted when Python exits. Points that it holds already are rows of the table too; only
            those that were read from W&B are replaced.
        columns: as in `gradlab.load_runs`.

    Returns:
        The table of `gradlab.load_runs`; `path` is a point's restored folder, which
        `gradlab.load_gradients` reads. For runs that were cut off, or of an earlier version, W&B
        does not distinguish 2 from 2.0. A run whose records are not as they were written, or are
        another run's, has the status "damaged" and no numbers. One that cannot be read, or that
        names a place outside the folder or in a sweep that ran there, is left out and named on the
        terminal.

    Raises:
        ValueError: the source is no name.
        FileNotFoundError: the source does not exist or contains no point.
        ConnectionError: the server cannot be reached, or nobody is logged in.

    Example:
        >>> logged = gradlab.sweep(
        ...     task="echo", train={"steps": 5}, wandb="offline", folder="runs/logged"
        ... )
        >>> gradlab.load_wandb("runs/logged/wandb")["train/step"].item()  # updates
        5
    """
    if not isinstance(source, str | Path) or source == "":
        raise ValueError(
            f"source must be a folder with offline W&B runs, or ENTITY/PROJECT; got {source!r}."
        )
    if folder is None:
        folder = tempfile.mkdtemp(prefix="gradlab-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="gradlab-") as staging:
        if Path(source).is_dir():
            points = restore_logs(Path(source), Path(staging))
        else:
            points = restore_project(source, Path(staging))
        if not points:
            raise FileNotFoundError(
                f"no point that gradlab logged to W&B is in {str(source)!r}. Of runs that "
                "gradlab.watch logged to, gradlab.load_runs reads the folder= that watch was given."
            )
        for point, place in places(points).items():
            put(point, Path(folder), place)
    return load_runs(folder, columns)


def places(points: Iterable[Restored]) -> dict[Restored, PurePosixPath]:
    """Return where each point's folder goes; runs that a later one replaces are left out.

    A sweep is recognised by its id, wherever it was copied to, and in it a point by its config;
    that of a sweep without an id by its path too. If a whole run is replaced by one of another id,
    as after a point was deleted and run again, that is said. A sweep's folder is named by its
    earliest run and its id. Different points that claim one place (of sweeps without an id, or of a
    sweep that was copied and continued twice) keep apart: the later ones are put in a sweep of
    their own, named by their run.
    """
    in_order = sorted(points, key=lambda point: point.age)
    runs = {(point.sweep_id, point.run_id): point for point in in_order}
    kept = [point for point in in_order if runs[point.sweep_id, point.run_id] is point]
    latest = {(p.sweep_id, p.content, None if p.sweep_id else p.path): p for p in kept}
    counted = set(latest.values())
    if replaced := sum(point.whole and point not in counted for point in kept):
        what = "1 run was" if replaced == 1 else f"{replaced} runs were"
        print(f"gradlab: {what} left out: a later one of the same point counts.", file=sys.stderr)
    by_start = sorted(in_order, key=lambda point: (point.started, point.path), reverse=True)
    names = {point.sweep_id: point.path.parts[:2] for point in by_start}
    taken: dict[PurePosixPath, Restored] = {}
    for point in latest.values():
        rest = point.path.parts[2:]
        name, date = names[point.sweep_id] if point.sweep_id else point.path.parts[:2]
        sweep = f"{date}-{point.sweep_id}" if point.sweep_id else date
        place = PurePosixPath(name, sweep, *rest)
        if place in taken:
            place = PurePosixPath(name, f"{sweep}-{point.run_id}", *rest)
        taken[place] = point
    return {point: place for place, point in taken.items()}


def put(point: Restored, folder: Path, place: PurePosixPath) -> None:
    """Copy a point's records to its place in a folder.

    Records of a point that was restored there before are replaced, or deleted. Nothing is done, and
    that is said, where a link there leads elsewhere, or the place is a point's or in a sweep that
    ran there.

    Raises:
        RecordError: a file cannot be written.
    """
    target = folder.resolve() / place
    if any((target / name).parent.resolve() != (target / name).parent for name in RESTORED_FILES):
        say_left_out(point.origin, f"{folder / place} is a link elsewhere")
        return
    own = [target, *target.parents][: len(place.parts)]
    if measured := next(filter(_was_measured, own), None):
        say_left_out(point.origin, f"{measured} was not read from W&B; give another folder")
        return
    for name in RESTORED_FILES:
        if (source := point.folder / name).exists():
            write_whole(target / name, partial(shutil.copyfile, source))
        else:
            (target / name).unlink(missing_ok=True)


def _was_measured(folder: Path) -> bool:
    """Return whether a folder is a point's or a sweep's, but for a point that was restored."""
    if not any(os.path.lexists(folder / name) for name in MARKS):
        return False
    try:
        return RESTORED not in records.load_status(folder)
    except (OSError, ValueError):
        return True
