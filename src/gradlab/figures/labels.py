"""What config keys, their values and the measured quantity are called in a figure."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

KEYS = {
    "model.name": "model",
    "model.hidden_size": "units",
    "model.num_layers": "layers",
    "init._target_": "initialiser",
    "clip._target_": "clipping",
    "clip.threshold": "clip threshold",
    "optim._target_": "optimiser",
}
MODELS = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}
NORMS = {"spectral": "_2", "frobenius": "_F", "rms": r"_\mathrm{rms}"}


def key_label(key: str) -> str:
    """Name a config key: `init.gain` is "gain", `task._target_` is "task"."""
    section, _, entry = key.rpartition(".")
    return KEYS.get(key, section if entry == "_target_" else entry.replace("_", " "))


def value_label(key: str, value: Any) -> str:
    """Name a value of a config key: no clipping and missing values are "none", no pin "learned"."""
    if isinstance(value, str):
        name = value.rpartition(".")[-1] if key.endswith("_target_") else value
        return MODELS.get(name, name) if key == "model.name" else name
    if pd.isna(value) and key.endswith("_gate"):  # an LSTM's that is not pinned at a value
        return "learned"
    if pd.isna(value) or (key == "clip.threshold" and math.isinf(value)):
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def level_label(key: str, value: Any) -> str:
    """Name a level of an axis: "gain 0.5", but plain "LSTM", which needs no "model" before it."""
    named = key.endswith((".name", "._target_"))
    return value_label(key, value) if named else f"{key_label(key)} {value_label(key, value)}"


def point_label(point: pd.Series, axes: Sequence[str]) -> str:
    """Tell a point from the others of its sweep: "LSTM, gain 0.5, length 64"."""
    return ", ".join(level_label(axis, point[axis]) for axis in axes) or "the only point"


def quantity_label(norm: str | None, of: str | None, wrt: str | None) -> str:
    """The measured log norm with its units; None for `of` or `wrt` is the whole carry s."""
    fraction = rf"\partial {symbol(of)}^{{(t)}}/\partial {symbol(wrt)}^{{(k)}}"
    return rf"$\log\,\Vert {fraction}\Vert{NORMS.get(str(norm), '')}$ (nats)"


def quantity_of(runs: pd.DataFrame) -> str:
    """The label of what some points measured, in general terms if they measured several things."""
    measured = runs.reindex(
        columns=[f"probe.jacobian.{x}" for x in ("norm", "of", "wrt")]
    ).drop_duplicates()
    return quantity_label(*measured.iloc[0]) if len(measured) == 1 else "log norm (nats)"


def number_label(count: float) -> str:
    """A number of steps, to a tenth where that says something."""
    return f"{count:.1f}" if count < 10 else f"{count:.0f}"


def symbol(leaf: str | None) -> str:
    """A part of the carry in a formula; None is the whole carry s."""
    leaf = "s" if pd.isna(leaf) else leaf
    return leaf if len(leaf) == 1 else rf"\mathrm{{{leaf}}}"
