"""MNIST-1D, built by its recipe, and MNIST from files in each of its forms."""

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Compose
from hand_built import draw_batch

from gradlab.components import ConfigError
from gradlab.identity import identity
from gradlab.tasks.mnist import mnist
from gradlab.tasks.mnist1d import mnist1d
from gradlab.tasks.mnist1d_data import ORDER, digits
from gradlab.training.program import Program, hyperparameters_of

RNG = np.random.default_rng(0)
LABELS = {"train": np.arange(30) % 10, "t10k": np.arange(12) % 10}
IMAGES = {  # 6 × 4 pixels, of which one tells the class
    part: np.stack([np.roll(RNG.integers(0, 9, (6, 4)), label) for label in labels])
    for part, labels in LABELS.items()
}
for part, labels in LABELS.items():
    IMAGES[part].reshape(len(labels), -1)[np.arange(len(labels)), labels] = 255
IMAGES = {part: images.astype(np.uint8) for part, images in IMAGES.items()}


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as its authors' page describes the form."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, suffix: str, stem: str = "-{}-idx{}-ubyte") -> Path:
    for part in ("train", "t10k"):
        for kind, array in (("images", IMAGES[part]), ("labels", LABELS[part])):
            content = idx(array)
            content = gzip.compress(content) if suffix else content
            (folder / (part + stem.format(kind, array.ndim) + suffix)).write_bytes(content)
    return folder / ("train" + stem.format("images", 3) + suffix)


def write_npz(folder: Path, **other: np.ndarray) -> Path:
    arrays = {
        "x_train": IMAGES["train"],
        "y_train": LABELS["train"].astype(np.uint8),
        "x_test": IMAGES["t10k"],
        "y_test": LABELS["t10k"].astype(np.uint8),
    }
    np.savez_compressed(folder / "mnist.npz", **arrays | other)
    return folder / "mnist.npz"


def test_mnist1d_is_the_frozen_set_point_by_point() -> None:
    data, task = digits(), mnist1d()
    assert task.test.inputs.shape == (1000, 40, 1)
    np.testing.assert_allclose(task.test.inputs[..., 0], data.x_test, rtol=1e-6)
    np.testing.assert_array_equal(task.test.targets[:, -1], data.y_test)
    shown = np.asarray(draw_batch(task, 500).inputs)[..., 0]
    known = {sequence.tobytes() for sequence in data.x.astype(np.float32)}
    assert all(sequence.tobytes() in known for sequence in shown)


def test_mnist1d_in_pieces_and_permuted() -> None:
    whole, pieces, permuted = (
        np.asarray(task.test.inputs).reshape(1000, 40)
        for task in (mnist1d(), mnist1d(8), mnist1d(permuted=True))
    )
    np.testing.assert_array_equal(whole, pieces)
    np.testing.assert_array_equal(whole[:, ORDER], permuted)
    with pytest.raises(ConfigError, match=r"one of 1, 2, 4, 5, 8, 10, 20, 40; got 7"):
        mnist1d(7)


def trained_loss(composed: Compose, *words: str) -> tuple[float, float]:
    """The held-out loss after training for some seconds, and the task's baseline."""
    config = composed("model=gru", "optim.learning_rate=0.01", *words)
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state, _ = program.advance(hyperparameters, program.initialise(hyperparameters), 300)
    return float(program.evaluate(state)["eval/loss"]), program.task.baseline


def test_a_gru_learns_mnist1d(composed: Compose) -> None:
    loss, baseline = trained_loss(composed, "task=mnist1d", "task.length=10")
    assert loss < 0.9 * baseline


