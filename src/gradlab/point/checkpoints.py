"""Checkpoints: a point's training state after an update, written whole or not at all.

A point's folder holds the newest, as checkpoints/STEP: a NumPy archive, or where the state is large
one of Orbax, which writes in parallel and takes a second to import. A checkpoint that is damaged,
of another config, of other flags of JAX or of another layout of the state is refused.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from gradlab import records
from gradlab.config import Config
from gradlab.identity import training_digest
from gradlab.point.environment import unusual_flags
from gradlab.records.files import RecordError
from gradlab.training.program import State

SMALL = 2**22  # bytes of a state that is kept as a NumPy archive, at most
ARCHIVE, STATE = "state.npz", "state"  # its name, and how its arrays of the state begin
ROOM = 2**17  # bytes that a checkpoint of Orbax takes besides its state, at most
FILES = 32  # and folders that it is made of, at most
UNFINISHED = ("[0-9]*.????????.part", "*.orbax-checkpoint-tmp*")  # begun by us, by Orbax
PLAIN = re.compile(r"[\w./+@ -]+", re.ASCII)  # a path that Orbax takes for no pattern or address

LATER = {".stopped": np.array(False)}  # leaves of a state that earlier checkpoints lack

Leaves = dict[str, np.ndarray]
Digest = UInt8[np.ndarray, "32"]


class CheckpointError(ValueError):
    """A checkpoint that a point cannot go on from: one sentence that says why."""


def save(folder: Path, config: Config, state: State) -> None:
    """Write a point's state, then delete the one before.

    Raises:
        RecordError: it could not be written; the one before is still there.
    """
    path = folder.absolute() / records.CHECKPOINTS / str(int(state.step))
    leaves = _leaves(state)
    content = {"state": leaves, "config": _config_digest(config), "content": _digest(leaves)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        (_save_archive if _is_small(leaves) else _save_by_orbax)(path, content)
    except Exception as error:  # Orbax and TensorStore raise whatever they meet
        clear_unfinished(folder)
        raise RecordError(
            f"the checkpoint {path} could not be written: {_reason(error)}; the one before is "
            "whole. Make room, or choose another folder with hydra.sweep.dir=FOLDER."
        ) from error
    records.delete_checkpoints(folder, keep=path.name)


def load(folder: Path, config: Config, abstract_state: Callable[[], State]) -> State | None:
    """Read a point's newest state; None if it has no checkpoint.

    Args:
        folder: the point's.
        config: the checkpoint must be of the same.
        abstract_state: gives the shapes and types of the state; called if there is a checkpoint.

    Raises:
        CheckpointError: it is damaged, or of another config or version.
    """
    path = newest(folder)
    if path is None:
        return None
    try:
        is_archive = (path / ARCHIVE).is_file()
        stored = _load_archive(path) if is_archive else _load_by_orbax(path)
        leaves, config_digest, content = stored["state"], stored["config"], stored["content"]
        damaged = not np.array_equal(_digest(leaves), content)
    except Exception as error:  # Orbax and TensorStore raise whatever they meet
        raise CheckpointError(f"the checkpoint {path} cannot be read ({_brief(error)})") from error
    if damaged:
        raise CheckpointError(f"the checkpoint {path} is damaged")
    if not np.array_equal(config_digest, _config_digest(config)):
        raise CheckpointError(
            f"the checkpoint {path} is of another config, or of other flags of JAX (present ones "
            f"besides the defaults: {unusual_flags() or 'none'})"
        )
    return _state(leaves, abstract_state(), path)


def _is_small(leaves: Leaves) -> bool:
    """Return whether a state is kept as a NumPy archive, which knows NumPy's own types only."""
    is_numpys = all(np.dtype(leaf.dtype.str) == leaf.dtype for leaf in leaves.values())
    return is_numpys and sum(leaf.nbytes for leaf in leaves.values()) <= SMALL


def _save_archive(path: Path, content: dict[str, Any]) -> None:
    arrays = {STATE + place: leaf for place, leaf in content["state"].items()}
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    unfinished.mkdir()
    np.savez(unfinished / ARCHIVE, config=content["config"], content=content["content"], **arrays)
    if (path / ARCHIVE).is_file():  # of the same update, which stays until this one is whole
        (unfinished / ARCHIVE).replace(path / ARCHIVE)
        unfinished.rmdir()
        return
    if path.is_dir():
        shutil.rmtree(path)
    unfinished.rename(path)


