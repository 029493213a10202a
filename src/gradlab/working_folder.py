"""Modules in the working folder: imported only for a part that the user names.

The folder may be a sweep that somebody sent, and `python -m` puts it before all others: a numpy.py
in it would run in place of NumPy.
"""

import os
import sys
from importlib.util import find_spec


def leave_path() -> None:
    """Take the working folder off Python's path, where `python -m` has put it first."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        sys.exit("gradlab: the working folder has been removed: go to another.")
    if sys.path[:1] in ([""], [here]):
        del sys.path[0]


def join_path(module: str) -> None:
    """Put the working folder last on Python's path, if a module is found nowhere before it."""
    package, here = module.partition(".")[0], os.getcwd()
    if package in sys.modules or here in sys.path:
        return
    found = find_spec(package)
    if found is None or found.origin is None:  # or is a mere folder of that name
        sys.path.append(here)
