"""Advice at a point's end, from rows whose norms, rates and errors are known."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Compose
from flax import nnx
from synthetic_sweeps import write_point

from gradlab import load_runs, records
from gradlab.advice import point_advice
from gradlab.advice.starts import kind_of
from gradlab.cells import GRU, JANET, LRU, LSTM, SLSTM, ConcatenatedElman, Elman, MinGRU
from gradlab.figures.selection import comparable
from gradlab.point import Point, run_point
from gradlab.records.points import load_verified
from gradlab.sweeps import report
from gradlab.sweeps.closing_table import closing_table

STUCK = {"train/step": 100, "eval/loss": 1.0, "eval/baseline": 1.0}
GAUSSIAN = {
    **{"init._target_": "gradlab.initialisers.gaussian", "init.gain": 0.5},
    **{"bias._target_": "gradlab.initialisers.zero_bias", "model.other_std": None},
}
TRAINED = {"train/clip_fraction": 0.0, "train/clip_coefficient": 1.0}


def of_rows(*rows: Mapping[str, float], **options: Any) -> list[str]:
    usual = {"threshold": np.inf, "window": None, "kind": "elman", "start": GAUSSIAN}
    return point_advice(rows, 50, **{**usual, **options})


def test_a_point_that_has_learnt_or_not_trained_gets_no_advice() -> None:
    start = {"train/step": 0, "eval/loss": 1.0, "eval/baseline": 1.0, "jacobian/decay_rate": -1.0}
    assert of_rows(start) == []
    assert of_rows(start, STUCK | {"eval/loss": 0.5}) == []
    assert of_rows(start | {"jacobian/decay_rate": 0.0}, STUCK) == []
    (reach,) = of_rows(start, STUCK)
    assert "fell by 0.43 decades a step, 21.7 over 50 steps" in reach  # 1 nat is 0.434 of them
    assert "start with init=orthogonal init.gain=1 model.other_std=0.1 (" in reach
    assert "bias=chrono bias.longest=50" in of_rows(start, STUCK, kind="gated")[0]


def test_no_start_is_advised_that_a_point_has() -> None:
    first = {"train/step": 0, "jacobian/decay_rate": -1.0}
    orthogonal = {"init._target_": "gradlab.initialisers.orthogonal", "init.gain": 1.0}
    has = GAUSSIAN | orthogonal
    assert "start with model.other_std=0.1 (" in of_rows(first, STUCK, start=has)[0]
    has |= {"model.other_std": 0.1}
    assert "try another start (gradlab.advise" in of_rows(first, STUCK, start=has)[0]
    uniform = has | {"model.other_limit": 1.0}
    (narrower,) = of_rows(first, STUCK, start=uniform)
    assert "start with model.other_limit=null model.other_std=0.1 (" in narrower
    chrono = GAUSSIAN | {"bias._target_": "gradlab.initialisers.chrono", "bias.longest": 30.0}
    (longer,) = of_rows(first, STUCK, kind="gated", start=chrono)
    assert "start with bias.longest=50 (" in longer


@pytest.mark.parametrize("rate", [-1.0, 1.0])
def test_no_start_is_advised_of_a_cell_that_may_draw_its_own(rate: float) -> None:
    first = {"train/step": 0, "jacobian/decay_rate": rate}
    last = STUCK if rate < 0 else {"train/step": 100, "diverged/update": 99.0}
    (sentence,) = of_rows(first, last, kind="other")
    assert "try another start" in sentence
    assert "init" not in sentence
    assert "bias" not in sentence


@pytest.mark.parametrize(
    ("kind", "cells"),
    [
        ("elman", (Elman, ConcatenatedElman, nnx.SimpleCell)),
        ("gated", (LSTM, GRU, nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell)),
        ("other", (JANET, LRU, MinGRU, SLSTM, lambda features: None)),
    ],
)
def test_advice_knows_the_starts_of_elman_layers_and_of_lstms_and_grus(
    kind: str, cells: tuple[Any, ...]
) -> None:
    assert [kind_of(cell) for cell in cells] == [kind] * len(cells)


@pytest.mark.parametrize("rate", [-np.inf, -0.2])
def test_exact_zeros_are_said_and_no_start_is_advised(rate: float) -> None:
    lags = {1: rate, 2: -np.inf, 4: -np.inf, 8: np.nan}
    first = {f"jacobian/log_norm/lag_{lag}": x for lag, x in lags.items()}
    first |= {"train/step": 0, "jacobian/decay_rate": rate}
    zero = 2 if rate > -np.inf else 1
    (sentence,) = of_rows(first, STUCK)
    assert sentence == f"at the start the gradient is exactly zero from lag {zero} on"


def test_a_point_that_exploded_gets_a_threshold_from_its_logged_norms() -> None:
    peak = {"train/grad_norm_clipped_max": 90.0}
    rows = [
        {"train/step": 0.0},
        {"train/step": 50, "train/grad_norm": 3.0, **peak, **TRAINED},
        STUCK | {"train/grad_norm": 3.0, **peak, **TRAINED},
    ]
    assert "clip.threshold=1.5" in of_rows(*rows)[0]
    assert of_rows(*rows, threshold=1.5) == of_rows(*rows, threshold=np.nan) == []
    always = {"train/clip_fraction": 1.0, "train/clip_coefficient": 0.01}
    rows = [STUCK | {"train/grad_norm": 3.0, "train/grad_norm_clipped_max": 0.1, **always}]
    assert "to 1.0% of their length" in of_rows(*rows, threshold=0.1)[0]


def test_a_start_that_vanishes_is_said_before_a_rare_large_norm() -> None:
    vanishing = {"train/step": 0, "jacobian/decay_rate": -1.0}
    trained = {"train/grad_norm": 3.0, "train/grad_norm_clipped_max": 90.0, **TRAINED}
    reach, clipping = of_rows(vanishing, STUCK | trained)
    assert "start with init=orthogonal" in reach
    assert "clip.threshold=1.1" in clipping  # half of 210 ÷ 99


def test_a_threshold_for_a_point_that_diverged_is_of_the_steady_norms_before() -> None:
    def logged(*norms: float, largest: float = 0.0) -> list[dict[str, float]]:
        peak = {"train/grad_norm_clipped_max": largest}
        steps = range(20, 100, 20)
        rows = zip(norms, steps, strict=False)
        return [{"train/grad_norm": x, **TRAINED, **peak, "train/step": at} for x, at in rows]

    ended = {"train/step": 100, "diverged/update": 99.0}
    worse = ended | {"diverged/worst": 1.0, "train/grad_norm": 2.0}
    for norms in ([3.0, 4.0, 3.0], [3.0]):
        assert "clip.threshold=1.5" in of_rows(*logged(*norms), ended)[0]
        assert "clip.threshold=1.5" in of_rows(*logged(*norms, 2e6), worse)[0]
    assert of_rows(*logged(2e6)[:0], ended | {"train/grad_norm": 2e6, **TRAINED}) == []
    assert of_rows(*logged(2e5, largest=4e6), ended) == []  # one mean, which the explosion decides
    assert of_rows(*logged(3.0, 4.0, 5e2, 1e5), ended) == []
    assert of_rows(*logged(2e6, 3.0, 3.0), worse) == []
    start = {"train/step": 0, "jacobian/decay_rate": np.log(10) / 5}
    assert of_rows(start, ended) == [
        "at the start the log norm rose by 0.2 decades a step, 10 over 50 steps: start with a "
        "smaller init.gain"
    ]


def windows(norms: np.ndarray, size: int, threshold: float = np.inf) -> list[dict[str, float]]:
    """The rows of a training that has not learnt, a row every `size` updates and at its end."""
    clipped = np.minimum(norms, threshold)
    ends = [*range(size, len(norms), size), len(norms)]
    parts = zip([0, *ends], ends, strict=False)
    return [{"train/step": 0.0}] + [
        STUCK
        | {
            "train/step": end,
            "train/grad_norm": norms[start:end].mean(),
            "train/grad_norm_clipped_max": clipped[start:end].max(),
            "train/clip_fraction": float(np.mean(norms[start:end] > threshold)),
            "train/clip_coefficient": float(np.mean((clipped / norms)[start:end])),
        }
        for start, end in parts
    ]


@pytest.mark.parametrize("updates", [24, 96, 1204])
@pytest.mark.parametrize("threshold", [np.inf, 0.01])
def test_the_threshold_is_the_same_however_often_norms_are_logged(
    updates: int, threshold: float
) -> None:
    norms = np.random.default_rng(0).lognormal(0, 1, updates)
    norms[updates // 2] = 40 if updates < 100 else 1e5  # of 1 % of the updates or less: left out
    kept = np.sort(norms)[: updates - updates // 100]
    for size in (1, 10):
        (sentence,) = of_rows(*windows(norms, size, threshold), threshold=threshold)
        advised = float(sentence.split("clip.threshold=")[1])
        assert advised == pytest.approx(kept.mean() / 2, rel=0.15)
        assert f"on average over {updates} updates" in sentence
    (sentence,) = of_rows(*windows(norms, 1, threshold), threshold=threshold)
    assert ("the 12 of the largest norms left out" in sentence) == (updates > 1000)


def test_a_divergence_has_the_median_of_the_updates_before() -> None:
    ended = {"train/step": 100, "diverged/update": 99.0}
    (sentence,) = of_rows(*windows(np.full(40, 60.0), 10), ended)
    assert "60 in the median of the 40 updates before the divergence: " in sentence
    (sentence,) = of_rows(*windows(np.full(1, 60.0), 10), ended)
    assert "60 at the only update before the divergence: " in sentence


def test_a_point_whose_window_loses_its_gradient_gets_a_longer_one() -> None:
    errors = {f"contribution/truncation_error/{k}": e for k, e in ((8, 0.6), (16, 0.2), (32, 0.01))}
    assert "loses 60% of the gradient: try tbptt.window=32" in of_rows(STUCK | errors, window=8)[0]
    assert of_rows(STUCK | errors, window=32) == of_rows(STUCK | errors) == []
    for rate, advised in ((0.1, 0), (-0.1, 1)):  # e⁵ over 50 steps: it explodes
        last = STUCK | errors | {"jacobian/decay_rate": rate}
        assert len(of_rows({"train/step": 0}, last, window=8)) == advised


def test_advice_stands_in_the_status_of_a_point(composed: Compose, tmp_path: Path) -> None:
    config = composed(
        *("task=echo", "task.length=30", "task.delay=25", "task.test_size=20", "init.gain=0.3"),
        *("model.hidden_size=5", "train.batch_size=6", "train.steps=2", "wandb=disabled"),
        *("probe.schedule=ends", "probe.samples=1"),
    )
    status = run_point(Point(config, tmp_path / "0", "alone"))
    assert "init=orthogonal" in status["advice"][0]
    assert load_verified(tmp_path / "0")["advice"] == status["advice"]


def test_the_closing_report_shows_the_first_advice(tmp_path: Path) -> None:
    for number in range(5):
        write_point(tmp_path / str(number), None, seed=number)
        status = load_verified(tmp_path / str(number))
        if number:
            advice = [f"clip {number}", "truncate"]
            records.save_status(tmp_path / str(number), status | {"advice": advice})
    table = closing_table(comparable(load_runs(tmp_path)), tmp_path, "points", {})
    lines = report.advice(table)
    assert lines == ["1: clip 1", "2: clip 2", "2 more in the points' status.json"]
