"""The code of parts that are not gradlab's own: a config names them, and does not hold their code.

A cell may be edited, or defined anew in a notebook, between a run and what goes on from it; so
status.json has a digest of the code that each point ran.
"""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from gradlab.components import locate, targets_of
from gradlab.config import Config
from gradlab.identity import without_bookkeeping


def sources(config: Config) -> dict[str, str]:
    """Return a digest of the code of each part that a checked config names and gradlab lacks.

    Returns:
        Digests by dotted path; what has no code that can be read is left out.
    """
    named = {target for _, target in targets_of(without_bookkeeping(asdict(config)))}
    own = sorted(target for target in named if target.partition(".")[0] != "gradlab")
    parts = {target: locate(target) for target in own}
    digests = {target: _digest(part) for target, part in parts.items() if _has_code(part)}
    return {target: digest for target, digest in digests.items() if digest}


def changed_sources(status: Mapping[str, Any], config: Config) -> list[str]:
    """Return the parts whose code is not that of a point's record.

    Args:
        status: the point's status.json; earlier versions recorded no code.
        config: its checked config.
    """
    recorded = status.get("sources", {})
    present = sources(config) if recorded else {}
    return [name for name, digest in present.items() if recorded.get(name, digest) != digest]


def _has_code(part: Any) -> bool:
    return inspect.isroutine(part) or inspect.isclass(part)  # an instance need have no hash


@cache  # a module that is edited and not imported anew runs as it was
def _digest(part: Any) -> str:
    """Return a digest of a function's or class's code; "" where it cannot be read."""
    try:
        text = inspect.getsource(part)
    except (OSError, TypeError):  # also of a class of a notebook, whose methods can be read
        text = "".join(map(_function_source, vars(part).values())) if inspect.isclass(part) else ""
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def _function_source(member: Any) -> str:
    try:
        return inspect.getsource(member) if inspect.isfunction(member) else ""
    except (OSError, TypeError):
        return ""
