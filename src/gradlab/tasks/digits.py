"""Handwritten digits read as sequences (many-to-one): real data that needs no download."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Float, Int
from pydantic import AfterValidator

from gradlab.tasks import Task
from gradlab.tasks.sequences import labelled_task

LENGTHS = (1, 2, 4, 8, 16, 32, 64)
TEST_EVERY = 5  # every fifth image is held out
PERMUTATION = np.random.default_rng(0).permutation(64)


def _check_length(length: int) -> int:
    if length not in LENGTHS:
        raise ValueError(
            f"must be one of {', '.join(map(str, LENGTHS))} steps, which cut the image's 64 pixels "
            "into equal pieces (8 reads rows, 64 reads pixels)"
        )
    return length


def digits(
    length: Annotated[int, AfterValidator(_check_length)] = 8, permuted: bool = False
) -> Task:
    """Classify the 8 × 8 digits of UCI (Alpaydin & Kaynak 1998), shipped with scikit-learn.

    The 64 pixels, scaled to [0, 1], are read row by row in `length` steps of 64/length pixels; the
    class is due at the last step. Every fifth image is a test sequence. Baseline: ln 10, the cross
    entropy of a guess; its accuracy is 0.1.

    Args:
        length: steps of a sequence, a power of two up to 64 (8 reads rows, 64 reads pixels).
        permuted: read the pixels in one fixed random order, the same for every image, which leaves
            no structure at short lags (Le, Jaitly & Hinton 2015).

    Example:
        >>> from gradlab.tasks.digits import digits
        >>> digits(length=64).test.inputs.shape
        (360, 64, 1)
    """
    images, labels = load_images()
    pixels = (images / 16).astype(np.float32)[:, PERMUTATION if permuted else slice(None)]
    inputs = pixels.reshape(-1, length, 64 // length)
    held_out = np.arange(len(labels)) % TEST_EVERY == 0
    training, test = ((inputs[x], labels[x]) for x in (~held_out, held_out))
    return labelled_task(training, test, classes=10)


def load_images() -> tuple[Float[np.ndarray, "images 64"], Int[np.ndarray, "images"]]:
    """Return the pixels, 0 to 16, and the classes of scikit-learn's `load_digits`.

    The file is read where it lies today, since to import scikit-learn takes over a second.
    """
    package = find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            table = np.loadtxt(path, delimiter=",")
            return table[:, :-1], table[:, -1].astype(int)
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images, labels
