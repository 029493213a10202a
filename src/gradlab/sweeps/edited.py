"""Points that ran by other code of somebody's parts than the present: they stay, and it is said."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gradlab import records
from gradlab.point import Point, Status
from gradlab.point.sources import changed_sources
from gradlab.printable import printable
from gradlab.sweeps.screen import listed


def of_earlier_code(
    points: Sequence[Point], recorded: Mapping[Path, Status], to_run: set[Path]
) -> list[str]:
    """Return a sentence on the points whose numbers are of earlier code; none if there are none.

    Args:
        points: of a sweep.
        recorded: their statuses, by folder.
        to_run: folders of those that run now; without a checkpoint they start anew.
    """
    changed = {
        point.folder: parts
        for point in points
        if (parts := changed_sources(recorded[point.folder], point.config))
        and (point.folder not in to_run or records.list_checkpoints(point.folder))
    }
    if not changed:
        return []
    edited = ", ".join(dict.fromkeys(part for parts in changed.values() for part in parts))
    sweep = records.sweep_folder(points[0].folder)
    names = [folder.relative_to(sweep).as_posix() for folder in changed]
    going_on = len(to_run & changed.keys())
    from_checkpoint = f" ({going_on} from a checkpoint, then by the present code)"
    sentence = (
        f"The code of {edited} has changed: {len(names)} of {len(points)} points were run by the "
        f"earlier code{from_checkpoint if going_on else ''}. To run all by the present code, "
        "repeat the command that started the sweep, without sweep.resume, or delete the folder"
        f"{'s'[: len(names) > 1]} {listed(names)} in {sweep} and resume again."
    )
    return [printable(sentence)]
