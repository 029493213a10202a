"""The configuration of a run: typed sections, their limits, and each section's role.

Sections with a fixed form (model, train, wandb, sweep, …) are dataclasses below. Sections that name
a function by `_target_` (init, task, optim, clip, model.cell, …) are checked by `components`.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import chdir, suppress
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from pathlib import PurePath, PureWindowsPath
from typing import Annotated, Any, Literal, get_args

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue
from pydantic import AfterValidator, Field

from gradlab.components import (
    ConfigError,
    argument_validator,
    check_component,
    validate,
    validator,
)
from gradlab.schedule import Schedule

WandbMode = Literal["offline", "online", "disabled"]
Lanes = Literal["auto", "threads", "vmap"]
LONGEST_NAME = 255  # bytes of a file's name
DType = Literal["bfloat16", "float16", "float32", "float64"]
Retry = Literal["nothing", "failed", "diverged", "failed,diverged"]


@dataclass(frozen=True)
class Role:
    """The roles of a section of the config, or of one key."""

    component: bool = False  # it names a function by `_target_`
    compiled: bool = False  # it determines the compiled program, except its traced values
    traced: bool = False  # its floats are arguments of the compiled program
    bookkeeping: bool = False  # a point's numbers do not depend on it


# From this table follow a point's identity, its program and its checkpoints' digest.
ROLES: Mapping[str, Role] = {
    "name": Role(bookkeeping=True),
    "model": Role(compiled=True),
    "init": Role(component=True, compiled=True, traced=True),
    "bias": Role(component=True, compiled=True, traced=True),
    "task": Role(component=True, compiled=True),
    "optim": Role(component=True, compiled=True, traced=True),
    "clip": Role(component=True, compiled=True, traced=True),
    "tbptt": Role(compiled=True),
    "regulariser": Role(component=True, compiled=True, traced=True),
    "train": Role(compiled=True),
    "train.checkpoint_seconds": Role(bookkeeping=True),
    "probe": Role(compiled=True),
    "wandb": Role(bookkeeping=True),
    "sweep": Role(bookkeeping=True),
    "measure": Role(component=True),
    "seed": Role(traced=True),
}


def one_of(*allowed: str) -> AfterValidator:
    """Accept only the given strings. (OmegaConf's structured configs know no Literal.)"""

    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return AfterValidator(check)


def text(*, longest: int | None = None, without: str = "", parts: bool = False) -> AfterValidator:
    """Accept only strings that are not empty.

    Args:
        longest: the most characters; None: any number.
        without: characters that may not occur.
        parts: the string is a path below a folder; see `is_below`.
    """

    def check(value: str) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        if longest and len(value) > longest:
            raise ValueError(f"must have at most {longest} characters")
        if set(value) & set(without):
            raise ValueError(f"must be without the characters {' '.join(without)}")
        if parts and not is_below(value):
            raise ValueError("must be a folder's name, below runs/")
        return value

    return AfterValidator(check)


def is_below(path: str) -> bool:
    """Return whether a path, on any system, leads to a folder below the one that it starts from.

    (Not upwards, not from the root, a drive or a home, and not to the start itself.)
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    on_windows = PureWindowsPath(path)
    leads_out = ".." in (*parts, *on_windows.parts) or path.startswith("~")
    return bool(parts) and not on_windows.anchor and not leads_out and path.isprintable()


def too_long(path: PurePath) -> str:
    """Return the first name in a path that no usual file system takes; "" if there is none."""
    return next((name for name in path.parts if len(os.fsencode(name)) > LONGEST_NAME), "")


def run_id(value: str) -> str:
    """Accept only the ids of W&B runs that name a folder."""
    if not re.fullmatch(r"[0-9A-Za-z_-]{1,64}", value):
        raise ValueError("must be 1 to 64 letters, digits, _ or -")
    return value


WANDB_NAME = text(longest=128, without="/\\#?%:")  # what W&B's server accepts
WandbName = Annotated[str, WANDB_NAME]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Threshold = Annotated[float, Field(gt=0)]  # inf is a threshold that is never exceeded

PROBE_SETTINGS = {  # what all probes share
    name: validator(hint)
    for name, hint in {"samples": Count, "stride": Count, "schedule": Schedule}.items()
}

INIT_SETTINGS = {"gain": validator(NonNegative)}  # it scales what takes no gain of its own
TASK_SETTINGS = {"test_lengths": validator(list[Count] | None)}  # held-out sequences, evaluated too


@dataclass
class Model:
    """The network: a stack of recurrent cells and a readout."""

    name: str = MISSING
    hidden_size: Count = 32
    num_layers: Count = 1
    skip: Annotated[str, one_of("none", "residual", "highway")] = "none"  # around upper layers
    decoder: bool = False  # a second stack answers where the task's last input is 1
    other_std: NonNegative | None = None  # of weights that are not recurrent; None: 1/√(fan-in)
    other_limit: NonNegative | None = None  # instead: they are uniform within ± this
    readout: Annotated[str, one_of("linear", "sigmoid")] = "linear"
    readout_bias: NonNegative | None = (
        0.0  # its biases are uniform within ± this; None: it has none
    )
    # Of the state and the cell's products; weights stay in float32, unless it is float64.
    dtype: Annotated[str, one_of(*get_args(DType))] = "float32"
    cell: Any = MISSING


@dataclass
class Train:
    """Length of training in updates, and how often it is logged and kept."""

    steps: Annotated[int, Field(ge=0)] = 300
    batch_size: Count = 32
    log_every: Count = 20  # updates
    objective: Annotated[str, one_of("mean", "half_sum")] = "mean"  # half_sum: ½ Σ (squared errors)
    loss_scale: Any = None  # a rule that scales the loss (training.loss_scaling)
    stop: Any = None  # a rule that ends training before its last update (training.stopping)
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0  # apart; inf: only when interrupted


@dataclass
class Tbptt:
    """Truncated backpropagation through time; without a window, gradients reach the start."""

    window: Count | None = None  # steps that a gradient flows back
    stride: Count | None = None  # steps between windows; None: the window's length
    update: Annotated[str, one_of("sequence", "segment")] = "sequence"


@dataclass
class Wandb:
    """The run in Weights & Biases."""

    mode: Annotated[str, one_of(*get_args(WandbMode))] = "offline"
    project: WandbName = "gradlab"
    entity: WandbName | None = None
    tags: list[Annotated[str, text(longest=64)]] = field(default_factory=list)
    group: Annotated[str, text(longest=128)] | None = None  # None: the sweep, NAME/DATE
    name: Annotated[str, text(longest=128)] | None = None  # of a sweep's only run; else before each
    notes: Annotated[str, text()] | None = None
    id: Annotated[str, AfterValidator(run_id)] | None = None  # of the only run


@dataclass
class Sweep:
    """Settings of a whole sweep, on which no point's numbers depend."""

    resume: Annotated[str, text()] | None = (
        None  # the folder of a sweep, whose pending points are run
    )
    retry: Annotated[str, one_of(*get_args(Retry))] = "nothing"  # states whose points run again
    plan_only: bool = False  # print the plan, run nothing (--dry)
    lanes: Annotated[str, one_of(*get_args(Lanes))] = "auto"  # auto: threads on a CPU, else vmap
    chunk: Annotated[int | None, Field(ge=1)] = None  # points vmapped together; None: what fits
    trust: list[str] = field(default_factory=list)  # foreign `_target_`s that a record may call
    # At its end: a row a setting, its seeds averaged, or a row a point.
    table: Annotated[str, one_of("settings", "points")] = "settings"
    keep_programs: bool = True  # compiled programs are kept on disk for the next sweep
    objective: Annotated[str, text()] = "eval/loss"  # of a search: a metric of the points' summary

    @property
    def retried(self) -> set[str]:
        """Return the states whose points run again."""
        return set(self.retry.split(","))


@dataclass
class Config:
    """The configuration of one point of a sweep."""

    name: Annotated[str, text(parts=True)] = "gradlab"
    model: Model = field(default_factory=Model)
    init: Any = MISSING
    bias: Any = MISSING
    task: Any = MISSING
    optim: Any = MISSING
    clip: Any = MISSING
    tbptt: Tbptt = field(default_factory=Tbptt)
    regulariser: Any = MISSING
    train: Train = field(default_factory=Train)
    probe: Any = MISSING
    wandb: Wandb = field(default_factory=Wandb)
    sweep: Sweep = field(default_factory=Sweep)
    measure: Any = None  # a function that returns a table, called instead of training
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


def register(wandb: Iterable[tuple[str, Any, str]] = ()) -> None:
    """Register with Hydra the schema and the resolvers that the files of conf/ use.

    Args:
        wandb: other defaults of the section wandb: key, value, and who says so, for the sentence.

    Raises:
        ConfigError: one is wrong.
    """
    defaults = {
        key: validate(argument_validator(Wandb, key), value, by) for key, value, by in wandb
    }
    OmegaConf.register_new_resolver("first", lambda *given: next(filter(None, given)), replace=True)
    OmegaConf.register_new_resolver("by", lambda choice, values: values[choice], replace=True)
    OmegaConf.register_new_resolver("file_digest", file_digest, replace=True)
    ConfigStore.instance().store(name="gradlab_schema", node=Config(wandb=Wandb(**defaults)))


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return a digest of a file's contents, 16 characters; "" where none can be read.

    A section that has it as `digest: ${file_digest:${.path}}` beside the file's `path` is known by
    what the file says, wherever it lies.
    """
    with suppress(OSError, TypeError):
        path = os.path.expanduser(path)
        status = os.stat(path)
        return _file_digest(os.fspath(path), status.st_ino, status.st_size, status.st_mtime_ns)
    return ""


@lru_cache  # a sweep asks once a point
def _file_digest(path: str, *state: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def check(composed: DictConfig) -> Config:
    """Check a composed config and resolve it, each value converted to its type.

    Sections that are not gradlab's (Hydra's own) are left out.

    Raises:
        ConfigError: the first key that is wrong, what it allows, and what was given.
    """
    try:
        resolved = {str(key): _plain(composed[key]) for key in composed if key != "hydra"}
    except MissingMandatoryValue as error:
        missing = f"{error.full_key} has no value: type {error.full_key}=VALUE."
        raise ConfigError(missing) from None  # whose sentence is OmegaConf's
    config: Config = _checked_section(Config, resolved, "")
    with chdir(os.curdir):  # a part of the user's that leaves the folder moves no sweep
        _check_components(config)
    return config


def _check_components(config: Config) -> None:
    flossing = config.init.pop("floss", None) if isinstance(config.init, dict) else None
    for section, role in ROLES.items():
        if role.component and (section != "measure" or config.measure is not None):
            also = {"init": INIT_SETTINGS, "task": TASK_SETTINGS}.get(section)
            setattr(config, section, check_component(getattr(config, section), section, also))
    if flossing is not None:
        config.init["floss"] = check_component(flossing, "init.floss")
    if not config.task.get("test_lengths"):  # as recorded tasks are, which have no such key
        config.task.pop("test_lengths", None)
    config.model.cell = check_component(config.model.cell, "model.cell")
    for key in ("stop", "loss_scale"):
        if (rule := getattr(config.train, key)) is not None:
            setattr(config.train, key, check_component(rule, f"train.{key}"))
    config.probe = {
        name: validate(PROBE_SETTINGS[name], value, f"probe.{name}")
        if name in PROBE_SETTINGS
        else check_component(value, f"probe.{name}")
        for name, value in config.probe.items()
        if value is not None  # probe.NAME=null switches one off
    }


def from_record(record: Mapping[str, Any]) -> Config:
    """Rebuild a checked config from the plain data that a record keeps of it (`asdict`).

    Raises:
        TypeError, KeyError: it is the config of another version, whose keys differ.
    """
    sections: dict[str, Any] = dict(record)
    for entry in fields(Config):
        if isinstance(entry.type, type) and is_dataclass(entry.type):
            sections[entry.name] = entry.type(**record[entry.name])
    return Config(**sections)


def _checked_section(schema: Any, values: Mapping[str, Any], prefix: str) -> Any:
    checked: dict[str, Any] = {}
    names = [entry.name for entry in fields(schema)]
    if unknown := [key for key in values if key not in names]:  # added by + or ++
        section = prefix.removesuffix(".") or "the config"
        raise ConfigError(f"{prefix}{unknown[0]} is unknown: {section} takes {', '.join(names)}.")
    for entry in fields(schema):
        key = f"{prefix}{entry.name}"
        if entry.name not in values:
            raise ConfigError(f"{key} is missing: leave ~{key} out.")
        value = values[entry.name]
        if isinstance(entry.type, type) and is_dataclass(entry.type):
            checked[entry.name] = _checked_section(entry.type, value, f"{key}.")
        else:
            checked[entry.name] = validate(argument_validator(schema, entry.name), value, key)
    return schema(**checked)


def _plain(node: Any) -> Any:
    """Return a section as plain data, its interpolations resolved."""
    if not OmegaConf.is_config(node):
        return node
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
