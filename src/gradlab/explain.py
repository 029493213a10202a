"""The words of the command line and its texts: the overview of --help, errors as one sentence."""

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradlab.printable import NO_NAME, pasted

if TYPE_CHECKING:
    from omegaconf.errors import OmegaConfBaseException

USAGE = """\
gradlab: how far does a gradient reach in a recurrent network, and what changes that?

  python -m gradlab +experiment=NAME         run a study
  python -m gradlab GROUP=NAME KEY=VALUE …   run one point
  python -m gradlab KEY=A,B KEY=C,D …        run every combination
  python -m gradlab … --dry                  show the plan of a sweep, run nothing
  python -m gradlab … --cfg job              print the config, run nothing
  python -m gradlab GROUP=NAME --help        what an option is, and its keys
  python -m gradlab … sweep.resume=FOLDER    run what a sweep has left undone
  python -m gradlab … sweep.table=points     end with a row for each seed, not for their means
  python -m gradlab figure NAME --runs …     draw a sweep; without NAME: the figures
  python -m gradlab --version                gradlab's version
  python -m gradlab --hydra-help             Hydra's own options
"""


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
    _check_label(overrides, confs)
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


def options_of(group: str, confs: Iterable[Path]) -> list[str]:
    """Return the options of a config group; none if it is no group."""
    return sorted({path.stem for conf in confs for path in (conf / group).glob("*.yaml")})


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


def _check_label(overrides: Sequence[str], confs: Sequence[Path]) -> None:
    """Refuse to name one model as another, whose option the user has probably meant."""
    given = {
        key.lstrip("+"): value for key, _, value in (word.partition("=") for word in overrides)
    }
    if "model.cell._target_" in given:
        return
    chosen = given.get("model", "").split(",")
    for label in given.get("model.name", "").split(","):
        if label in options_of("model", confs) and chosen != [label]:
            raise ValueError(
                f"model.name={label} would name points so, and leave their cell as it is: "
                f"type model={label} for that cell."
            )


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


def usage(conf: Path, own: Sequence[Path] = ()) -> str:
    """Return the help text: what to type, then experiments and groups, each with its first line.

    Args:
        conf: gradlab's folder of config groups.
        own: the user's, of --config-dir; what is in them is marked.
    """
    lines = [USAGE]
    for group in sorted(_groups([conf, *own]), key=lambda group: (group != "experiment", group)):
        options: dict[str, str] = {}
        for folder in (conf, *own):
            for path in sorted((folder / group).glob("*.yaml")):
                mark = f"  [{folder}]" if folder != conf else ""
                hidden = f"{mark} has one too, which needs another name"
                before = options.get(path.stem)
                options[path.stem] = f"{before}{hidden}" if before else f"{first_line(path)}{mark}"
        width = max(12, *(len(name) for name in options))
        heading = f"{group}=…" if has_default(group, conf) else f"+{group}=…"
        heading = "experiments (+experiment=…)" if group == "experiment" else heading
        lines += [heading, *(f"  {name:{width}}  {text}" for name, text in options.items()), ""]
    return "\n".join(lines).rstrip()


def help_on(words: Sequence[str], conf: Path, own: Sequence[Path] = ()) -> str:
    """Return the help on the options that words choose, GROUP=NAME; without any, the help text.

    Args:
        words: the command's words.
        conf: gradlab's folder of config groups.
        own: the user's, of --config-dir.
    """
    files = [
        (word.lstrip("+-"), folder / f"{word.lstrip('+-').replace('=', '/')}.yaml")
        for word in words
        for folder in (conf, *own)
        if word.count("=") == 1
    ]
    chosen = [_help_on_option(word, path) for word, path in files if path.is_file()]
    return "\n\n".join(chosen) or usage(conf, own)


def _help_on_option(word: str, path: Path) -> str:
    """Return an option's keys as its file has them, and what its function says of itself."""
    from omegaconf import OmegaConf  # late: the help on everything is quick

    from gradlab.components import locate, targets_of

    text = path.read_text(encoding="utf-8").strip()
    lines = [f"{word}, keys {word.partition('=')[0]}.…:", ""]
    lines += [f"  {line}" for line in text.splitlines()]
    config = OmegaConf.to_container(OmegaConf.create(text))
    for _, target in targets_of(config):
        try:
            told = inspect.getdoc(locate(target)) or ""
        except (Exception, SystemExit):  # it cannot be imported, which running it tells
            continue
        told = re.split(r"\n\n(?:Raises|Example|Returns):", told)[0]
        lines += ["", f"{target}:", *(f"  {line}".rstrip() for line in told.splitlines())]
    return "\n".join(lines)


def has_default(group: str, conf: Path) -> bool:
    """Return whether an option of a group is chosen by default; else the group is added by +."""
    defaults = (conf / "config.yaml").read_text(encoding="utf-8")
    return f" {group}: " in defaults or f"/{group}: " in defaults


def _groups(confs: Iterable[Path]) -> set[str]:
    """Return the config groups of some folders: those below which there are options."""
    return {
        path.parent.relative_to(conf).as_posix()
        for conf in confs
        for path in conf.glob("*/**/*.yaml")
    }


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
    if absent := re.search(r"Could not load '(.*)/(.*?)'", words):
        return f"{absent[1]} must be one of those that --help lists; got {absent[2]!r}."
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


def first_line(path: Path) -> str:
    """Return the first comment of a config file, which says what it is for."""
    comments = [
        line for line in path.read_text(encoding="utf-8").splitlines() if re.match(r"# (?!@)", line)
    ]
    return comments[0].removeprefix("# ") if comments else ""
