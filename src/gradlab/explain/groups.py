"""The groups of the config, as their folders have them: options, defaults, what each is for."""

import re
from collections.abc import Iterable
from pathlib import Path


def options_of(group: str, confs: Iterable[Path]) -> list[str]:
    """Return the options of a config group; none if it is no group."""
    return sorted({path.stem for conf in confs for path in (conf / group).glob("*.yaml")})


def has_default(group: str, conf: Path) -> bool:
    """Return whether an option of a group is chosen by default; else the group is added by +."""
    defaults = (conf / "config.yaml").read_text(encoding="utf-8")
    return f" {group}: " in defaults or f"/{group}: " in defaults


def groups(confs: Iterable[Path]) -> set[str]:
    """Return the config groups of some folders: those below which there are options."""
    return {
        path.parent.relative_to(conf).as_posix()
        for conf in confs
        for path in conf.glob("*/**/*.yaml")
    }


def first_line(path: Path) -> str:
    """Return the first comment of a config file, which says what it is for."""
    comments = [
        line for line in path.read_text(encoding="utf-8").splitlines() if re.match(r"# (?!@)", line)
    ]
    return comments[0].removeprefix("# ") if comments else ""
