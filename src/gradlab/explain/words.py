"""The words of a command: checked, and put as Hydra takes them."""

import ast
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from gradlab.explain.groups import options_of
from gradlab.printable import NO_NAME, quoted

SHORT = {  # Hydra's options, the short name of each, and gradlab's own
    "--multirun": "-m",
    "--cfg": "-c",
    "--resolve": "",
    "--package": "-p",
    "--info": "-i",
    "--hydra-help": "",
    "--shell-completion": "-sc",
    "--config-path": "-cp",
    "--config-name": "-cn",
    "--config-dir": "-cd",
    "--dry": "",
}
VALUED = ("--cfg", "--package", "--config-path", "--config-name", "--config-dir")
CHOICES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
MODES = ("--multirun", "--cfg", "--info", "--hydra-help", "--shell-completion")  # one of them
ELSEWHERE = {  # what to type for options that gradlab has not
    "--run": "every command is a sweep, of one point or of many: leave it out",
    "-r": "every command is a sweep, of one point or of many: leave it out",
    "--resume": "type sweep.resume=FOLDER",
    "--retry": "type sweep.retry=failed",
    "--experimental-rerun": "type sweep.resume=FOLDER",
}
CONFIG_DIR = re.compile(r"(?:--config-dir|-cd)(?:=(.*))?", re.DOTALL)
SHELLS = ("bash", "fish", "zsh")
COMPLETION = re.compile(rf"(?:install|uninstall|query)=(?:{'|'.join(SHELLS)})")
LISTS = ("probe", "experiment")  # the groups of which several options may be chosen


def arguments(words: Sequence[str], conf: Path) -> list[str]:
    """Return a command's words as Hydra takes them: KEY=VALUE first, the options last.

    (Hydra does not see a KEY=VALUE that follows an option.)

    Args:
        words: the command's words.
        conf: the folder of the config groups.

    Raises:
        ValueError: a word is neither an option nor KEY=VALUE, or cannot be meant.
    """
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise ValueError(f"{word!r} is not text in {sys.getfilesystemencoding()}.")
    confs = [conf, *config_folders(words)]
    for own in confs[1:]:
        _check_names(own, conf)
    overrides, options, rest = [], dict[str, list[str]](), list(words)
    while rest:
        word = _without_hyphens(rest.pop(0), confs)
        if not word.startswith("-"):
            overrides += [_checked_override(plain, confs) for plain in _without_python(word)]
            continue
        name, joined, value = word.partition("=")
        name = next((long for long, short in SHORT.items() if short == name), name)
        takes_next = name in VALUED or (name == "--info" and rest[:1] and rest[0] in CHOICES[name])
        if name not in SHORT or (joined and name not in (*VALUED, "--info")):
            raise ValueError(_unknown_option(word))
        given = [value] if joined else [rest.pop(0)] if rest and takes_next else []
        if name in VALUED and not given:
            raise ValueError(f"{name} takes a value: {name} VALUE.")
        if name in CHOICES and given and given[0] not in CHOICES[name]:
            raise ValueError(f"{name} takes {', '.join(CHOICES[name])}; got {given[0]!r}.")
        options[name] = given
    overrides += _label(overrides, confs)
    if "--cfg" not in options and (extra := {"--package", "--resolve"} & set(options)):
        raise ValueError(f"{extra.pop()} goes with --cfg job.")
    if options.pop("--dry", None) is not None:
        overrides.append("sweep.plan_only=true")
    if len(modes := [name for name in MODES if name in options]) > 1:
        raise ValueError(f"{' and '.join(modes)} do different things: give one of them.")
    if "--shell-completion" in options and not any(map(COMPLETION.fullmatch, overrides)):
        raise ValueError(f"--shell-completion takes install=SHELL: {', '.join(SHELLS)}.")
    return [*overrides, *(word for name, given in options.items() for word in (name, *given))]


def replaced(words: Sequence[str]) -> list[str]:
    """Return a sentence for each word that a later one of the same key replaces.

    Raises:
        ValueError: a key is given in two ways (KEY, +KEY), of which neither replaces the other.
    """
    last: dict[str, str] = {}
    sentences = []
    for word in words:
        key = word.partition("=")[0]
        before = last.get(key.lstrip("+"))
        if word.startswith(("-", "~")):
            continue
        if before and before.partition("=")[0] != key:
            raise ValueError(f"{before} and {word} give one key in two ways: leave one out.")
        if before and before != word:
            sentences.append(f"{before} is replaced by {word}.")
        last[key.lstrip("+")] = word
    return sentences


def config_folders(words: Sequence[str]) -> list[Path]:
    """Return the folder that --config-dir names, if it is given (the last one, as Hydra does).

    Raises:
        ValueError: it is no folder.
    """
    given = [
        match[1] if match[1] is not None else following
        for word, following in zip(words, [*words[1:], ""], strict=True)
        if (match := CONFIG_DIR.fullmatch(word))
    ]
    if not given or not given[-1]:
        return []
    folder = Path(given[-1])
    if folder.is_dir():
        return [folder]
    beside = folder.parent if folder.parent.is_dir() else Path()
    near = get_close_matches(folder.name, [x.name for x in beside.iterdir() if x.is_dir()], n=1)
    likely = f"; did you mean {beside / near[0]}?" if near else "."
    raise ValueError(f"--config-dir must be a folder; got {given[-1]!r}{likely}")


