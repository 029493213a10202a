"""Check what a sweep's record names: a folder from somebody else is data and runs no code of its.

A resumed point is composed from the words in its record. Functions and classes that they name by
`_target_` are called only if gradlab's own config names them too, or the person who resumes does:
in this command, or in a config folder of theirs.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from gradlab.components import ConfigError, targets_of

TARGET = re.compile(r"_target_[\"']?\s*[:=]\s*[\"']?([\w.]+)")
# An interpolation of more than a key of the point's own: ${oc.env:HOME}, ${hydra.runtime.cwd}.
RESOLVER = re.compile(r"\$\{.*(:|hydra|\$\{)", re.DOTALL | re.IGNORECASE)


def check_words(
    points: Iterable[Sequence[str]], folder: Path, options: Callable[[str], list[str]]
) -> None:
    """Check that a record's words set a point's own keys, to values that they spell out.

    Args:
        points: the recorded overrides of each point.
        folder: the sweep's, for the sentence.
        options: returns the options of a config group; none for a key that is no group.

    Raises:
        ConfigError: a word sets Hydra's config or the sweep's, puts a group elsewhere, chooses what
            is no option of its group, has several values, or takes its value from elsewhere; the
            sentence has the word.
    """
    parser = OverridesParser.create()
    for word in dict.fromkeys(word for words in points for word in words):
        (override,) = parser.parse_overrides([word])
        key, value = override.key_or_group, override.value()
        is_ours = re.split(r"[./]", key)[0] not in ("hydra", "sweep") and override.package is None
        known = options(key)
        is_option = not known or all(str(x) in known for x in _texts(value))
        spelt_out = _is_plain(value) and not any(map(RESOLVER.search, _texts(value)))
        if is_ours and is_option and spelt_out:
            continue
        raise ConfigError(
            f"the record in {str(folder)!r} has the word {word!r}, which is not taken from a "
            "record: repeat the whole command that started the sweep, if you know it."
        )


def check_targets(
    points: Iterable[DictConfig], known: set[str], trusted: Sequence[str], folder: Path
) -> None:
    """Check that points which were composed from a record call nothing that is not known.

    Args:
        points: their configs, composed and not checked yet, since a check imports what they name.
        known: of `known_targets`.
        trusted: what the person who resumes allows beside it.
        folder: the sweep's, for the sentence.

    Raises:
        ConfigError: they do; the sentence names it, and says how to allow it.
    """
    foreign: dict[str, str] = {}  # target, key
    for config in points:
        for section in config:
            if section != "hydra":
                node = config._get_node(section)
                plain = OmegaConf.to_container(node, resolve=True) if _is_section(node) else None
                foreign |= {target: key for key, target in targets_of(plain, str(section))}
    foreign = {x: key for x, key in foreign.items() if x not in known and x not in trusted}
    if foreign:
        listed = ", ".join(f"{target} ({key})" for target, key in foreign.items())
        names = ",".join([*trusted, *foreign])
        allow = shlex.quote(f"sweep.trust=[{names}]")
        raise ConfigError(
            f"the sweep in {str(folder)!r} calls what is not gradlab's: {listed}. It is not run "
            f"from a record alone. If you trust it, add {allow}, or repeat the whole command that "
            "started the sweep."
        )


def keep_offline(points: Iterable[DictConfig], own: DictConfig) -> None:
    """Let points log to disk that a record would send to a project of its own choice.

    Args:
        points: their configs; changed.
        own: the section wandb of the command without the record's words. Where that is online, by
            WANDB_MODE, points of whose place the record says nothing else stay so.
    """
    place = ("mode", "project", "entity", "id")
    online = [
        config
        for config in points
        if config.wandb.mode == "online" and any(config.wandb[x] != own[x] for x in place)
    ]
    for config in online:
        config.wandb.mode = "offline"
    if online:
        print("W&B runs are kept offline: a record alone sends nothing. Add wandb=online to do so.")


def known_targets(loader: ConfigLoader, words: Iterable[str]) -> set[str]:
    """Return all targets that the config's folders (gradlab's, --config-dir) or words name.

    Args:
        loader: of the command.
        words: the command's own overrides.
    """
    sources = [x for x in loader.get_sources() if x.scheme() == "file"]
    named = targets_below(Path(source.path) for source in sources)
    named |= set(TARGET.findall("\n".join(words)))
    swept = (
        word.partition("=")[2] for word in words if word.partition("=")[0].endswith("_target_")
    )
    return named | {target for values in swept for target in re.findall(r"[\w.]+", values)}


def targets_below(folders: Iterable[Path]) -> set[str]:
    """Return all targets that the YAML files below folders name."""
    files = (path for folder in folders for path in folder.rglob("*.yaml"))
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in files)
    return set(TARGET.findall("\n".join(texts)))


def _is_section(node: Any) -> bool:
    return OmegaConf.is_config(node) and not node._is_missing() and not node._is_none()


def _is_plain(value: Any) -> bool:
    """Return whether an override's value is one value of plain data, and no choice or range."""
    if isinstance(value, dict):
        return all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def _texts(node: Any) -> Iterator[str]:
    """Yield every string in plain data."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        yield from _texts([*node, *node.values()])
    elif isinstance(node, list):
        for child in node:
            yield from _texts(child)
