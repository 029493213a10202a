"""Checkpoints: a point's training state after some update, kept with Orbax, whole or not at all.

A point's folder holds the newest, as checkpoints/STEP. One that is damaged, of another config or
of another version's state is never taken for one that fits.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from gradlab import records
from gradlab.training.program import COMPILED_SECTIONS, State, hyperparameters_of, program_for

Leaves = dict[str, np.ndarray]
Digest = UInt8[np.ndarray, "32"]


class CheckpointError(ValueError):
    """A checkpoint that a point cannot go on from: one sentence that says why."""


def save(folder: Path, config: Mapping[str, Any], state: State) -> None:
    """Keep a point's state, then let go of the one before.

    Raises:
        OSError: it could not be written; the one before is still there.
    """
    import orbax.checkpoint as orbax  # takes a second

    path = folder.absolute() / records.CHECKPOINTS / str(int(state.step))
    path.parent.mkdir(parents=True, exist_ok=True)
    leaves = _leaves(state)
    kept = {"state": leaves, "config": _config_digest(config), "content": _digest(leaves)}
    with orbax.Checkpointer(orbax.StandardCheckpointHandler()) as checkpointer:
        checkpointer.save(path, args=orbax.args.StandardSave(kept), force=True)
    for other in path.parent.iterdir():
        if other != path:
            shutil.rmtree(other, ignore_errors=True)


def load(folder: Path, config: Mapping[str, Any]) -> State | None:
    """Read a point's newest state, or None if none was kept.

    Raises:
        CheckpointError: it is damaged, or of another config or version.
    """
    path = newest(folder)
    if path is None:
        return None
    import orbax.checkpoint as orbax

    try:
        with orbax.Checkpointer(orbax.StandardCheckpointHandler()) as checkpointer:
            kept = checkpointer.restore(path, args=orbax.args.StandardRestore())
        leaves, of_config, content = kept["state"], kept["config"], kept["content"]
        damaged = not np.array_equal(_digest(leaves), content)
    except Exception as error:  # Orbax and TensorStore raise whatever they meet
        raise CheckpointError(f"the checkpoint {path} cannot be read ({_brief(error)})") from error
    if damaged:
        raise CheckpointError(f"the checkpoint {path} is damaged")
    if not np.array_equal(of_config, _config_digest(config)):
        raise CheckpointError(f"the checkpoint {path} is of another config")
    return _state(leaves, config, path)


def newest(folder: Path) -> Path | None:
    """Where a point's newest checkpoint lies, if it has one."""
    kept = (folder.absolute() / records.CHECKPOINTS).glob("*")
    return max((x for x in kept if x.name.isdigit()), key=lambda x: int(x.name), default=None)


def discard(folder: Path) -> None:
    """Remove a point's checkpoints."""
    shutil.rmtree(folder / records.CHECKPOINTS, ignore_errors=True)


def _leaves(state: State) -> Leaves:
    """Arrays by their place in the state; a typed key as the integers it is made of."""
    named = jax.tree_util.tree_leaves_with_path(jax.tree.map(_plain, state))
    leaves = {jax.tree_util.keystr(place): np.asarray(leaf) for place, leaf in named}
    return {place: leaf for place, leaf in leaves.items() if leaf.size}  # Orbax takes no empty ones


def _state(leaves: Leaves, config: Mapping[str, Any], path: Path) -> State:
    form = jax.eval_shape(program_for(config).initialise, hyperparameters_of(config))
    places, structure = jax.tree_util.tree_flatten_with_path(form)
    found = []
    for place, expected in places:
        plain = jax.eval_shape(_plain, expected)
        none = np.zeros(plain.shape if 0 in plain.shape else 0, plain.dtype)
        leaf = leaves.pop(jax.tree_util.keystr(place), none)
        if (leaf.shape, leaf.dtype) != (plain.shape, plain.dtype):
            break
        array = jnp.asarray(leaf)
        found.append(jax.random.wrap_key_data(array) if _is_key(expected) else array)
    if leaves or len(found) < len(places):
        raise CheckpointError(f"the checkpoint {path} was kept by another version of gradlab")
    state: State = jax.tree_util.tree_unflatten(structure, found)
    return state


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _digest(leaves: Leaves) -> Digest:
    form = [(place, leaf.shape, str(leaf.dtype)) for place, leaf in sorted(leaves.items())]
    content = b"".join(leaf.tobytes() for _, leaf in sorted(leaves.items()))
    return _sha256(repr(form).encode() + content)


def _config_digest(config: Mapping[str, Any]) -> Digest:
    """SHA-256 of the settings that determine a run's numbers."""
    recipe = {section: dict(config[section]) for section in COMPILED_SECTIONS}
    recipe["train"].pop("checkpoint_seconds")
    return _sha256(json.dumps([recipe, config["seed"]], sort_keys=True).encode())


def _sha256(content: bytes) -> Digest:
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)


def _brief(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
