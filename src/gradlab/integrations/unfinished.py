"""The watchers that nobody has finished, which end with the program."""

import atexit
import os
import sys
import threading
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradlab.integrations.watcher import Watcher

open_watchers: set["Watcher"] = set()


def finish_at_exit(watcher: "Watcher") -> None:
    """Have a watcher finished when Python exits, if nobody has by then."""
    _register()
    open_watchers.add(watcher)


@cache
def _register() -> None:
    # Python's hook before it shuts the pools of threads down, which measuring needs; those of
    # atexit run after that.
    getattr(threading, "_register_atexit", atexit.register)(_finish_all)
    if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
        # A worker that loads data ends in the same way, and has no part in the watching.
        os.register_at_fork(after_in_child=open_watchers.clear)


def _finish_all() -> None:
    is_interactive = hasattr(sys, "ps1")  # there, the last error need not be what ends it
    error = None if is_interactive else getattr(sys, "last_value", None)
    for watcher in list(open_watchers):
        watcher.__exit__(type(error) if error else None, error, None)
