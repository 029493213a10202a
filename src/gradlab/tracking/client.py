"""W&B's client, kept from writing where it cannot and from reading what lies in the current folder.

Whoever made a folder could otherwise have the user's key sent to a server of theirs, or W&B's files
written into another folder.
"""

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from gradlab.printable import printable

if TYPE_CHECKING:
    import wandb

SETTINGS = (Path(".wandb") / "settings", Path("wandb") / "settings")  # made by `wandb init`
AGENTS = {  # variables that an agent sets, and W&B's settings that they become
    "WANDB_RUN_ID": "run_id",
    "WANDB_SWEEP_ID": "sweep_id",
    "WANDB_SWEEP_PARAM_PATH": "sweep_param_path",
}
APART = threading.Lock()
PREPARING = threading.Lock()  # the points of several lanes begin at once


def prepare_client() -> None:
    """Keep W&B off the current folder, and set its variables that the user has not.

    From then on W&B takes no settings and no run's config from files of the current folder, in this
    process; the user's own (~/.config/wandb/settings, WANDB_* variables, netrc) count. Settings
    that the user's own code had W&B read in this process before stay as they are.
    """
    with PREPARING:
        _prepare()


def quiet_settings(sweep_id: str | None = None) -> "wandb.Settings":
    """Return the settings of a run that says nothing and looks at nothing but what it is given.

    Args:
        sweep_id: the sweep of an agent whose run it is.
    """
    import wandb

    return wandb.Settings(
        sweep_id=sweep_id,
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        use_dot_wandb=False,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,  # slow, and status.json has the versions
    )


@contextlib.contextmanager
def apart_from_agent() -> Iterator[None]:
    """Let a run that is opened in the block be what its opener says, under an agent of W&B's too.

    W&B else ignores the id and project that it is given, and what the agent has chosen replaces
    whole sections of the run's config that have the same name.
    """
    import wandb

    if not any(map(os.environ.get, AGENTS)):
        yield
        return
    settings = wandb.setup().settings
    with APART:  # the settings are the process's
        before = {name: getattr(settings, name) for name in AGENTS.values()}
        try:
            for name in before:
                setattr(settings, name, None)
            yield
        finally:
            for name, value in before.items():
                setattr(settings, name, value)


def base_url() -> str:
    """Return the address of the server that W&B's settings name."""
    prepare_client()
    import wandb

    return str(wandb.setup().settings.base_url)


@cache
def _prepare() -> None:
    """Do what `prepare_client` says, once.

    W&B sends no error reports. Where the home folder cannot be written, W&B's staged files and its
    log go to a temporary one.
    """
    import wandb
    from wandb import env
    from wandb.sdk.wandb_config import Config

    for owner, name, instead in (
        (wandb.Settings, "settings_workspace", property(lambda _: os.devnull)),
        (Config, "_load_defaults", lambda self: None),  # config-defaults.yaml
    ):
        getattr(owner, name)  # a version of W&B without it may read the folder in another way
        setattr(owner, name, instead)
    _without_launch(wandb.Run)
    for path in filter(os.path.exists, SETTINGS):
        print(
            f"gradlab: {printable(path.absolute())} is not read: set WANDB_BASE_URL, WANDB_ENTITY "
            "and the like instead, or write them to ~/.config/wandb/settings.",
            file=sys.stderr,
        )
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else W&B sends reports of its errors
    defaults = {env.DATA_DIR: Path(env.get_data_dir()), env.CACHE_DIR: env.get_cache_dir()}
    for name, default in defaults.items():
        if name not in os.environ and not _can_be_written(default):
            os.environ[name] = tempfile.mkdtemp(prefix="gradlab-wandb-")
            atexit.register(shutil.rmtree, os.environ[name], ignore_errors=True)


def _without_launch(run: "type[wandb.Run]") -> None:
    """Keep the first run from importing W&B's launcher, a second, to look for inputs staged there.

    Whoever has staged some has imported it.
    """
    apply = getattr(run, "_detect_and_apply_job_inputs", None)
    if apply is None:  # in this version of W&B
        return

    def apply_if_any(self: "wandb.Run") -> None:
        if "wandb.sdk.launch.inputs.internal" in sys.modules:
            apply(self)

    run._detect_and_apply_job_inputs = apply_if_any  # type: ignore[method-assign]


def _can_be_written(folder: Path) -> bool:
    present = next((x for x in (folder, *folder.parents) if x.exists()), folder)
    return present.is_dir() and os.access(present, os.W_OK | os.X_OK)