def _load_archive(path: Path) -> dict[str, Any]:
    with np.load(path / ARCHIVE, allow_pickle=False) as stored:
        if sum(entry.file_size for entry in stored.zip.infolist()) > 2 * SMALL:
            raise ValueError("it is larger than those that gradlab writes")
        arrays = dict(stored)
    config, content = arrays.pop("config"), arrays.pop("content")
    leaves = {name.removeprefix(STATE): leaf for name, leaf in arrays.items()}
    return {"state": leaves, "config": config, "content": content}


def _save_by_orbax(path: Path, content: dict[str, Any]) -> None:
    import orbax.checkpoint as orbax

    _check_room(path.parent, sum(leaf.nbytes for leaf in content["state"].values()))
    with (
        _plain_path(path) as plain,
        orbax.Checkpointer(orbax.StandardCheckpointHandler()) as checkpointer,
    ):
        checkpointer.save(plain, args=orbax.args.StandardSave(content), force=True)


def _load_by_orbax(path: Path) -> dict[str, Any]:
    import orbax.checkpoint as orbax

    with (
        _plain_path(path) as plain,
        orbax.Checkpointer(orbax.StandardCheckpointHandler()) as checkpointer,
    ):
        stored: dict[str, Any] = checkpointer.restore(plain, args=orbax.args.StandardRestore())
    return stored


def newest(folder: Path) -> Path | None:
    """Return the path of a point's newest checkpoint, if it has one."""
    return next(reversed(records.list_checkpoints(folder.absolute())), None)


@contextmanager
def _plain_path(path: Path) -> Iterator[Path]:
    """Give another path to a checkpoint, through a link, if Orbax would not take its own as it is.

    (On reading it takes `*`, `?`, `[` for patterns, and `%`, `#` and the like for an address.)
    """
    if PLAIN.fullmatch(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / records.CHECKPOINTS
        link.symlink_to(path.parent, target_is_directory=True)
        yield link / path.name


def _check_room(folder: Path, size: int) -> None:
    """Check that a checkpoint of a state of `size` bytes has room in a folder.

    (On a full disk TensorStore's threads print tracebacks, which nothing holds back.)

    Raises:
        OSError: the disk, or the user's share of it, is full, or has no files left.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size + ROOM)
    disk = os.statvfs(folder)
    if disk.f_files and disk.f_favail < FILES:
        raise OSError(errno.ENOSPC, "no files are left on the disk")


def clear_unfinished(folder: Path) -> None:
    """Delete what is left of a point's checkpoints that were not written to their end."""
    for pattern in UNFINISHED:
        for path in (folder / records.CHECKPOINTS).glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def _leaves(state: State) -> Leaves:
    """Return the arrays by their place in the state; a typed key as its integers."""
    named = jax.tree_util.tree_leaves_with_path(jax.tree.map(_plain, state))
    leaves = {jax.tree_util.keystr(place): np.asarray(leaf) for place, leaf in named}
    return {place: leaf for place, leaf in leaves.items() if leaf.size}  # Orbax takes no empty ones


def _state(leaves: Leaves, abstract: State, path: Path) -> State:
    places, structure = jax.tree_util.tree_flatten_with_path(abstract)
    arrays = []
    for place, expected in places:
        plain = jax.eval_shape(_plain, expected)
        empty = np.zeros(plain.shape if 0 in plain.shape else 0, plain.dtype)
        name = jax.tree_util.keystr(place)
        leaf = leaves.pop(name, LATER.get(name, empty))
        if (leaf.shape, leaf.dtype) != (plain.shape, plain.dtype):
            break
        array = jnp.asarray(leaf)
        arrays.append(jax.random.wrap_key_data(array) if _is_key(expected) else array)
    if leaves or len(arrays) < len(places):
        raise CheckpointError(f"the checkpoint {path} was kept by another version of gradlab")
    state: State = jax.tree_util.tree_unflatten(structure, arrays)
    return state


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _digest(leaves: Leaves) -> Digest:
    header = [(place, leaf.shape, str(leaf.dtype)) for place, leaf in sorted(leaves.items())]
    content = b"".join(leaf.tobytes() for _, leaf in sorted(leaves.items()))
    return _sha256(repr(header).encode() + content)


def _config_digest(config: Config) -> Digest:
    """Return the SHA-256 of what a run's numbers follow from: its config, and flags of JAX."""
    digest, flags = training_digest(config), unusual_flags()
    if flags:
        return _sha256(digest + repr(sorted(flags.items())).encode())
    return np.frombuffer(digest, np.uint8)


def _sha256(content: bytes) -> Digest:
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)


def _brief(error: Exception) -> str:
    return _first_line(error)[:200]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _reason(error: Exception) -> str:
    """Return the system's reason of an error; TensorStore puts it last, before its source lines."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _first_line(error).partition(" [")[0].rpartition(": ")[2]
