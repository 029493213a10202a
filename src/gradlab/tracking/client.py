"""W&B's client, kept from writing where it cannot and from settings that a sweep's folder holds."""

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from gradlab import records

SETTINGS = Path(records.WANDB) / "settings"  # W&B reads it from the current folder


@cache
def prepare_client() -> None:
    """Set W&B's variables that the user has not: no error reports, and folders that can be written.

    Where the home folder cannot be written, W&B's staged files and its log go to a temporary one.
    """
    from wandb import env

    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else W&B sends reports of its errors
    defaults = {env.DATA_DIR: Path(env.get_data_dir()), env.CACHE_DIR: env.get_cache_dir()}
    for name, default in defaults.items():
        if name not in os.environ and not _can_be_written(default):
            os.environ[name] = tempfile.mkdtemp(prefix="gradlab-wandb-")
            atexit.register(shutil.rmtree, os.environ[name], ignore_errors=True)


def check_settings() -> None:
    """Refuse to call a server whose address would come from the sweep's folder that one is in.

    W&B reads wandb/settings of the current folder: a sweep's folder that somebody else made could
    have the user's key sent to a server of theirs.

    Raises:
        ConnectionError: the current folder is a sweep's and holds W&B's settings.
    """
    here = Path.cwd()
    marks = (records.SWEEP, records.MULTIRUN)
    if (here / SETTINGS).exists() and any((here / mark).exists() for mark in marks):
        raise ConnectionError(
            f"{here / SETTINGS} would decide which server gets your key: go to another folder, "
            "or delete that file"
        )


def base_url() -> str:
    """Return the address of the server that W&B's settings name."""
    import wandb

    return str(wandb.setup().settings.base_url)


def _can_be_written(folder: Path) -> bool:
    present = next((x for x in (folder, *folder.parents) if x.exists()), folder)
    return present.is_dir() and os.access(present, os.W_OK | os.X_OK)
