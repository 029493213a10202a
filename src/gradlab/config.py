"""What a run is configured by: typed sections, their limits, and sentences for what breaks them.

Sections with a fixed form (model, train, wandb, sweep) are dataclasses below. Sections that name a
function of yours or ours by `_target_` (init, task, optim, clip, model.cell) are checked against
that function's own annotations, so adding one needs no change here.
"""

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from importlib.metadata import version
from typing import Annotated, Any, Literal, get_args, get_type_hints

import pydantic
from hydra.core.config_store import ConfigStore
from hydra.utils import get_object
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue
from pydantic import AfterValidator, Field

from gradlab.schedule import Schedule

TRACED_SECTIONS = ("init", "bias", "optim", "clip", "regulariser")
COMPONENTS = ("init", "bias", "task", "optim", "clip", "regulariser")

BOOKKEEPING = ("name", "sweep", "wandb")  # sections that leave a point's numbers as they are

WandbMode = Literal["offline", "online", "disabled"]
Lanes = Literal["auto", "threads", "vmap"]
Retry = Literal["nothing", "failed", "diverged", "failed,diverged"]
Check = pydantic.TypeAdapter[Any]


class ConfigError(ValueError):
    """A wrong value, name or type in the config: one sentence for the person who typed it."""


def one_of(*allowed: str) -> AfterValidator:
    """Accept only the given strings. (OmegaConf's structured configs know no Literal.)"""

    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return AfterValidator(check)


def _check_of(hint: Any) -> Check | None:
    """What checks values of a type; None where pydantic has no check for it."""
    try:
        return pydantic.TypeAdapter(hint, config=pydantic.ConfigDict(arbitrary_types_allowed=True))
    except pydantic.PydanticUserError:
        return None


Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Threshold = Annotated[float, Field(gt=0)]  # inf is a threshold that is never exceeded

PROBE_SETTINGS = {  # what all probes share
    name: _check_of(hint)
    for name, hint in {"samples": Count, "stride": Count, "schedule": Schedule}.items()
}


@dataclass
class Model:
    """The network: a stack of recurrent cells and a linear readout."""

    name: str = MISSING
    hidden_size: Count = 32
    num_layers: Count = 1
    decoder: bool = False  # a second stack, which answers where the task's last input is 1
    other_std: NonNegative | None = None  # of weights that are not recurrent; None: 1/√(fan-in)
    cell: Any = MISSING


@dataclass
class Train:
    """How long, and how often it is looked at."""

    steps: Annotated[int, Field(ge=0)] = 300
    batch_size: Count = 32
    log_every: Count = 20
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0  # inf: only when interrupted


@dataclass
class Tbptt:
    """Truncated backpropagation through time (`truncated`); without a window, none."""

    window: Count | None = None
    stride: Count | None = None  # the window's length
    update: Annotated[str, one_of("sequence", "segment")] = "sequence"


@dataclass
class Wandb:
    """Where Weights & Biases keeps the run."""

    mode: Annotated[str, one_of(*get_args(WandbMode))] = "offline"
    project: str = "gradlab"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class Sweep:
    """How the points of a sweep are run; a point's numbers do not depend on it."""

    resume: str | None = None  # the folder of a sweep: run what it has left undone
    retry: Annotated[str, one_of(*get_args(Retry))] = "nothing"  # of the points that have ended
    plan_only: bool = False  # show the plan (--dry)
    lanes: Annotated[str, one_of(*get_args(Lanes))] = "auto"  # auto: threads on a CPU, else vmap
    chunk: Annotated[int | None, Field(ge=1)] = None  # points vmapped together; None: what fits
    keep_programs: bool = True  # compiled programs are kept on disk for the next sweep


@dataclass
class Config:
    """One point of a sweep."""

    name: str = "gradlab"
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
    measure: Any = None  # a function to call instead of training: a study that is computed directly
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


def register() -> None:
    """Give Hydra the schema that conf/config.yaml builds on, and what it computes with."""
    OmegaConf.register_new_resolver("first", lambda *given: next(filter(None, given)), replace=True)
    OmegaConf.register_new_resolver("by", lambda choice, values: values[choice], replace=True)
    ConfigStore.instance().store(name="gradlab_schema", node=Config)


