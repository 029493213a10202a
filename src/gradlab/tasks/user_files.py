"""Files of the user's that a task reads: found from any folder, and the same in all of a sweep."""

import os

from pydantic import AfterValidator

from gradlab.components import ConfigError
from gradlab.config import file_digest


def existing_file(allowed: str, *suffixes: str) -> AfterValidator:
    """Accept only the path of a file, and make it absolute, so that a point finds it anywhere.

    Args:
        allowed: what it must be, for the sentence.
        suffixes: ways its name may end; none: it is not asked.
    """

    def check(path: str) -> str:
        absolute = os.path.abspath(os.path.expanduser(path))
        if not path or not absolute.endswith(suffixes or ""):
            raise ValueError(f"must be {allowed}")
        if not os.path.isfile(absolute):
            raise ValueError(
                f"must be {allowed}, and there is no file {absolute} (to resume a sweep whose file "
                "has moved, repeat its whole command with the new task.path)"
            )
        return absolute

    return AfterValidator(check)


def checked_content(path: str, digest: str | None) -> str:
    """Return the digest of a file's contents, which must be the expected one.

    Args:
        path: the file.
        digest: `config.file_digest` of the file as it is expected; None: not checked.

    Raises:
        ConfigError: it has changed.
    """
    content = file_digest(path)
    if digest not in (None, content):
        raise ConfigError(
            f"task.path={path} has other contents now than when the sweep began: put the file "
            "back, or start a new sweep."
        )
    return content
