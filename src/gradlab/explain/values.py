"""Values of Python as words of the command line: what `gradlab.sweep` is given."""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.components import ConfigError
from gradlab.explain.groups import has_default, options_of
from gradlab.printable import quoted


def words_of(
    settings: Mapping[str, Any], confs: Sequence[Path], overrides: Sequence[str] = ()
) -> list[str]:
    """Return settings as words of the command line: {"init.gain": [0.5, 1]}, "init.gain=0.5,1".

    A part that is a function or class takes the place of the default one and of its arguments, as
    `~task +task._target_=my_module.my_task` does.

    Args:
        settings: values by key, those of sections by keys with dots.
        confs: the folders of config groups, gradlab's own first.
        overrides: words, which come first.

    Raises:
        ConfigError: a value is of a type that no config holds, or a list is empty.
    """
    given = {*map(_key, overrides)}
    values = _with_targets({key: _swept(x) for key, x in settings.items()})
    anew = set[str]()
    for key in [key for key, (value, *_) in values.items() if _is_part(value)]:
        group, _, entry = key.partition(".")
        is_default = options_of(group, confs) and has_default(group, confs[0])
        if entry == "_target_" and is_default and group not in {*values, *given}:
            anew.add(group)
    words = [f"+{x}" if _key(x).partition(".")[0] in anew else x for x in overrides]
    words += [f"~{group}" for group in sorted(anew)]
    for key, several in values.items():
        options = options_of(key, confs)
        is_chosen = options and not has_default(key, confs[0])
        is_added = is_chosen or key.partition(".")[0] in anew or _is_own_probe(key, several)
        typed = ["none" if x is None and "none" in options else _text(key, x) for x in several]
        words.append(f"{'+' if is_added else ''}{key}={','.join(typed)}")
    return words


def _with_targets(values: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Return values by key, in which a function or class is the `_target_` of a part.

    Args:
        values: what is swept over, by key.

    Raises:
        ConfigError: a key has no value.
    """
    named: dict[str, list[Any]] = {}
    for key, several in values.items():
        if not several:
            raise ConfigError(f"{key} has no value: give one, or several.")
        if key == "probe" and len(several) == 1:
            probes = several[0] if isinstance(several[0], tuple) else (several[0],)
            own = [probe for probe in probes if _is_part(probe)]
            named |= {f"probe.{probe.__name__}._target_": [probe] for probe in own}
            several = [tuple(x for x in probes if x not in own)] if own else several
            if several == [()]:
                continue
        part = "model.cell" if key == "model" else key
        is_target = all(map(_is_part, several)) and not key.endswith("_target_")
        named[f"{part}._target_" if is_target else key] = several
    return named


def _is_part(value: Any) -> bool:
    """Return whether a value is a function or class that can be found by its name."""
    return callable(value) and "<" not in getattr(value, "__qualname__", "<locals>")


def _is_own_probe(key: str, values: Sequence[Any]) -> bool:
    return key.startswith("probe.") and key.endswith("._target_") and _is_part(values[0])


def _key(word: Any) -> str:
    """Return the key of a word of the command line; "" of what is none."""
    return word.partition("=")[0] if isinstance(word, str) else ""


def _swept(value: Any) -> list[Any]:
    """Return the values that are swept over: those of a list, a range or an array."""
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # NumPy's, JAX's, pandas'
        value = np.asarray(value)
        value = list(value) if value.ndim else value[()]
    return list(value) if isinstance(value, list | range) else [value]


def _text(key: str, value: Any) -> str:
    """Return a value as it is typed."""
    if value is None or isinstance(value, bool | np.bool_):
        return "null" if value is None else str(bool(value)).lower()
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return repr(float(str(value)))  # 0.1 in float32, too, is 0.1
    if isinstance(value, str | Path):
        return quoted(str(value))
    if isinstance(value, list | tuple):
        return f"[{','.join(_text(key, one) for one in value)}]"
    if _is_part(value):
        return f"{value.__module__}.{value.__qualname__}"
    given = " ".join(repr(value).split())
    is_local = "<" in getattr(value, "__qualname__", "")
    local = " Define it outside any function, and not as a lambda." if is_local else ""
    raise ConfigError(
        f"{key} must be a number, a text, None, a tuple of them, a list of those to sweep over, or "
        f"a function or class of a module or notebook; got {given:.80}.{local}"
    )