def check(composed: DictConfig) -> dict[str, Any]:
    """Check a composed config and return it as plain resolved data, each value of its type.

    Sections that are not gradlab's (Hydra's own) are left out.

    Raises:
        ConfigError: the first key that is wrong, what it allows, and what was given.
    """
    names = [entry.name for entry in fields(Config)]
    for key in map(str, composed):
        if key not in (*names, "hydra"):
            raise ConfigError(f"{key} is unknown: the config takes {', '.join(names)}.")
    try:
        given = {name: _plain(composed[name]) for name in names}
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} has no value: give it one.") from error
    config = _checked_section(Config, given, "")
    for section in COMPONENTS:
        config[section] = check_component(config[section], section)
    config["model"]["cell"] = check_component(config["model"]["cell"], "model.cell")
    if config["measure"] is not None:
        config["measure"] = check_component(config["measure"], "measure")
    config["probe"] = {
        name: _checked_value(PROBE_SETTINGS[name], value, f"probe.{name}")
        if name in PROBE_SETTINGS
        else check_component(value, f"probe.{name}")
        for name, value in config["probe"].items()
        if value is not None  # probe.NAME=null switches one off
    }
    return config


def check_component(component: Any, key: str) -> dict[str, Any]:
    """Check a section that names what it calls by `_target_` against what that takes.

    Raises:
        ConfigError: there is no such thing to call, or an argument is not one that it takes.
    """
    if not isinstance(component, dict) or "_target_" not in component:
        raise ConfigError(f"{key} must name what it calls by {key}._target_; got {component!r}.")
    target = component["_target_"]
    try:
        function = get_object(str(target))
        parameters = parameters_of(function)
        _hints(function)  # what cannot be read is told here
    except Exception as error:
        raise ConfigError(
            f"{key}._target_ must be the dotted path of something that can be imported and "
            f"called; got {target!r} ({_last_line(error)})."
        ) from error
    checked = {"_target_": target}
    for name, value in component.items():
        if name == "_target_":
            continue
        if not takes(parameters, name):
            allowed = ", ".join(parameters)
            raise ConfigError(f"{key}.{name} is unknown: {target} takes {allowed}.")
        checked[name] = _checked_value(_argument_check(function, name), value, f"{key}.{name}")
    return checked


def build(component: Mapping[str, Any], *args: Any, **overrides: Any) -> Any:
    """Call the `_target_` of a checked section with its arguments."""
    arguments = {k: v for k, v in component.items() if k != "_target_"} | overrides
    return get_object(component["_target_"])(*args, **arguments)


def parameters_of(function: Any) -> Mapping[str, inspect.Parameter]:
    """What a function or a class is called with, by name."""
    # The metaclass of Flax's modules hides what __init__ takes behind *args and **kwargs.
    called = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    parameters = dict(inspect.signature(called).parameters)
    parameters.pop("self", None)
    return parameters


def takes(parameters: Mapping[str, inspect.Parameter], name: str) -> bool:
    """Whether something with these parameters may be called with an argument of that name."""
    return name in parameters or any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )


def traced(config: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that a compiled program takes as arguments: seed, and floats of its recipes.

    Everything else (sizes, lengths, which function) decides what is compiled.
    """
    leaves = {
        f"{section}.{key}": value
        for section in TRACED_SECTIONS
        for key, value in config[section].items()
        if isinstance(value, float)
    }
    return leaves | {"seed": config["seed"]}


def identity(config: Mapping[str, Any]) -> str:
    """What tells a point from all others: a hash of its checked config and gradlab's version.

    What does not change its numbers (`BOOKKEEPING`, how often it is kept) is left out.
    """
    decisive = {key: value for key, value in config.items() if key not in BOOKKEEPING}
    kept_apart = ("checkpoint_seconds",)
    decisive["train"] = {k: v for k, v in config["train"].items() if k not in kept_apart}
    text = json.dumps([version("gradlab"), decisive], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _checked_section(schema: type, values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    checked = {}
    for entry in fields(schema):
        key, value = f"{prefix}{entry.name}", values[entry.name]
        if isinstance(entry.type, type) and is_dataclass(entry.type):
            checked[entry.name] = _checked_section(entry.type, value, f"{key}.")
        else:
            checked[entry.name] = _checked_value(_argument_check(schema, entry.name), value, key)
    return checked


@cache  # building it takes longer than the check
def _argument_check(function: Any, name: str) -> Check | None:
    return _check_of(_hints(function).get(name, Any))


@cache
def _hints(function: Any) -> dict[str, Any]:
    described = vars(function).get("__init__", function) if isinstance(function, type) else function
    try:
        return get_type_hints(described, include_extras=True)
    except (NameError, TypeError):  # annotations that only a type checker can see
        return {}


def _plain(node: Any) -> Any:
    """A section as plain data, interpolations resolved."""
    if not OmegaConf.is_config(node):
        return node
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)


def _checked_value(check: Check | None, value: Any, key: str) -> Any:
    if check is None:
        return value
    try:
        return check.validate_python(value)
    except pydantic.ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        message = message.replace("Input should be", "must be")
        raise ConfigError(f"{key} {message}; got {value!r}.") from error


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
