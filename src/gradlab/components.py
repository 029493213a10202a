"""Config sections that name a function or class by `_target_`: checked against it, then called.

A component is such a section as plain data: {"_target_": "gradlab.tasks.echo.echo", "delay": 5}.
Its arguments are checked against the function's own annotations, so adding a function, ours or
yours, needs no change here.
"""

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, get_type_hints

import pydantic
import pydantic_core
from hydra._internal.utils import _locate  # hydra.utils.get_object logs what it raises

from gradlab.working_folder import join_path

Component: TypeAlias = dict[str, Any]
Validator: TypeAlias = pydantic.TypeAdapter[Any]


class ConfigError(ValueError):
    """A wrong value, name or type in the config: one sentence for the person who typed it."""


class CallError(TypeError):
    """A function does not take the arguments that gradlab gives it; it has not begun."""


def check_component(
    component: Any, key: str, also: Mapping[str, Validator | None] | None = None
) -> Component:
    """Check a component against the parameters of the function that it names.

    Args:
        component: the section as it was configured.
        key: where it stands in the config, for the error's sentence ("model.cell").
        also: entries that a section may have though its function does not take them.

    Returns:
        The section, each argument converted to its annotated type.

    Raises:
        ConfigError: there is no such function, or it takes no such argument or value.
    """
    if not isinstance(component, dict) or "_target_" not in component:
        raise ConfigError(f"{key} must name what it calls by {key}._target_; got {component!r}.")
    target = component["_target_"]
    try:
        function = locate(str(target))
        parameters = parameters_of(function)
        _hints(function)  # annotations that cannot be read are an error of the component
    except (Exception, SystemExit) as error:  # a module may end the process when it is imported
        raise ConfigError(
            f"{key}._target_ must be the dotted path of something that can be imported and "
            f"called; got {target!r} ({why_not(str(target), error)})."
        ) from error
    checked = {"_target_": target}
    for name, value in component.items():
        if name == "_target_":
            continue
        if takes(parameters, name):
            check = argument_validator(function, name)
        elif also and name in also:
            check = also[name]
        else:
            allowed = ", ".join(parameters)
            raise ConfigError(f"{key}.{name} is unknown: {target} takes {allowed}.")
        checked[name] = validate(check, value, f"{key}.{name}")
    return checked


def build(component: Mapping[str, Any], *args: Any, **overrides: Any) -> Any:
    """Call the function that a checked component names, with its arguments and the overrides.

    Raises:
        ConfigError: the component has an argument that `args` give, or lacks one.
        CallError: as in `call`.
    """
    target = component["_target_"]
    function = locate(target)
    arguments = {k: v for k, v in component.items() if k != "_target_"} | overrides
    parameters = parameters_of(function)
    given = list(parameters)[: len(args)]
    for name in given:
        if name in arguments:
            raise ConfigError(f"{target} gets its {name} from the network: leave {name} out.")
    missing = [x for x in needed(parameters) if x not in given and x not in arguments]
    if missing:
        raise ConfigError(
            f"{target} needs {', '.join(missing)}: give it beside its _target_ in the config."
        )
    return call(function, *args, **arguments)


def call(function: Callable[..., Any], *args: Any, **arguments: Any) -> Any:
    """Call a function of somebody's; what its own code raises is raised as it is.

    Raises:
        CallError: it does not take these arguments.
    """
    try:
        return function(*args, **arguments)
    except TypeError as error:
        with suppress(ValueError):  # some of C have no signature
            signature = inspect.signature(function)
            try:
                signature.bind(*args, **arguments)
            except TypeError:
                raise CallError(_last_line(error)) from error
        raise


def locate(target: str) -> Any:
    """Return what a `_target_` names, in the working folder too if that is where its module is."""
    join_path(target)
    return _locate(target)


def why_not(target: str, error: BaseException) -> str:
    """Return why `locate` or a look at the parameters failed, without Hydra's own words."""
    cause = error.__cause__ if isinstance(error, ImportError) and error.__cause__ else error
    module, _, name = target.rpartition(".")
    if isinstance(cause, SyntaxError):
        return f"SyntaxError: {cause}"
    if not isinstance(cause, ModuleNotFoundError):
        return _last_line(cause)
    if cause.name == target.partition(".")[0]:
        where = f"the working folder is {Path.cwd()}"
        return f"there is no module {cause.name!r}; {where}"
    if cause.name != target or module not in sys.modules:
        return _last_line(cause)
    near = get_close_matches(name, dir(sys.modules[module]), n=1)
    return f"{module} has no {name}{f'; did you mean {near[0]}?' if near else ''}"


def targets_of(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the key of each `_target_` in plain data, and what it names."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, str(node["_target_"])
        for name, child in node.items():
            yield from targets_of(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for child in node:
            yield from targets_of(child, key)


def parameters_of(function: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function or of a class's __init__, by name, without self."""
    # The metaclass of Flax's modules hides the parameters of __init__ behind *args and **kwargs.
    called = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    parameters = dict(inspect.signature(called).parameters)
    parameters.pop("self", None)
    return parameters


def needed(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """Return the names of the parameters that have no default."""
    rest = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [
        name
        for name, x in parameters.items()
        if x.kind not in rest and x.default is inspect.Parameter.empty
    ]


def takes(parameters: Mapping[str, inspect.Parameter], name: str) -> bool:
    """Return whether a function with these parameters accepts an argument of that name."""
    return name in parameters or any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )


def validator(hint: Any) -> Validator | None:
    """Return a validator of a type; None where pydantic has none for it."""
    try:
        # A text such as 0 is a number to YAML.
        config = pydantic.ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True)
        return pydantic.TypeAdapter(hint, config=config)
    except (pydantic.PydanticUserError, pydantic_core.SchemaError):
        return None


@cache  # building it takes longer than the validation
def argument_validator(function: Any, name: str) -> Validator | None:
    """Return the validator of one argument, by its annotation."""
    return validator(_hints(function).get(name, Any))


def validate(check: Validator | None, value: Any, key: str) -> Any:
    """Return a value converted to its type; true is no number, and a number is not true.

    Raises:
        ConfigError: it is not of that type, outside its limits, or not a number; names the key.
    """
    try:
        checked = value if check is None else check.validate_python(value)
    except pydantic.ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        message = message.replace("Input should be", "must be")
        swept = isinstance(value, list) and value and not any(isinstance(x, list) for x in value)
        remedy = " (to sweep over several, leave the brackets out)" if swept else ""
        raise ConfigError(f"{key} {message}; got {value!r}{remedy}.") from error
    for given, converted in _leaves(value, checked):
        if isinstance(given, bool) and not isinstance(converted, bool):
            raise ConfigError(f"{key} must be a number; got {value!r}.")
        if (
            isinstance(given, int | float)
            and isinstance(converted, bool)
            and given is not converted
        ):
            raise ConfigError(f"{key} must be true or false; got {value!r}.")
        if isinstance(converted, float) and math.isnan(converted):
            raise ConfigError(f"{key} must be a number; got {value!r}.")
    return checked


def _leaves(given: Any, converted: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the values that lie in lists, before and after their conversion."""
    if all(isinstance(x, Sequence) and not isinstance(x, str) for x in (given, converted)):
        for old, new in zip(given, converted, strict=False):
            yield from _leaves(old, new)
    else:
        yield given, converted


@cache
def _hints(function: Any) -> dict[str, Any]:
    annotated = vars(function).get("__init__", function) if isinstance(function, type) else function
    try:
        return get_type_hints(annotated, include_extras=True)
    except (NameError, TypeError):  # annotations that only a type checker can see
        return {}


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
