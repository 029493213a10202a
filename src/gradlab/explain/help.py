"""The texts of --help: the overview, and an option's keys with its function's docstring."""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path

from gradlab.explain.groups import first_line, groups, has_default

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


def usage(conf: Path, own: Sequence[Path] = ()) -> str:
    """Return the help text: what to type, then experiments and groups, each with its first line.

    Args:
        conf: gradlab's folder of config groups.
        own: the user's, of --config-dir; what is in them is marked.
    """
    lines = [USAGE]
    for group in sorted(groups([conf, *own]), key=lambda group: (group != "experiment", group)):
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