@pytest.mark.parametrize(
    "write",
    [
        write_npz,
        lambda folder: write_idx(folder, ""),
        lambda folder: write_idx(folder, ".gz"),
        lambda folder: write_idx(folder, "", "-{}.idx{}-ubyte"),
    ],
)
def test_all_forms_of_mnist_are_read_alike(write: Callable[[Path], Path], tmp_path: Path) -> None:
    task = mnist(str(write(tmp_path)), length=24, test_size=12)
    assert (task.features, task.outputs) == (1, 10)
    expected = IMAGES["t10k"].reshape(12, 24) / 255
    np.testing.assert_allclose(task.test.inputs[..., 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(task.test.targets[:, -1], LABELS["t10k"])
    batch = draw_batch(task, 200)
    brightest = np.asarray(batch.inputs)[..., 0].argmax(axis=1)
    np.testing.assert_array_equal(brightest, batch.targets[:, -1])


def test_rows_and_permuted_pixels(tmp_path: Path) -> None:
    path = str(write_npz(tmp_path))
    rows = mnist(path, length=6, test_size=5)
    spread = IMAGES["t10k"][[0, 2, 5, 8, 11]]
    np.testing.assert_allclose(rows.test.inputs, spread / 255, rtol=1e-6)
    permuted = np.asarray(mnist(path, length=24, permuted=True, test_size=12).test.inputs)[..., 0]
    plain = IMAGES["t10k"].reshape(12, 24) / 255
    assert not np.allclose(permuted, plain)
    columns = {column.tobytes() for column in np.rint(255 * permuted).T}
    assert columns == {column.tobytes() for column in np.rint(255 * plain).T.astype(np.float32)}


def test_a_network_learns_from_a_file_of_mnist(composed: Compose, tmp_path: Path) -> None:
    words = ("task=mnist", f"task.path={write_npz(tmp_path)}", "task.length=6")
    loss, baseline = trained_loss(composed, *words, "task.test_size=12", "train.batch_size=16")
    assert loss < 0.9 * baseline


def test_a_task_is_known_by_the_files_contents(composed: Compose, tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    paths = write_npz(tmp_path), tmp_path / "moved" / "other.npz"
    paths[1].write_bytes(paths[0].read_bytes())
    here, there = (composed("task=mnist", f"task.path={path}", "task.length=6") for path in paths)
    assert identity(here) == identity(there)
    write_npz(tmp_path, x_test=IMAGES["t10k"][::-1])
    with pytest.raises(ConfigError, match="has other contents now"):
        Program(here)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"x_train": IMAGES["train"][..., None]}, r"shape \(images, rows, columns\), with a label"),
        ({"y_test": LABELS["t10k"][:5]}, r"with a label each; the test set has \(12, 6, 4\)"),
        ({"x_train": IMAGES["train"] / 255}, "must be bytes and its labels whole numbers; the tra"),
        ({"y_train": LABELS["train"] + 1}, "from 0 to 9; those of the training set are from 1 to"),
        ({"x_test": IMAGES["t10k"][:, :3]}, "must be of one size"),
        ({"x_test": np.zeros((0, 6, 4), np.uint8), "y_test": np.zeros(0, int)}, "with a label"),
        ({"y_test": np.array(3)}, "with a label each"),
        ({"y_train": np.array([None] * 30)}, "it is no archive of arrays: it must be Keras'"),
    ],
)
def test_other_arrays_are_refused(
    other: dict[str, np.ndarray], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        mnist(str(write_npz(tmp_path, **other)), length=6, test_size=5)


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    path = write_idx(tmp_path, ".gz")
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    whole = labels.read_bytes()
    for damaged in (whole[:-9], b"", gzip.compress(idx(LABELS["t10k"])[:-1]), b"no file of gzip"):
        labels.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"path=t10k-labels.*: it is damaged, or no array of"):
            mnist(str(path), length=6, test_size=5)
    labels.unlink()
    with pytest.raises(ConfigError, match=r"t10k-labels-idx1-ubyte.gz must lie beside it"):
        mnist(str(path), length=6, test_size=5)
    with pytest.raises(ConfigError, match=r"its name must contain train and images"):
        mnist(str(tmp_path / "t10k-images-idx3-ubyte.gz"), length=6)
    (tmp_path / "mnist.npz").write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"no archive of arrays: it must be Keras' mnist.npz"):
        mnist(str(tmp_path / "mnist.npz"), length=6)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), r"task.path must be Keras' mnist.npz \(keras.datasets.mnist.load_data\(\) fetches it"),
        (("task.path=nowhere.npz",), r"task.path must be Keras' mnist.npz .*no file .*nowhere.npz"),
        (("task.path=PATH", "task.length=5"), "cut 24 pixels into equal pieces, so it is one of 1"),
        (("task.path=PATH", "task.length=6"), "at most 12, the held-out images of the file; got 1"),
    ],
)
def test_wrong_settings_are_refused(
    composed: Compose, words: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    path = str(write_npz(tmp_path))
    with pytest.raises(ConfigError, match=sentence):
        Program(composed("task=mnist", *(word.replace("PATH", path) for word in words)))


def test_archives_of_other_things_are_refused(tmp_path: Path) -> None:
    """Damaged inside, of no arrays, and of arrays that would not fit into memory."""
    path = tmp_path / "mnist.npz"
    damaged = bytearray(write_npz(tmp_path).read_bytes())
    damaged[60:90] = bytes(30)
    header = b"\x93NUMPY\x01\x00\x76\x00{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }"
    names = ("x_train", "y_train", "x_test", "y_test")
    for member in (b"no array", header % 10**14):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(f"{name}.npy", member.ljust(128))
        with pytest.raises(ConfigError, match=r"it is no archive of arrays|must have shape"):
            mnist(str(path), length=6)
    path.write_bytes(damaged)
    with pytest.raises(ConfigError, match="it is no archive of arrays"):
        mnist(str(path), length=6)
    huge = np.zeros((2**20, 50, 50), np.uint8)
    np.savez_compressed(path, x_train=huge)
    with pytest.raises(ConfigError, match="its arrays take more than 2 GiB"):
        mnist(str(path), length=6)


def test_a_change_of_the_files_beside_it_is_seen(tmp_path: Path) -> None:
    path = str(write_idx(tmp_path, ""))
    first = mnist(path, length=6, test_size=12)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx((LABELS["t10k"] + 1) % 10))
    second = mnist(path, length=6, test_size=12)
    assert not np.array_equal(first.test.targets, second.test.targets)
