"""What a sweep's folder is to hold and what it holds already: from this a sweep is taken up again.

sweep.json names every point before the first begins. A point is found again by its identity
(`config.identity`), so neither the order of a command nor its spelling matters.
"""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gradlab import records
from gradlab.config import BOOKKEEPING, ConfigError, check, identity
from gradlab.point import Point, Status

ENDED = ("done", "diverged", "failed")
SHOWN = 6  # differences in a message

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One point as sweep.json keeps it."""

    number: int  # Hydra's number of the job
    folder: str  # below the sweep's
    overrides: list[str]
    identity: str
    config: Config

    def point(self, sweep: Path) -> Point:
        """The point, in its sweep's folder."""
        words = [word for word in self.overrides if not word.startswith("+experiment=")]
        return Point(self.config, sweep / self.folder, ",".join(words) or self.config["name"])


def read(folder: Path) -> list[Entry]:
    """The points of a sweep, from sweep.json or, where that is damaged, from the points' folders.

    Raises:
        ConfigError: the folder holds no sweep.
    """
    try:
        return [Entry(**entry) for entry in records.load_sweep(folder)]
    except FileNotFoundError:
        pass  # another launcher's sweep has none
    except (ValueError, TypeError) as error:
        print(f"{error}: the points' own folders are read instead.")
    found = [_from_folder(path.parent.parent) for path in folder.glob(f"*/{records.CONFIG}")]
    if not found:
        raise ConfigError(f"sweep.resume must be the folder of a sweep; got {str(folder)!r}.")
    return sorted(found, key=lambda entry: entry.number)


def write(folder: Path, known: Sequence[Entry], entries: Sequence[Entry]) -> None:
    """Keep what a sweep is made of: what it was, and what a command adds."""
    everything = {entry.identity: entry for entry in [*known, *entries]}
    records.save_sweep(folder, [asdict(entry) for entry in everything.values()])


def repeated(given: Sequence[str], known: Sequence[Entry]) -> list[list[str]]:
    """Overrides of the recorded points, for a command that says nothing else of its points."""
    keys = {_key(override) for override in given}
    return [[*(x for x in entry.overrides if _key(x) not in keys), *given] for entry in known]


def only_bookkeeping(overrides: Sequence[str]) -> bool:
    """Whether overrides leave open which points they are of."""
    return all(_key(override).split(".")[0] in BOOKKEEPING for override in overrides)


def enter(known: Sequence[Entry], asked: Sequence[Entry]) -> list[Entry]:
    """For each point of a command its entry: the recorded one of its identity, else its own."""
    entries = {entry.identity: entry for entry in [*reversed(asked), *reversed(known)]}
    return [entries[entry.identity] for entry in asked]


def check_same(known: Sequence[Entry], entries: Sequence[Entry]) -> None:
    """Refuse to take up a sweep with a command that has changed; more points may be added.

    Raises:
        ConfigError: there are points that the record lacks, in place of some that it has.
    """
    recorded, asked = ({entry.identity: entry for entry in side} for side in (known, entries))
    new = [entry for mark, entry in asked.items() if mark not in recorded]
    gone = [entry for mark, entry in recorded.items() if mark not in asked]
    if new and gone:
        raise ConfigError(_changed(new, gone))


def pending(points: Iterable[Point], retry: Collection[str]) -> list[tuple[Point, str]]:
    """The points that are yet to run, and of each why its records are to go first ("": they stay).

    Points that have ended are left alone, unless `retry` names their state or a record of theirs
    is damaged. Such a point runs again from the start, and one that failed from its checkpoint.
    """
    found = []
    for point in points:
        try:
            status = records.load_status(point.folder)
            if status["state"] in ENDED:
                records.verify(point.folder, status)
                if status.get("identity") != identity(point.config):
                    raise ValueError(
                        f"{point.folder / records.STATUS} is of another config or version"
                    )
        except FileNotFoundError:
            found.append((point, ""))
        except ValueError as error:
            found.append((point, str(error)))
        else:
            if status["state"] not in ENDED or status["state"] in retry:
                found.append((point, "it diverged" if status["state"] == "diverged" else ""))
    return found


def status_of(point: Point) -> Status:
    """What a point's folder says of it; "waiting" if it has not begun."""
    try:
        return records.load_status(point.folder)
    except (FileNotFoundError, ValueError):
        return {"state": "waiting"}


def clear(todo: Iterable[tuple[Point, str]]) -> list[Point]:
    """Remove the records that are not to be gone on from, saying why; the points to run."""
    points = []
    for point, reason in todo:
        if reason:
            print(f"point {point.folder.name} runs again from the start: {reason}.")
            records.forget(point.folder)
        elif status_of(point)["state"] in ENDED:  # it is not to be taken for ended meanwhile
            (point.folder / records.STATUS).unlink()
        points.append(point)
    return points


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other sweeps out of a folder; the system lets go of the lock when the process ends.

    Raises:
        ConfigError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / records.LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"another sweep runs in {str(folder)!r}: wait for it, or end it."
            ) from error
        yield


def _from_folder(folder: Path) -> Entry:
    config = check(OmegaConf.load(folder / records.CONFIG))  # type: ignore[arg-type]
    words = OmegaConf.load(folder / records.CONFIG.with_name("overrides.yaml"))
    number = int(folder.name) if folder.name.isdigit() else 0
    return Entry(number, folder.name, [str(word) for word in words], identity(config), config)


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _changed(new: Sequence[Entry], gone: Sequence[Entry]) -> str:
    """What sets the points of a command apart from those of the record that are nearest to them."""
    counts: Counter[str] = Counter()
    for entry in new:
        nearest = min((_differences(old.config, entry.config) for old in gone), key=len)
        counts.update(nearest or ["gradlab's version"])
    listed = [f"{what} ({n} point{'s'[: n > 1]})" for what, n in counts.most_common(SHOWN)]
    return (
        f"sweep.resume: {len(new)} of the points are not those of the sweep: "
        f"{'; '.join(listed)}. Repeat the command as it was, or start a new sweep."
    )


def _differences(old: Config, new: Config) -> list[str]:
    before, after = (
        records.flatten({k: v for k, v in config.items() if k not in BOOKKEEPING})
        for config in (old, new)
    )
    return [
        f"{key} was {before.get(key)}, now {after.get(key)}"
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    ]
