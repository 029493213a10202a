"""W&B's environment variables, heard where neither the command nor its experiment says otherwise.

An agent of `wandb agent` starts a command once for each run, and says by them which run of which
sweep that is.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

VARIABLES = {  # of the keys of the config's wandb section
    "mode": "WANDB_MODE",
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "tags": "WANDB_TAGS",
    "group": "WANDB_RUN_GROUP",
    "name": "WANDB_NAME",
    "notes": "WANDB_NOTES",
    "id": "WANDB_RUN_ID",
}
MODES = {"run": "online", "dryrun": "offline"}  # W&B's older words
SWEEP_ID, PARAMETERS, FOLDER = "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_DIR"


class Default(NamedTuple):
    """A value that a variable gives to a key of the config's wandb section."""

    key: str
    value: Any  # not checked
    variable: str


def defaults(environ: Mapping[str, str]) -> Iterator[Default]:
    """Yield the defaults of the config's wandb section; a variable that is empty says nothing.

    Under an agent runs are online unless WANDB_MODE says otherwise: it waits for them there.

    Example:
        >>> from gradlab.tracking.environment import defaults
        >>> [default] = defaults({"WANDB_TAGS": "a, b"})
        >>> default.key, default.value
        ('tags', ['a', 'b'])
    """
    for key, variable in VARIABLES.items():
        value: Any = environ.get(variable, "").strip()
        if key == "mode":
            value = MODES.get(value, value) or ("online" if environ.get(SWEEP_ID) else "")
        if key == "tags":
            value = [tag for tag in map(str.strip, value.split(",")) if tag]
        if value:
            yield Default(key, value, variable)


def without(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables that say what a run is, for an upload of it."""
    said = {*VARIABLES.values(), SWEEP_ID, PARAMETERS, FOLDER}
    return {variable: value for variable, value in environ.items() if variable not in said}


def unheard(environ: Mapping[str, str], here: Path) -> str:
    """Return a sentence if WANDB_DIR is set, by the user and not by an agent in `here`; or ""."""
    folder = environ.get(FOLDER, "")
    if not folder or (environ.get(SWEEP_ID) and Path(folder) == here):
        return ""
    return (
        f"{FOLDER} is not used: a sweep's W&B runs lie in its own folder, from where they are "
        "resumed and read back. hydra.sweep.dir=FOLDER says where that is."
    )


def sweep_id(environ: Mapping[str, str], run_id: str | None) -> str | None:
    """Return the agent's sweep, if its run is the one with an id."""
    is_agents = run_id is not None and environ.get(VARIABLES["id"]) == run_id
    return (environ.get(SWEEP_ID) or None) if is_agents else None


def parameters(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what an agent has chosen, by parameter: {"init.gain": 0.5}; nothing where none has.

    W&B's search finds a run's values in its config under these names.
    """
    try:
        content = yaml.safe_load(Path(environ[PARAMETERS]).read_text(encoding="utf-8"))
        return {key: entry["value"] for key, entry in content.items() if isinstance(entry, dict)}
    except (KeyError, OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        return {}
