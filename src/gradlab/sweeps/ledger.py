"""The points of a sweep, recorded and yet to run: from this a sweep is resumed.

sweep.json names every point before the first begins. A point is recognised by its identity
(`identity.identity`), so neither the order of a command nor its spelling matters.
"""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gradlab import records
from gradlab.components import ConfigError
from gradlab.config import ROLES, Config, from_record
from gradlab.identity import identity, without_bookkeeping
from gradlab.point import Point, Status, checkpoints
from gradlab.printable import printable

ENDED = ("done", "diverged", "pruned", "failed")
# What the section `sweep` says of one command, and not of the points.
OF_THE_COMMAND = dict[str, Any](
    resume=None,
    retry="nothing",
    plan_only=False,
    trust=[],
    table="settings",
    objective="eval/loss",
)
LISTED = 6  # differences in a message


@dataclass(frozen=True)
class Entry:
    """One point as sweep.json records it."""

    number: int  # Hydra's number of the job
    folder: str  # below the sweep's
    overrides: list[str]
    identity: str
    config: Mapping[str, Any]  # checked, as plain data

    def point(self, sweep: Path) -> Point:
        """Return the point, in its sweep's folder.

        Raises:
            ConfigError: its config has other keys than today's.
        """
        try:
            config = from_record(self.config)
        except (TypeError, KeyError) as error:
            raise ConfigError(
                f"{records.SWEEP} has a config of another version for point {self.number}: start a "
                "new sweep."
            ) from error
        return Point.named(config, sweep / self.folder, self.overrides)


def read(folder: Path) -> list[Entry]:
    """Read the points of a sweep from sweep.json or, where that is damaged, from their folders.

    Raises:
        ConfigError: the folder holds no sweep.
    """
    try:
        return [Entry(**entry) for entry in records.load_sweep(folder)]
    except FileNotFoundError:
        pass  # another launcher's sweep has none
    except (ValueError, TypeError) as error:
        print(printable(f"{error}: the points' own folders are read instead."))
    check_links(folder, folder)  # the points' own files are read through none
    points = (path.parent.parent for path in folder.rglob(str(records.OVERRIDES)))
    own = [point for point in points if records.sweep_folder(point) == folder]
    if not own or not all(map(_is_point, own)):
        raise ConfigError(f"sweep.resume must be the folder of a sweep; got {str(folder)!r}.")
    return sorted((_read_point(point, folder) for point in own), key=lambda entry: entry.number)


def merge(recorded: Sequence[Entry], matched: Sequence[Entry]) -> list[Entry]:
    """Return the points recorded before and those that a command adds, each once."""
    return list({entry.identity: entry for entry in [*recorded, *matched]}.values())


def write(folder: Path, entries: Sequence[Entry]) -> None:
    """Write sweep.json."""
    records.save_sweep(folder, [asdict(entry) for entry in entries])


def repeat_overrides(given: Sequence[str], recorded: Sequence[Entry]) -> list[list[str]]:
    """Return each recorded point's overrides; given ones replace those of the same key."""
    keys = {_key(override) for override in given}
    if "wandb" in keys:  # its options say the mode
        keys.add("wandb.mode")
    return [[*(x for x in entry.overrides if _key(x) not in keys), *given] for entry in recorded]


def keep_data_path(composed: DictConfig, recorded: Entry) -> None:
    """Let a recorded point find its data file where it lay, from whatever folder it is resumed.

    Args:
        composed: the point's config as its words give it; changed where the file is still there.
        recorded: the point.
    """
    task, before = composed.get("task"), recorded.config.get("task")
    path = before.get("path") if isinstance(before, Mapping) else None
    if not (isinstance(path, str) and isinstance(task, DictConfig) and "digest" in task):
        return
    if "${" not in path and Path(path).is_file():  # nothing of a record is resolved
        task.path = path


def only_bookkeeping(overrides: Sequence[str]) -> bool:
    """Return whether the overrides set bookkeeping only, and so name no points."""
    sections = (_key(override).split(".")[0] for override in overrides)
    return all(section in ROLES and ROLES[section].bookkeeping for section in sections)


def match(recorded: Sequence[Entry], requested: Sequence[Entry]) -> list[Entry]:
    """Return each requested point, with number and folder of the recorded one of its identity.

    Its config is the requested one: what is run was composed here, and not read from a record. What
    that says of this command alone is left out, so that a resume changes no record.
    """
    places = {entry.identity: entry for entry in reversed([*recorded, *requested])}
    return [
        replace(
            places[entry.identity],
            config={**entry.config, "sweep": entry.config["sweep"] | OF_THE_COMMAND},
        )
        for entry in requested
    ]


def check_same(recorded: Sequence[Entry], requested: Sequence[Entry]) -> None:
    """Refuse to resume a sweep with a command that has changed; more points may be added.

    Raises:
        ConfigError: there are points that the record lacks, in place of some that it has.
    """
    before, now = ({entry.identity: entry for entry in side} for side in (recorded, requested))
    new = [entry for key, entry in now.items() if key not in before]
    gone = [entry for key, entry in before.items() if key not in now]
    if new and gone:
        raise ConfigError(_changed(new, gone))


