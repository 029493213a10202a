"""Figures of loops that `gradlab.watch` has recorded: the advice is what to give it."""

from pathlib import Path

import flax.nnx as nnx
import numpy as np
import optax
import pytest
from synthetic_sweeps import note

import gradlab
from gradlab import figures
from gradlab.integrations.gradient_norms import Clip

X = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)


def watch(folder: Path, clip: Clip = None, probes: tuple[str, ...] = ("spectral",)) -> None:
    """Record a cell whose loop gives its gradients."""
    cell = nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))
    with gradlab.watch(X, folder=folder, clip=clip, probes=probes) as watcher:
        for step in range(2):
            watcher(step, cell, grads=nnx.state(cell, nnx.Param), loss=1.0)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched")
    watch(folder / "a")
    return folder


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("lyapunov", "give gradlab.watch probes=['spectral', 'lyapunov']."),
        ("contributions", "probes=['spectral', 'contribution'], and its loss= and targets=."),
        ("views", "give gradlab.watch probes=['spectral', 'lyapunov', 'theory']."),
    ],
)
def test_what_a_watcher_did_not_measure_is_an_argument_of_its(
    name: str, advice: str, watched: Path
) -> None:
    with pytest.raises(ValueError, match="measure") as refusal:
        getattr(figures, name)(gradlab.load_runs(watched))
    assert str(refusal.value).endswith(advice)


def test_what_does_not_vary_is_an_argument_of_the_watchers(watched: Path) -> None:
    runs = gradlab.load_runs(watched)
    assert "varies: give gradlab.watch config={'init.gain': 1.0} and" in note(figures.phase(runs))
    assert "One threshold: give gradlab.watch clip=1.0 and" in note(figures.clipping(runs))


def test_clipping_that_a_watcher_was_not_told_is_unknown(tmp_path: Path) -> None:
    for number, clip in enumerate([None, 0.5, optax.clip_by_global_norm(0.25)]):
        watch(tmp_path / str(number), clip)
    drawn = figures.clipping(gradlab.load_runs(tmp_path))
    thresholds = drawn.table.set_index("point")["threshold"]
    assert thresholds[1].to_numpy() == pytest.approx(0.5)
    assert thresholds[thresholds.index != 1].isna().all()
    assert "threshold unknown" in note(drawn)
    assert "none" not in note(drawn)


def test_a_watcher_that_is_given_the_probes_is_drawn(tmp_path: Path) -> None:
    watch(tmp_path, probes=("spectral", "lyapunov", "theory"))
    assert len(figures.views(gradlab.load_runs(tmp_path)).table) > 2