def _check_names(own: Path, conf: Path) -> None:
    """Refuse a user's option with a name of gradlab's, which Hydra would take without a word."""
    for path in own.rglob("*.yaml"):
        name = path.relative_to(own)
        taken = conf / name
        if taken.is_file() and path.read_bytes() != taken.read_bytes():
            raise ValueError(
                f"{path} has a name of gradlab's own ({name.with_suffix('')}), which would be used "
                f"instead: give it another, such as my_{path.name}."
            )


def _label(overrides: Sequence[str], confs: Sequence[Path]) -> list[str]:
    """Return the word that names a cell by its class, where it else had the name of another.

    Raises:
        ValueError: several cells have no names, or a name is that of a model, which was meant.
    """
    given = {
        key.lstrip("+"): value for key, _, value in (word.partition("=") for word in overrides)
    }
    cell, label = given.get("model.cell._target_"), given.get("model.name")
    if cell is not None:
        name = cell.strip("\"'").rpartition(".")[2]
        if label is None and "," in cell:
            raise ValueError(
                "model.cell._target_ has several cells, which would have one name: run a sweep for "
                "each, or give each a file conf/model/NAME.yaml and type model=NAME,NAME."
            )
        return [f"model.name={quoted(name)}"] if label is None and name.isidentifier() else []
    for name in (label or "").split(","):
        if name in options_of("model", confs) and given.get("model") != name:
            raise ValueError(
                f"model.name={name} would name points so, and leave their cell as it is: "
                f"type model={name} for that cell."
            )
    return []


def _without_hyphens(word: str, confs: Sequence[Path]) -> str:
    """Return a word as KEY=VALUE if it is --KEY=VALUE, as W&B's agents write it; else as it is.

    Options stay options. A key that resembles one is taken for a misspelt option, unless it has a
    dot or is a group.
    """
    key, equals, _ = word.removeprefix("--").partition("=")
    if not word.startswith("--") or not equals or not re.match(r"[a-zA-Z_+]", key):
        return word
    is_key = "." in key or bool(options_of(key.lstrip("+"), confs))
    is_option = f"--{key}" in ELSEWHERE or get_close_matches(f"--{key}", SHORT, n=1)
    return word.removeprefix("--") if is_key or not is_option else word


def _without_python(word: str) -> list[str]:
    """Return a word as Hydra takes it whose value an agent of W&B's has written as Python does.

    KEY=None is KEY=null, and KEY={'A': 1, 'B': 2} two words, KEY.A=1 and KEY.B=2.
    """
    key, _, value = word.partition("=")
    try:
        entries = ast.literal_eval(value) if value.startswith("{") else None
    except (ValueError, SyntaxError):  # Hydra's {A: 1}
        entries = None
    if isinstance(entries, dict) and entries:
        return [x for name, own in entries.items() for x in _without_python(f"{key}.{name}={own}")]
    return [f"{key}=null" if value == "None" else word]


def _checked_override(word: str, confs: Sequence[Path]) -> str:
    key, equals, value = word.partition("=")
    name = key.lstrip("+~")
    if equals and "@" in name and (name.startswith("@") or NO_NAME.fullmatch(value)):
        raise ValueError(f"{word!r} chooses no option of a group: type GROUP=NAME.")
    if not name or not (equals or key.startswith("~")):
        known = any((conf / "experiment" / f"{word}.yaml").is_file() for conf in confs)
        remedy = f"type +experiment={word}" if known else "--help shows what to type"
        raise ValueError(f"{word!r} is neither KEY=VALUE nor an option: {remedy}.")
    group = name.replace(".", "/")
    options = options_of(group, confs)
    if not options or not equals:
        return word
    if group != name:
        raise ValueError(f"{name} is a group of the config: type {key.replace('.', '/')}={value}.")
    if name in LISTS and re.search(r"\[[^\]]*[\[{]", value):
        raise ValueError(
            f"{name} takes names: type {key}=NAME or {key}=[NAME,NAME]; got {value!r}."
        )
    if NO_NAME.fullmatch(value):
        raise ValueError(f"{name} must be one of {', '.join(options)}; got {value!r}.")
    if value.startswith("[") and "," in value and name not in LISTS:
        several = value.strip("[]").replace(" ", "")
        raise ValueError(f"{name} takes one choice; for a sweep over several type {key}={several}.")
    return word


def _unknown_option(word: str) -> str:
    name, equals, _ = word.partition("=")
    if name in ELSEWHERE:
        return f"{word} is no option of gradlab: {ELSEWHERE[name]}."
    likely = get_close_matches(name, SHORT, n=1)
    remedy = f"did you mean {likely[0]}?" if likely else "--help shows what to type."
    if equals and not likely:
        remedy = f"type {word.lstrip('-')}."
    return f"{word} is no option of gradlab: {remedy}"