def check_unchanged(recorded: Sequence[Entry], composed: Sequence[Entry]) -> None:
    """Check that the words of points give the configs that these have run with.

    Args:
        recorded: the points; "" in place of an identity: it has none yet.
        composed: what their words give now.

    Raises:
        ConfigError: a point has records of another config or version, which would be replaced.
    """
    for entry, now in zip(recorded, composed, strict=True):
        if entry.identity not in ("", now.identity):
            raise ConfigError(
                f"point {entry.number} has run with another config than its words give now, or "
                "with another version of gradlab, and its records would be replaced: put back the "
                "config files that it was started with, or start a new sweep."
            )


def pending(points: Iterable[Point], retry: Collection[str]) -> list[tuple[Point, str]]:
    """Return the points still to run, each with the reason to delete its old records ("": keep).

    Points that have ended are left alone, unless `retry` names their state. A point with a file
    that is not as it was written runs again from the start, one that failed from its checkpoint.

    Raises:
        ConfigError: a file of a point is there and cannot be read.
    """
    to_run = []
    for point in points:
        try:
            status = records.load_verified(point.folder)
            if status.get("identity") != identity(point.config):
                raise ValueError(f"{point.folder / records.STATUS} is of another config or version")
        except FileNotFoundError:
            to_run.append((point, ""))
        except ValueError as error:
            _check_readable(point.folder)
            to_run.append((point, str(error)))
        else:
            if status["state"] not in ENDED or status["state"] in retry:
                to_run.append((point, "it diverged" if status["state"] == "diverged" else ""))
    return to_run


def status_in(folder: Path) -> Status:
    """Return the status.json of a point's folder; "waiting" if there is none that can be read."""
    try:
        return records.load_status(folder)
    except (OSError, ValueError):
        return {"state": "waiting"}


def clear(to_run: Iterable[tuple[Point, str]]) -> list[Point]:
    """Delete old records where `pending` gives a reason, print it, and return the points to run."""
    points = []
    for point, reason in to_run:
        records.clear_unfinished(point.folder)
        checkpoints.clear_unfinished(point.folder)
        status = status_in(point.folder)
        if reason:
            sentence = f"point {point.folder.name} runs again from the start: {reason}."
            print(printable(sentence))
            records.delete_records(point.folder)
        elif status["state"] in ENDED:  # no reader is to take it for ended any more
            again = {"state": "interrupted", "reason": "it is to run again"}
            records.save_status(point.folder, status | again)
        points.append(point)
    return points


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other sweeps out of a folder; the system frees the lock when the process ends.

    Raises:
        ConfigError: another process holds it, or a link in it leads outside.
    """
    from filelock import FileLock, Timeout  # takes a fifth of a second

    check_links(folder, folder)
    folder.mkdir(parents=True, exist_ok=True)
    records.clear_unfinished(folder)
    try:
        with FileLock(folder / records.LOCK, blocking=False):
            yield
    except Timeout as error:
        raise ConfigError(
            f"another sweep runs in {str(folder)!r}: wait for it, or end it."
        ) from error


def check_links(folder: Path, sweep: Path) -> None:
    """Check that nothing in a folder is written or deleted outside its sweep's by a link.

    Raises:
        ConfigError: a link leads outside; the sentence names it.
    """
    for link in records.links_outside(folder, sweep):
        raise ConfigError(
            f"{str(link)!r} is a link out of the sweep's folder, to {str(link.readlink())!r}, and "
            "nothing is written or deleted through it: put what it leads to in its place, or "
            "delete it."
        )


def _check_readable(folder: Path) -> None:
    """Check that what looks like damage is none of rights or of the disk: the results may be whole.

    Raises:
        ConfigError: a file of a point cannot be read.
    """
    for path in (folder / name for name in records.RESULTS):
        try:
            if path.is_file():
                path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be read ({error.strerror}): make it readable, or delete it to run "
                "its point again."
            ) from error


def _read_point(folder: Path, sweep: Path) -> Entry:
    """Return a point's entry by its own folder; its config follows from its words."""
    words = records.load_yaml(folder / records.OVERRIDES)
    if not isinstance(words, list):
        raise ConfigError(f"{folder / records.OVERRIDES} is damaged.")
    number = int(folder.name) if folder.name.isdigit() else 0
    name = folder.relative_to(sweep).as_posix()
    own = [str(word) for word in words if not str(word).startswith("sweep.")]
    return Entry(number, name, own, status_in(folder).get("identity", ""), {})


def _is_point(folder: Path) -> bool:
    """Return whether a folder with Hydra's files is a point's, and not of another program."""
    if "identity" in status_in(folder):
        return True
    try:
        config = records.load_yaml(folder / records.CONFIG)
        return {section.name for section in fields(Config)} <= set(config)
    except (ValueError, TypeError):
        return False


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _changed(new: Sequence[Entry], gone: Sequence[Entry]) -> str:
    """Describe how a command's points differ from the recorded ones that are nearest to them."""
    counts: Counter[str] = Counter()
    for entry in new:
        nearest = min((_differences(old.config, entry.config) for old in gone), key=len)
        counts.update(nearest or ["gradlab's version"])
    listed = [f"{what} ({n} point{'s'[: n > 1]})" for what, n in counts.most_common(LISTED)]
    return (
        f"sweep.resume: {len(new)} of the points are not those of the sweep: "
        f"{'; '.join(listed)}. Repeat the command as it was, or start a new sweep."
    )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, after = (records.flatten(without_bookkeeping(config)) for config in (old, new))
    return [
        f"{key} was {before.get(key)}, now {after.get(key)}"
        if key != "task.digest"
        else f"the contents of task.path={new['task'].get('path')} have changed"
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    ]
