"""Labels of config keys, of their values, and of the measured norm in a figure."""

import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import pandas as pd

from gradlab.figures.units import current_unit

KEYS = {
    "model.name": "model",
    "model.hidden_size": "units",
    "model.num_layers": "layers",
    "init._target_": "initialiser",
    "clip._target_": "clipping",
    "clip.threshold": "clip threshold",
    "optim._target_": "optimiser",
}
MODELS = {
    "cornn": "coRNN",
    "deltanet": "DeltaNet",
    "exprnn": "expRNN",
    "gru": "GRU",
    "indrnn": "IndRNN",
    "janet": "JANET",
    "leaky": "leaky RNN",
    "lru": "LRU",
    "lstm": "LSTM",
    "lstm_1997": "LSTM of 1997",
    "mamba": "Mamba (S6)",
    "mingru": "minGRU",
    "minimal_rnn": "MinimalRNN",
    "minlstm": "minLSTM",
    "mlstm": "mLSTM",
    "rnn": "RNN",
    "slstm": "sLSTM",
}
NONE, UNKNOWN = "none", "unknown"  # a missing value; a setting of which no record tells
PINNED = ("input_gate", "forget_gate", "output_gate")  # at a value, or learned
LONGEST = 60  # letters of a label, at most
NORMS = {"spectral": "_2", "frobenius": "_F", "rms": r"_\mathrm{rms}"}


def key_label(key: str) -> str:
    """Name a config key: `init.gain` is "gain", `task._target_` is "task"."""
    section, _, entry = key.rpartition(".")
    return KEYS.get(key, _cut(section if entry == "_target_" else entry.replace("_", " ")))


def value_label(key: str, value: Any) -> str:
    """Name a value of a config key: `lstm` is "LSTM", a missing value "none", a path the file.

    An infinite clip threshold is "none" and a missing one, of a loop whose clipping
    `gradlab.watch` was not told, "unknown"; a gate that is not pinned at a value is "learned".
    """
    if isinstance(value, str):
        name = value.rpartition(".")[-1] if key.endswith("_target_") else value
        name = PurePath(value).name if key.endswith(".path") else name
        return MODELS.get(name, _cut(name)) if key == "model.name" else _cut(name)
    if pd.isna(value) and key.endswith(PINNED):
        return "learned"
    if key == "clip.threshold" and pd.isna(value):
        return UNKNOWN
    if pd.isna(value) or (key == "clip.threshold" and math.isinf(value)):
        return NONE
    return f"{value:g}" if isinstance(value, float) else _cut(str(value))


def level_label(key: str, value: Any) -> str:
    """Name a key and its value: "gain 0.5", but only "LSTM", which needs no "model" before it."""
    named = key.endswith((".name", "._target_"))
    return value_label(key, value) if named else f"{key_label(key)} {value_label(key, value)}"


def point_label(run: pd.Series, keys: Sequence[str]) -> str:
    """Name a point by its values of the keys that vary: "LSTM, gain 0.5, length 64"."""
    return ", ".join(level_label(key, run[key]) for key in keys) or "the only point"


def log_norm_label(norm: str | None, of: str | None, wrt: str | None) -> str:
    """Return the formula of a measured norm as its axis shows it: the norm, or its log in nats.

    Args:
        norm: a key of NORMS.
        of, wrt: the parts of the carry in ∂of⁽ᵗ⁾/∂wrt⁽ᵏ⁾; None: the whole carry s.
    """
    fraction = rf"\partial {symbol(of)}^{{(t)}}/\partial {symbol(wrt)}^{{(k)}}"
    return _in_unit(rf"\Vert {fraction}\Vert{NORMS.get(str(norm), '')}")


def label_of(log_norms: Any) -> str:
    """Return the `log_norm_label` of an xarray by its attributes; of others a general one."""
    named = getattr(log_norms, "attrs", {})
    if "norm" not in named:
        return general_label()
    parts = [None if named.get(x) == "whole carry" else named.get(x) for x in ("of", "wrt")]
    return log_norm_label(named["norm"], *parts)


def shared_log_norm_label(runs: pd.DataFrame) -> str:
    """Return the `log_norm_label` that the runs share; a general one if they differ in it."""
    keys = [f"probe.jacobian.{name}" for name in ("norm", "of", "wrt")]
    settings = runs.reindex(columns=keys).drop_duplicates()
    if settings[keys[0]].isna().any() or len(settings) > 1:
        return general_label()
    return log_norm_label(*settings.iloc[0])


def general_label() -> str:
    """Return the label of norms of which nothing else is known."""
    return "norm" if current_unit() == "decades" else "log norm (nats)"


def _in_unit(formula: str) -> str:
    return f"${formula}$" if current_unit() == "decades" else rf"$\log\,{formula}$ (nats)"


def steps_label(steps: float) -> str:
    """Write a number of steps, with one decimal place below 10."""
    return f"{steps:.1f}" if steps < 10 else f"{steps:.0f}"


def symbol(leaf: str | None) -> str:
    """Return the symbol of a part of the carry in a formula; of the whole carry, s, if None."""
    leaf = "s" if pd.isna(leaf) else _cut(str(leaf))
    plain = "".join(c if c.isascii() and (c.isalnum() or c == ".") else r"\_" for c in leaf)
    return plain if len(plain) == 1 else rf"\mathrm{{{plain}}}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
