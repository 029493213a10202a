"""Sweeps on disk with known values, for the tests of the figures."""

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from gradlab import records
from gradlab.figures.style import Drawn

SAMPLES = 3
RATES = (-0.50, -0.42, -0.61, -0.35, -0.47)  # of five seeds, nats per step


def geometric(
    length: int = 8,
    rates: tuple[float, ...] = (-0.5, -0.1),
    *,
    reach: float = inf,
    start: float = 0.0,
    stride: int = 1,
) -> xr.Dataset:
    """Return maps with log norm start + rate · lag, at training steps 0, 100, ….

    Samples differ by amounts that cancel in their mean.

    Args:
        length: of the sequence, time steps.
        rates: nats per step, one per training step.
        reach: the lag beyond which the norm is exactly zero.
        start: log norm at lag 0, nats.
        stride: time steps from one t or k to the next.
    """
    t = np.arange(0, length + 1, stride)
    lag = t[:, None] - t[None, :]
    spread = np.linspace(-1, 1, SAMPLES)[:, None, None] * (lag > 0)
    maps = np.stack([start + rate * lag + spread for rate in rates])
    maps = np.where((lag < 0) | (lag > reach), -np.inf, maps).astype(np.float32)
    attributes = {"units": "nats", "norm": "spectral", "of": "h", "wrt": "h"}
    return xr.Dataset(
        {"jacobian_log_norm": (("step", "sample", "t", "k"), maps, attributes)},
        coords={"step": 100 * np.arange(len(rates)), "t": t, "k": t},
    )


def all_probes(length: int = 8) -> xr.Dataset:
    """Return what all probes measure, in closed form: rates −½ before training, −1/10 after."""
    maps = geometric(length)
    step, rates = maps["step"], np.array([-0.5, -0.1])
    k, lag, window = maps["k"], np.arange(length), np.arange(1, length + 1)
    index, ones = np.arange(1, 5), np.ones((1, SAMPLES, 1))
    spread = np.linspace(-1, 1, SAMPLES)[None, :, None]  # between samples; its mean is zero
    adjoints = rates[:, None, None] * (length - k.to_numpy()) + spread
    spectrum = rates[:, None, None] * index * ones
    share = np.exp(rates[:, None] * lag)
    states = 1 + 0 * adjoints + spread
    states[..., 0] = np.nan  # the first value is that after the first step
    variables = {
        "adjoint_log_norm": (("step", "sample", "k"), adjoints),
        "contribution_share": (("step", "lag"), share / share.sum(axis=1, keepdims=True)),
        "contribution_relative_error": (("step", "window"), np.tile(1 - window / length, (2, 1))),
        "lyapunov_exponent": (("step", "sample", "exponent"), spectrum),
        "lyapunov_standard_error": (("step", "sample", "exponent"), 0.01 + 0 * spectrum),
        "singular_values_log": (
            ("step", "sample", "chosen_lag", "index"),
            spectrum[:, :, None, :] * np.array([1, 4])[:, None],
        ),
        "theory_rate": (("step", "sample", "theory"), rates[:, None, None] * ones),
        "statistics_h_norm": (("step", "sample", "t"), states),
    }
    coordinates = {"lag": lag, "window": window, "exponent": index, "index": index}
    return maps.assign(variables).assign_coords(
        **coordinates, chosen_lag=[1, 4], theory=["mean field"], step=step
    )


def metrics_with(losses: Sequence[float], clip_fraction: float = 0.0) -> pd.DataFrame:
    """Return the metrics of a run with these losses at steps 0, 10, …; step 0 is untrained."""
    rows = pd.DataFrame({"train/step": 10 * np.arange(len(losses)), "eval/loss": losses})
    trained = rows["train/step"] > 0
    return rows.assign(**{"train/loss": rows["eval/loss"].where(trained)}).assign(
        **{"train/clip_fraction": np.where(trained, clip_fraction, np.nan)}
    )


def text_of(figure: Figure) -> str:
    """Return every text in a figure."""
    return "\n".join(
        text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))
    )


def note(drawn: Drawn) -> str:
    """Return every text in a drawn figure, in one line."""
    return text_of(drawn.figure).replace("\n", " ")


def write_point(
    folder: Path,
    gradients: xr.Dataset | None,
    *,
    state: str = "done",
    model: str = "rnn",
    init: str = "gaussian",
    gain: float | None = 1.0,
    length: int = 8,
    threshold: float | None = inf,
    rate: float = 0.01,
    seed: int = 0,
    summary: Mapping[str, float] | None = None,
    metrics: pd.DataFrame | None = None,
    **task: object,
) -> None:
    """Write the folder of a point; gradients or metrics are left out if they are None."""
    cells = {"rnn": "flax.nnx.SimpleCell", "lstm": "flax.nnx.OptimizedLSTMCell"}
    config = {
        "model": {"name": model, "cell": {"_target_": cells.get(model, f"their.{model}")}},
        "init": {"_target_": f"gradlab.initialisers.{init}", "gain": gain},
        "task": {"length": length, **task},
        "clip": {"threshold": threshold},
        "optim": {"learning_rate": rate},
        "probe": {"jacobian": {"norm": "spectral", "of": "h", "wrt": "h"}},
        "wandb": {"tags": ["a", str(folder)]},
        "seed": seed,
    }
    metrics_at_end = {"jacobian/decay_rate": -0.1 * seed, "verdict": state, **(summary or {})}
    status = {"state": state, "reason": "so", "summary": metrics_at_end}
    records.save_config(folder, config, status)
    if metrics is not None:
        records.save_metrics(folder, metrics, status)
    if gradients is not None:
        records.save_gradients(folder, gradients, status)


def write_seeds(folder: Path, rates: tuple[float, ...] = RATES, **options: Any) -> None:
    """Write a point of each rate, which halves in training; they differ in the seed alone."""
    for seed, rate in enumerate(rates):
        maps = geometric(8, rates=(rate, rate / 2))
        write_point(
            folder / f"{options.get('model', 'a')}{seed}-{options.get('gain', 1)}",
            maps,
            seed=seed,
            **options,
        )


def copies(runs: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the run of a table so many times, as if the gain varied."""
    many = runs.loc[[0] * count].reset_index(drop=True)
    return many.assign(**{"init.gain": 1.0 + np.arange(count)})
