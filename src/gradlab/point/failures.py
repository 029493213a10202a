"""Tell a point's failure: one sentence for its status, and the traceback for a file."""

import threading
import traceback

from gradlab.components import ConfigError
from gradlab.printable import escaped, printable
from gradlab.records.files import RecordError


def is_interrupt(error: BaseException) -> bool:
    """Return whether a person interrupts, and not code that raises the same in another thread."""
    here = threading.current_thread() is threading.main_thread()
    return isinstance(error, KeyboardInterrupt) and here


def reason_of(error: BaseException) -> str:
    """Return an error as one line: its kind and what it says."""
    words = _message(error)
    if isinstance(error, ConfigError | RecordError) and words:  # they are sentences
        return words
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an error, as Python prints it."""
    return escaped("".join(traceback.format_exception(error)), kept="\n\t")


def _message(error: BaseException) -> str:
    try:
        return printable(error)
    except Exception:  # a class of one's own may not say anything
        return ""
