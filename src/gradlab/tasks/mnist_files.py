"""Files of labelled images in MNIST's two forms: Keras' archive, and IDX."""

import gzip
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped, UInt8

from gradlab.components import ConfigError
from gradlab.tasks.array_files import DAMAGED, open_archive, refuse

SOURCE = (
    "Keras' mnist.npz (keras.datasets.mnist.load_data() fetches it) or MNIST's file of training "
    "images, train-images-idx3-ubyte or .gz, with the three others beside it"
)
BYTES = 8  # the code of unsigned bytes in a header of IDX
LARGEST = 2**31  # bytes in a file, unpacked


class Images(NamedTuple):
    """Grey images, 0 to 255, and their classes."""

    pixels: UInt8[np.ndarray, "images rows columns"]
    labels: Int[np.ndarray, "images"]


def read_images(path: Path, classes: int) -> tuple[Images, Images]:
    """Read images to train on and images held out; no code in a file is ever run.

    Args:
        path: an archive that ends in .npz, or the IDX file of the training images.
        classes: labels are below this number.

    Raises:
        ConfigError: a file is missing, damaged or of another form.
    """
    arrays = _read_npz(path) if path.suffix == ".npz" else _read_idx_files(path)
    training, test = (Images(*arrays[i : i + 2]) for i in (0, 2))
    for images, name in ((training, "training"), (test, "test")):
        shape = images.pixels.shape
        count = shape[0] if shape else 0
        is_whole = np.issubdtype(images.labels.dtype, np.integer)
        if len(shape) != 3 or images.labels.shape != (count,) or not images.pixels.size:
            refuse(
                path,
                "its images must have shape (images, rows, columns), with a label each; the "
                f"{name} set has {shape} and labels {images.labels.shape}.",
            )
        if images.pixels.dtype != np.uint8 or not is_whole:
            refuse(
                path,
                f"its images must be bytes and its labels whole numbers; the {name} set has "
                f"{images.pixels.dtype} and {images.labels.dtype}.",
            )
        if images.labels.min() < 0 or images.labels.max() >= classes:
            refuse(
                path,
                f"its labels must be from 0 to {classes - 1}; those of the {name} set are from "
                f"{images.labels.min()} to {images.labels.max()}.",
            )
    if training.pixels.shape[1:] != test.pixels.shape[1:]:
        refuse(path, "its training and test images must be of one size.")
    return training, test


def files_beside(path: Path) -> list[Path]:
    """Return the files that belong to one of training images: labels, test images, their labels.

    Of an archive there are none.
    """
    test = path.name.replace("train", "t10k")
    names = [_labels_of(path.name), test, _labels_of(test)]
    return [] if path.suffix == ".npz" else [path.parent / name for name in names]


def _read_npz(path: Path) -> list[Shaped[np.ndarray, "images *rest"]]:
    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        with open_archive(path, LARGEST) as archive:
            if missing := [name for name in names if name not in archive.files]:
                refuse(path, f"{missing[0]} is missing in it: it must be {SOURCE}.")
            return [np.asarray(archive[name]) for name in names]
    except DAMAGED as error:
        if isinstance(error, ConfigError):
            raise
        refuse(path, f"it is no archive of arrays: it must be {SOURCE}.")


def _labels_of(images: str) -> str:
    return images.replace("images", "labels").replace("idx3", "idx1")


def _read_idx_files(path: Path) -> list[UInt8[np.ndarray, "images *rest"]]:
    """Read the four files, whose names tell each from the others."""
    if "train" not in path.name or "images" not in path.name:
        refuse(path, f"its name must contain train and images: it must be {SOURCE}.")
    for file in files_beside(path):
        if not file.is_file():
            refuse(path, f"{file.name} must lie beside it: there is no such file.")
    arrays = []
    for file in (path, *files_beside(path)):
        array = _read_idx(file)
        if array is None:
            refuse(file, "it is damaged, or no array of bytes in the form IDX.")
        arrays.append(array)
    return arrays


def _read_idx(path: Path) -> UInt8[np.ndarray, "images *rest"] | None:
    """Read an array of bytes; None if a file holds none.

    It begins with two zeros, a code of the numbers' type, the number of dimensions, and their sizes
    (four bytes each, the highest first).
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            *zeros, kind, dimensions = file.read(4).ljust(4, b"\1")
            sizes = np.frombuffer(file.read(4 * dimensions), ">u4").tolist()
            count = math.prod(sizes)
            if zeros != [0, 0] or kind != BYTES or len(sizes) != dimensions or count > LARGEST:
                return None
            numbers = np.frombuffer(file.read(count + 1), np.uint8)
            return numbers.reshape(sizes) if len(numbers) == count else None
        except (gzip.BadGzipFile, zlib.error, EOFError, ValueError):
            return None
