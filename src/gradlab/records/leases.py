"""Leases: which process runs a point, said by a small file in the point's folder.

A lease is made before the point's status says "running", its time is renewed while the process
lives, and it is deleted when the point has ended. A process of this machine is looked up, by its
number and the moment it started. One elsewhere is taken for alive as long as its lease is renewed,
by the file system's own clock, since those of machines differ.
"""

import contextlib
import json
import os
import secrets
import shlex
import socket
import stat
import threading
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from gradlab.printable import printable

LEASE = ".lease"
RENEW_SECONDS = 20.0
EXPIRE_SECONDS = 100.0  # after the last renewal; a network file system may show it a minute late
PROC = Path("/proc")

_held: dict[Path, str] = {}  # the leases of this process: folder, token
_lock = threading.RLock()  # a signal may come while it is held
_renewer: threading.Thread | None = None


@dataclass(frozen=True)
class Holder:
    """The process that runs a point, as its lease names it."""

    host: str = "an unknown host"
    pid: int = 0
    started: str = ""  # when the process did, in the system's ticks
    place: str = ""  # boot and namespace in which `pid` means one process; "": not known
    folder: str = ""  # the point's, resolved: a copied lease is not renewed
    work: str = ""  # a scheduler's unit of work, which may start again in another process
    job: str = ""  # SLURM's number of the job
    token: str = ""  # drawn when the lease was made
    expires: float | None = None  # in so many seconds unless renewed; None: with the process

    def __str__(self) -> str:
        """Return who it is, in words."""
        return f"{f'SLURM job {self.job}' if self.job else f'process {self.pid}'} on {self.host}"

    def text(self) -> str:
        """Return the content of the lease."""
        content = asdict(self)
        del content["expires"]  # the file's time says it
        return json.dumps(content)

    @property
    def end(self) -> str:
        """Return the command that ends it."""
        return f"scancel {shlex.quote(self.job)}" if self.job else f"kill {self.pid}"


def holder(folder: str | Path) -> Holder | None:
    """Return the living process that runs the point in a folder; None if there is none."""
    found = _read(Path(folder) / LEASE)
    return _if_alive(found, Path(folder)) if found else None


def take(folder: Path, work: str = "") -> Holder | None:
    """Take the lease of a point for this process, unless a living one has it.

    Args:
        folder: the point's.
        work: id of a scheduler's unit of work: a lease of the same is taken over, since the
            scheduler starts it again only where it has ended.

    Returns:
        The other process that has it; None: this one has it now. (Where no lease can be written,
        the point's records cannot either, and that is said where they are.)
    """
    own = _own(folder, work)
    for _ in range(10):  # another process may release or take it at the same moment
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _create(folder / LEASE, own.text())
        except FileExistsError:
            found = _read(folder / LEASE)
            if found is None:
                continue
            if found.token == _held.get(folder):
                return None
            if (alive := _if_alive(found, folder)) and not (work and alive.work == work):
                return alive
            _remove(folder, found.token)
        except OSError:
            return None
        else:
            _keep(folder, own.token)
            return None
    return holder(folder)


def release(folder: Path) -> None:
    """Delete the lease of a point, if this process has it."""
    with _lock:
        token = _held.pop(folder, None)
    if token:
        _remove(folder, token)


def held() -> list[Path]:
    """Return the folders of the points whose leases this process has."""
    with _lock:
        return list(_held)


def taken_over(folder: Path) -> Holder | None:
    """Return the process that has taken a lease which this one had: it was not renewed in time."""
    token, found = _held.get(folder), _read(folder / LEASE)
    return found if token and found and found.token != token else None


def _own(folder: Path, work: str) -> Holder:
    environment = os.environ.get
    job = environment("SLURM_JOB_ID", "")
    if array := environment("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{environment('SLURM_ARRAY_TASK_ID')}"
    pid, token = os.getpid(), secrets.token_hex(8)
    place, real = _place(), os.path.realpath(folder)
    return Holder(socket.gethostname(), pid, _started(pid), place, real, work, job, token)


def _keep(folder: Path, token: str) -> None:
    global _renewer
    with _lock:
        _held[folder] = token
        if _renewer is None or not _renewer.is_alive():  # a forked process has lost its own
            _renewer = threading.Thread(target=_renew, name="leases", daemon=True)
            _renewer.start()


def _renew() -> None:
    while True:
        time.sleep(RENEW_SECONDS)
        for folder in held():
            if not taken_over(folder):
                with contextlib.suppress(OSError):
                    os.utime(folder / LEASE)


def _create(path: Path, text: str) -> None:
    """Write a file that must not exist.

    Raises:
        FileExistsError: it does.
        OSError: it cannot be written, and is not left behind.
    """
    with path.open("x", encoding="utf-8") as file:
        try:
            file.write(text)
            file.flush()
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _remove(folder: Path, token: str) -> None:
    """Delete the lease with this token; if another has replaced it, that one stays."""
    path, aside = folder / LEASE, folder / f"{LEASE}.{secrets.token_hex(4)}.part"
    with contextlib.suppress(OSError):
        path.rename(aside)  # of several processes that try, one succeeds
        if (moved := _read(aside)) and moved.token != token:
            os.link(aside, path)
    with contextlib.suppress(OSError):
        aside.unlink(missing_ok=True)


def _read(path: Path) -> Holder | None:
    """Return a lease's holder, living or not; None if there is no lease."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # no lease, and perhaps without an end
            return Holder()
        content = json.loads(path.read_text(encoding="utf-8"))
        words: dict[str, Any] = {name: printable(value) for name, value in content.items()}
        return Holder(**words | {"pid": int(content["pid"]), "expires": None})
    except OSError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError):  # it is being written, or is not ours
        return Holder()


def _if_alive(found: Holder, folder: Path) -> Holder | None:
    if found.started and (found.host, found.place) == (socket.gethostname(), _place()):
        if _started(found.pid) != found.started:
            return None
        if found.folder == os.path.realpath(folder):
            return found
    age = _age(folder)  # a time to come is no renewal's
    return replace(found, expires=EXPIRE_SECONDS - age) if abs(age) < EXPIRE_SECONDS else None


def _age(folder: Path) -> float:
    """Return the seconds since a lease was renewed."""
    clock = folder / f"{LEASE}.{secrets.token_hex(4)}.part"
    try:
        try:
            clock.touch(exist_ok=False)
            now = clock.stat().st_mtime
        finally:
            clock.unlink(missing_ok=True)
    except OSError:  # a folder that is only read
        now = time.time()
    try:
        return now - (folder / LEASE).lstat().st_mtime
    except OSError:
        return EXPIRE_SECONDS


def _started(pid: int) -> str:
    """Return when a process started, in ticks since the boot; "" if it has ended, or no one says.

    Source: proc(5), fields 3 (state) and 22 (starttime) of /proc/PID/stat.
    """
    try:
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


@cache
def _place() -> str:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return ""
