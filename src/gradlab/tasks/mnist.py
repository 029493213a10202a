"""Sequential MNIST (many-to-one), from a file of the user's: an image read pixel by pixel."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np

from gradlab.components import ConfigError
from gradlab.config import Count, file_digest
from gradlab.tasks import Task
from gradlab.tasks.mnist_files import SOURCE, Images, files_beside, read_images
from gradlab.tasks.sequences import check_pieces, labelled_task
from gradlab.tasks.user_files import checked_content, existing_file

CLASSES, BRIGHTEST = 10, 255.0
PERMUTATION_SEED = 0


def mnist(
    path: Annotated[str, existing_file(SOURCE)],
    digest: str | None = None,
    length: Count = 784,
    permuted: bool = False,
    test_size: Count = 1000,
) -> Task:
    """Classify MNIST's images, read pixel by pixel; the class is due at the last step.

    The 784 pixels, scaled to [0, 1], are read row by row, one at each step (Le, Jaitly & Hinton
    2015). Any data set in the form of MNIST serves, such as Fashion-MNIST. Baseline: ln 10,
    the cross entropy of a guess; its accuracy is 0.1.

    Get mnist.npz by `keras.datasets.mnist.load_data()`, which leaves it in ~/.keras/datasets, or
    the four IDX files of LeCun, Cortes & Burges, packed by gzip or not, and name that of the
    training images. Nothing in a file is run.

    Args:
        path: mnist.npz, or train-images-idx3-ubyte (or .gz) with the other three files beside it; a
            relative path starts at the working folder.
        digest: `config.file_digest` of that file as it is expected (of the training images alone,
            where there are four); None: not checked.
        length: steps of a sequence, which cut the pixels into equal pieces (28 reads rows).
        permuted: read the pixels in one fixed random order, the same for every image.
        test_size: number of held-out images, evenly spread over the file's test set, since the
            first half of MNIST's is the easier one. All 10,000 are usual in print, and take ten
            times as long to evaluate.

    Raises:
        ConfigError: the file has changed since its digest was taken, or is not of this form, or
            `length` does not divide the number of pixels.

    Example:
        >>> from gradlab.tasks.mnist import mnist
        >>> images, labels = np.zeros((100, 28, 28), np.uint8), np.arange(100, dtype=np.uint8) % 10
        >>> np.savez("mnist.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        >>> mnist("mnist.npz", length=28, test_size=50).test.inputs.shape  # a row at each step
        (50, 28, 28)
    """
    content = checked_content(path, digest)
    contents = (content, *(file_digest(file) for file in files_beside(Path(path))))
    return _task(path, contents, length, permuted, test_size)


@lru_cache(maxsize=2)  # the programs of a sweep share the arrays
def _task(
    path: str, contents: tuple[str, ...], length: int, permuted: bool, test_size: int
) -> Task:
    del contents  # only tells files apart
    training, test = read_images(Path(path), CLASSES)
    pixels = training.pixels[0].size
    check_pieces(length, pixels, "pixels")
    if test_size > len(test.labels):
        raise ConfigError(
            f"task.test_size must be at most {len(test.labels)}, the held-out images of the file; "
            f"got {test_size}."
        )
    order = np.arange(pixels)
    if permuted:
        order = np.random.default_rng(PERMUTATION_SEED).permutation(pixels)

    def sequences(images: Images) -> tuple[np.ndarray, np.ndarray]:
        flat = images.pixels.reshape(-1, pixels)[:, order]
        return flat.reshape(-1, length, pixels // length), images.labels.astype(np.int32)

    spread = np.linspace(0, len(test.labels) - 1, test_size).astype(int)
    held_out = Images(test.pixels[spread], test.labels[spread])
    return labelled_task(sequences(training), sequences(held_out), CLASSES, BRIGHTEST)
