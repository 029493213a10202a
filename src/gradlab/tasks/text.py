"""Character prediction (many-to-many, synchronised): the next character, at every step."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, UInt8
from pydantic import Field

from gradlab.components import ConfigError
from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.array_files import refuse
from gradlab.tasks.user_files import checked_content, existing_file

HELD_OUT = 0.1  # share of the text, at its end


def text(
    length: Count = 100,
    path: Annotated[str, existing_file("a text in UTF-8")] | None = None,
    digest: str | None = None,
    symbols: Annotated[int, Field(ge=2, le=256)] = 96,
    test_size: Count = 200,
) -> Task:
    """Predict the next character of a text, at every step.

    Without a `path` the text is the reference manual of the Python language, as `help()` prints it:
    half a million characters of English and code. It is part of every Python (pydoc_data.topics)
    and differs a little between its versions, so resume a sweep with the one that began it; none of
    the packages that gradlab needs ships a longer text.

    Training windows are drawn from the first nine tenths of the text, held-out ones lie apart in
    the rest; each is read from the initial state on. Inputs are one-hot codes. Evaluation has
    bits per character (the loss divided by ln 2) and the perplexity (its exponential) too.

    Baseline: the cross entropy of the training text's character frequencies on the held-out one.

    Args:
        length: steps of a window.
        path: a file of one's own; a relative path starts at the working folder.
        digest: `config.file_digest` of that file as it is expected; None: not checked.
        symbols: the most classes; the rarest characters share the last one and count as one, so
            bits per character compare with print only where all characters have a class.
        test_size: number of held-out windows; fewer where these fill the held-out text.

    Raises:
        ConfigError: the file has changed since its digest was taken or is no text in UTF-8; the
            text is shorter than ten windows or has but one character.

    Example:
        >>> from gradlab.tasks.text import text
        >>> text(length=50).features
        96
    """
    codes = _coded(path, checked_content(path, digest) if path else "", symbols)
    classes, split = int(codes.max()) + 1, round((1 - HELD_OUT) * len(codes))
    training, rest = codes[:split], codes[split:]
    name = f"task.path={Path(path).name}" if path else "Python's manual"
    if len(rest) <= length:
        raise ConfigError(
            f"task.length must be below {len(rest)}, the characters of {name} that are held out (a "
            f"tenth); got {length}."
        )
    if classes < 2:
        raise ConfigError(f"{name} must have two different characters at least.")

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        starts = jax.random.randint(key, (batch_size,), 0, split - length)
        return _windows(jnp.asarray(training), starts, length, classes)

    count = min(test_size, (len(rest) - 1) // length)
    starts = np.linspace(0, len(rest) - 1 - length, count).astype(int)
    test = _windows(jnp.asarray(rest), jnp.asarray(starts), length, classes)
    shares = 1 + np.bincount(training, minlength=classes)  # each seen once more than it was
    surprise = np.log(shares.sum() / shares)
    return Task(
        features=classes,
        outputs=classes,
        sample=sample,
        test=test,
        baseline=float(surprise[np.asarray(test.targets)].mean()),
        predicts_text=True,
    )


def python_manual() -> str:
    """Return the reference manual of the Python language, topic after topic.

    Raises:
        ConfigError: this Python was installed without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ConfigError(
            "task=text needs Python's module pydoc_data, which is missing here: give a text of "
            "your own by task.path=FILE."
        ) from error
    return "\n\n".join(topics[name] for name in sorted(topics))


@lru_cache(maxsize=4)  # the lengths of a sweep share the text
def _coded(path: str | None, content: str, symbols: int) -> UInt8[np.ndarray, "characters"]:
    """Return a text as classes, the most frequent character first."""
    del content  # only tells files apart
    if path is None:
        read = python_manual()
    else:
        try:
            read = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            refuse(Path(path), f"it must be a text in UTF-8; byte {error.start} is none of it.")
    if not read:
        refuse(Path(path or ""), "it must not be empty.")
    points = np.frombuffer(read.encode("utf-32-le"), "<u4")
    counts = np.bincount(points)
    rank = np.zeros(len(counts), np.uint8)
    by_frequency = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    rank[by_frequency] = np.minimum(np.arange(len(by_frequency)), symbols - 1)
    return rank[points]


def _windows(
    codes: UInt8[Array, "characters"], starts: Int[Array, "batch"], length: int, classes: int
) -> Batch:
    shown = codes[starts[:, None] + jnp.arange(length + 1)].astype(jnp.int32)
    inputs = jax.nn.one_hot(shown[:, :-1], classes)
    return Batch(inputs, shown[:, 1:], jnp.ones((starts.size, length)))
