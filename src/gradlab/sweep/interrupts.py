"""Ctrl-C and SIGTERM as a request: points write a checkpoint and end, instead of breaking off."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """Yield an event that is set once the process is asked to stop; asked twice, it ends at once.

    Signals reach the main thread alone; in any other the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_signal(number: int, _: FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        stop.set()
        print(
            f"gradlab: {signal.Signals(number).name}: every running point trains on to its next "
            "logged step, keeps a checkpoint and ends; once more ends it at once.",
            file=sys.stderr,
        )

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
