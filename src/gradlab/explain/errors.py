"""Errors as one sentence: what Hydra, OmegaConf and the system raise, in the user's words."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from gradlab.printable import pasted

if TYPE_CHECKING:
    from omegaconf.errors import OmegaConfBaseException


def sentence(error: BaseException) -> str:
    """Return an error as one sentence: what was wrong, what is allowed, what was given."""
    from hydra.errors import MissingConfigException, OverrideParseException  # late: --help is quick
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    notes = getattr(error, "__notes__", ())
    if several := re.match(
        r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)'", str(error)
    ):
        return (
            f"{several[1]} names several points where one is asked for (--cfg, hydra.mode=RUN): "
            "give it one value."
        )
    if there := re.search(
        r"An item is already at '(.*?)'.*?prefix: '(.*?)'$", str(error), re.M | re.S
    ):
        return f"{there[1]} is there already{_options(there[1], notes)}: type {there[2]}."
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if not error.options:
            return f"{group} has no {name!r}: python -m gradlab --help lists what there is."
        return f"{group} must be one of {', '.join(error.options)}; got {name!r}."
    if hydras := _of_a_file(str(error)):
        return hydras
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        return _unknown_key(cause, notes)
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return f"{cause.full_key}: {str(cause).splitlines()[0]}."
    if isinstance(error, OverrideParseException) and "(" not in error.override:
        key, _, value = error.override.partition("=")
        return f"{error.override} cannot be read: quote the value, {pasted(key, value)}."
    if isinstance(error, OSError):
        return _system_error(error)
    if isinstance(error, UnicodeDecodeError):
        return f"a file of the config is not text in UTF-8: {error}."
    return _one_line(str(error))


def _of_a_file(words: str) -> str:
    """Return what is wrong with a choice of options in a file of the config; "" if nothing is."""
    if chosen := re.match(r"Multiple values for (.*)\. To override a value use '.*: (.*)'", words):
        group, name = chosen[1].partition("@")[0], chosen[2]
        return (
            f"{group} has an option already: type {group}={name}, or in the defaults of a file "
            f"`- override /{group}: {name}`."
        )
    if twice := re.match(r"(.*) appears more than once in the final defaults list", words):
        return f"{twice[1].partition('@')[0]} has this option already: leave it out."
    if near := re.match(r"In '(.*?)/(.*)': Could not override '\1/(.*?)@", words):
        return (
            f"{near[1]}/{near[2]}.yaml must name {near[3]} from the root: `- override /{near[3]}`."
        )
    if no_package := re.match(r"In '(.*?)/(.*)': .*\nKey '\1' not in 'Config'", words, re.DOTALL):
        return (
            f"{no_package[1]}/{no_package[2]}.yaml must begin with the line "
            "`# @package _global_`, since its keys are those of the whole config."
        )
    return ""


def _unknown_key(error: "OmegaConfBaseException", notes: Sequence[str]) -> str:
    section = str(error.full_key).rpartition(".")[0]
    known = [str(key) for key in error.parent_node or ()]
    likely = [*_elsewhere(error), *get_close_matches(str(error.key), known, n=1)]
    suggestion = f" Did you mean {likely[0]}?" if likely else ""
    if "_target_" in known and _is_taken(error.parent_node["_target_"], str(error.key)):
        return (
            f"{error.full_key} has no value in the config"
            f"{_options(str(error.full_key), notes)}: type +{error.full_key}=…, or add "
            f"{error.key} to the file that has its _target_."
        )
    return (
        f"{error.full_key} is unknown{_options(str(error.full_key), notes)}: "
        f"{section or 'the config'} takes {', '.join(known)}.{suggestion}"
    )


def _is_taken(target: object, name: str) -> bool:
    """Return whether the function that a section names has a parameter of that name."""
    from gradlab.components import locate, parameters_of

    try:
        return name in parameters_of(locate(str(target)))
    except (Exception, SystemExit):  # it cannot be imported, which is told elsewhere
        return False


def _elsewhere(error: "OmegaConfBaseException") -> list[str]:
    """Return the keys of the sections that end as an unknown one: of gain, init.gain."""
    if error.parent_node is None:
        return []
    root: Any = error.parent_node._get_root()
    sections = [(f"{name}.", root._get_node(name)) for name in root if name != "hydra"]
    nodes = [("", root), *((name, x) for name, x in sections if hasattr(x, "keys"))]
    return [f"{name}{key}" for name, node in nodes for key in node if key == error.key]


def _options(key: str, words: Sequence[str]) -> str:
    """Return the options on which a key's section depends: " with task=echo".

    Args:
        key: the key.
        words: all options that the point chooses.
    """
    group = re.compile(rf"{re.escape(key.partition('.')[0])}(@.*)?=.*", re.DOTALL)
    decisive = [x for x in words if group.fullmatch(x)] or [x for x in words if x.startswith("+")]
    return f" with {' '.join(decisive)}" if decisive else ""


def _system_error(error: OSError) -> str:
    """Return what the system refused, with the path: "runs/x/0: No space left on device."."""
    if error.strerror is None:
        return _one_line(str(error))
    paths = " and ".join(str(x) for x in (error.filename, error.filename2) if x is not None)
    return f"{paths}{': ' if paths else ''}{error.strerror}."


def _one_line(text: str) -> str:
    text = re.sub(r"\n\s*full_key: .*", "", text, flags=re.DOTALL)  # OmegaConf's own terms
    return re.sub(r"\s*\n\s*", " ", text.strip()).replace("\t", " ")
