"""Ctrl-C and SIGTERM as a request: points write a checkpoint and end, instead of breaking off."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import NoReturn

from gradlab import records
from gradlab.records import leases

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_is_guest = ContextVar("is_guest", default=False)


@contextmanager
def as_guest() -> Iterator[None]:
    """Leave the process to its owner: asked to stop twice, a sweep raises, and ends nothing."""
    token = _is_guest.set(True)
    try:
        yield
    finally:
        _is_guest.reset(token)


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """Yield an event that is set once the process is asked to stop; asked twice, it ends at once.

    (Where a program that is not gradlab's called the sweep, KeyboardInterrupt is raised instead.)

    Signals reach the main thread alone; in any other the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_signal(number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if stop.is_set() and _is_guest.get():
            raise KeyboardInterrupt
        if stop.is_set():
            _end_at_once(number, name)
        stop.set()
        _say(
            f"gradlab: {name}: every running point trains on to its next logged step, keeps a "
            f"checkpoint and ends; once more {'raises' if _is_guest.get() else 'ends it'} at once."
        )

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_at_once(number: int, name: str) -> NoReturn:
    """End the process without waiting for its threads, in which a user's code may hang."""
    with contextlib.suppress(BaseException):
        for folder in leases.held():
            _mark_interrupted(
                folder, f"ended at once by {name}: run again, it goes on from its last checkpoint"
            )
        _say(f"gradlab: {name}: ended at once; go on from the last checkpoints with sweep.resume.")
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(128 + number)


def _mark_interrupted(folder: Path, reason: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        status = records.load_status(folder)
        if status["state"] == "running":
            records.save_status(folder, status | {"state": "interrupted", "reason": reason})
    leases.release(folder)


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # no one may read any more
        print(sentence, file=sys.stderr)
