"""Config sections that name a function or class by `_target_`: checked against it, then called.

A component is such a section as plain data: {"_target_": "gradlab.tasks.echo.echo", "delay": 5}.
Its arguments are checked against the function's own annotations, so adding a function, ours or
yours, needs no change here.
"""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeAlias, get_type_hints

import pydantic
from hydra.utils import get_object

Component: TypeAlias = dict[str, Any]
Validator: TypeAlias = pydantic.TypeAdapter[Any]


class ConfigError(ValueError):
    """A wrong value, name or type in the config: one sentence for the person who typed it."""


def check_component(component: Any, key: str) -> Component:
    """Check a component against the parameters of the function that it names.

    Args:
        component: the section as it was configured.
        key: where it stands in the config, for the error's sentence ("model.cell").

    Returns:
        The section, each argument converted to its annotated type.

    Raises:
        ConfigError: there is no such function, or it takes no such argument or value.
    """
    if not isinstance(component, dict) or "_target_" not in component:
        raise ConfigError(f"{key} must name what it calls by {key}._target_; got {component!r}.")
    target = component["_target_"]
    try:
        function = get_object(str(target))
        parameters = parameters_of(function)
        _hints(function)  # annotations that cannot be read are an error of the component
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
        checked[name] = validate(argument_validator(function, name), value, f"{key}.{name}")
    return checked


def build(component: Mapping[str, Any], *args: Any, **overrides: Any) -> Any:
    """Call the function that a checked component names, with its arguments and the overrides."""
    arguments = {k: v for k, v in component.items() if k != "_target_"} | overrides
    return get_object(component["_target_"])(*args, **arguments)


def parameters_of(function: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function or of a class's __init__, by name, without self."""
    # The metaclass of Flax's modules hides the parameters of __init__ behind *args and **kwargs.
    called = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    parameters = dict(inspect.signature(called).parameters)
    parameters.pop("self", None)
    return parameters


def takes(parameters: Mapping[str, inspect.Parameter], name: str) -> bool:
    """Return whether a function with these parameters accepts an argument of that name."""
    return name in parameters or any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )


def validator(hint: Any) -> Validator | None:
    """Return a validator of a type; None where pydantic has none for it."""
    try:
        return pydantic.TypeAdapter(hint, config=pydantic.ConfigDict(arbitrary_types_allowed=True))
    except pydantic.PydanticUserError:
        return None


@cache  # building it takes longer than the validation
def argument_validator(function: Any, name: str) -> Validator | None:
    """Return the validator of one argument, by its annotation."""
    return validator(_hints(function).get(name, Any))


def validate(check: Validator | None, value: Any, key: str) -> Any:
    """Return a value converted to its type.

    Raises:
        ConfigError: it is not of that type or outside its limits; names the key.
    """
    if check is None:
        return value
    try:
        return check.validate_python(value)
    except pydantic.ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        message = message.replace("Input should be", "must be")
        raise ConfigError(f"{key} {message}; got {value!r}.") from error


@cache
def _hints(function: Any) -> dict[str, Any]:
    annotated = vars(function).get("__init__", function) if isinstance(function, type) else function
    try:
        return get_type_hints(annotated, include_extras=True)
    except (NameError, TypeError):  # annotations that only a type checker can see
        return {}


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
