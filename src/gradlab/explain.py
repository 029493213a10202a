"""The texts of the command line: the overview of --help, and errors as one sentence."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf.errors import OmegaConfBaseException

USAGE = """\
gradlab: how far does a gradient reach in a recurrent network, and what changes that?

  python -m gradlab +experiment=NAME         run a study
  python -m gradlab GROUP=NAME KEY=VALUE …   run one point
  python -m gradlab KEY=A,B KEY=C,D …        run every combination
  python -m gradlab … --dry                  show the plan of a sweep, run nothing
  python -m gradlab … --cfg job              print the config, run nothing
  python -m gradlab … sweep.resume=FOLDER    run what a sweep has left undone
  python -m gradlab --hydra-help             Hydra's own options
"""


def usage(conf: Path) -> str:
    """Return the help text: what to type, then experiments and groups, each with its first line."""
    groups = sorted({path.parent for path in conf.glob("*/**/*.yaml")} - {conf / "experiment"})
    defaults = (conf / "config.yaml").read_text()
    sections = [("experiments (+experiment=…)", conf / "experiment")]
    for group in groups:
        name = group.relative_to(conf).as_posix()
        sections.append((f"{name}=…" if f" {name}: " in defaults else f"+{name}=…", group))
    lines = [USAGE]
    for heading, folder in sections:
        options = {path.stem: first_line(path) for path in sorted(folder.glob("*.yaml"))}
        width = max(12, *(len(name) for name in options))
        lines += [heading, *(f"  {name:{width}}  {text}" for name, text in options.items()), ""]
    return "\n".join(lines).rstrip()


def sentence(error: BaseException) -> str:
    """Return an error as one sentence: what was wrong, what is allowed, what was given."""
    from hydra.errors import MissingConfigException  # imported late: --help need not wait for Hydra
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

    cause = error.__cause__
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group} must be one of {', '.join(error.options)}; got {name!r}."
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        return _unknown_key(cause)
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return f"{cause.full_key}: {str(cause).splitlines()[0]}."
    return _one_line(str(error))


def _unknown_key(error: "OmegaConfBaseException") -> str:
    section = str(error.full_key).rpartition(".")[0]
    known = [str(key) for key in error.parent_node or ()]
    likely = get_close_matches(str(error.key), known, n=1)
    suggestion = f" Did you mean {likely[0]}?" if likely else ""
    return (
        f"{error.full_key} is unknown: {section or 'the config'} takes {', '.join(known)}."
        f"{suggestion}"
    )


def _one_line(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text.strip()).replace("\t", " ")


def first_line(path: Path) -> str:
    """Return the first comment of a config file, which says what it is for."""
    comments = [line for line in path.read_text().splitlines() if re.match(r"# (?!@)", line)]
    return comments[0].removeprefix("# ") if comments else ""
