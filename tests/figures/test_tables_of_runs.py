"""Figures take tables that were joined, and refuse those that are no runs in a sentence."""

from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_sweeps import all_probes, geometric, text_of, write_point, write_seeds

import gradlab
from gradlab import figures, load_runs
from gradlab.records.table import with_constants

FIGURES = [name for name in figures.__all__ if name.endswith("_figure")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folders of two sweeps, over gains and over models, at two thresholds."""
    top = tmp_path_factory.mktemp("sweeps")
    first, second = top / "gains" / "monday", top / "models" / "tuesday"
    for gain in (1.0, 2.0):
        write_seeds(first, (-0.5, -0.4), gain=gain, threshold=1.0)
    for model in ("rnn", "lstm"):
        write_seeds(second, (-0.3, -0.2), model=model, gain=3.0, threshold=inf)
    return first, second


@pytest.mark.parametrize("renumbered", [False, True])
def test_joined_tables_have_every_config_as_if_read_together(
    folders: tuple[Path, Path], renumbered: bool
) -> None:
    whole = [load_runs(folder, "all") for folder in folders]
    expected = pd.concat(whole, ignore_index=True)
    joined = pd.concat([load_runs(folder) for folder in folders], ignore_index=renumbered)
    again = with_constants(joined).reset_index(drop=True)
    pd.testing.assert_frame_equal(again[list(expected)], expected, check_dtype=False)
    assert again["clip.threshold"].dtype == float


def test_a_figure_compares_the_sweeps_of_joined_tables(folders: tuple[Path, Path]) -> None:
    joined = pd.concat([load_runs(folder) for folder in folders])
    drawn = figures.decay(joined, hue="sweep", where={"model.name": "rnn"}, step="first")
    slopes = drawn.table[drawn.table["lag"] == 1].set_index("point")["relative"]
    assert sorted(slopes) == pytest.approx([-0.5, -0.5, -0.4, -0.4, -0.3, -0.2])
    text = text_of(drawn.figure)
    assert {"sweep gains/monday", "sweep models/tuesday"} <= set(text.splitlines())
    assert "pooled" not in text
    pooled = text_of(figures.decay(joined).figure).replace("\n", " ")
    assert "2 sweeps are pooled. One alone: --where sweep=gains/monday." in pooled
    alone = figures.decay(joined, where={"sweep": "gains/monday"})
    assert set(alone.table["point"]) == {0, 1, 2, 3}


def test_sweeps_are_compared_that_differ_in_other_keys_too(folders: tuple[Path, Path]) -> None:
    joined = pd.concat([load_runs(folder) for folder in (*folders, folders[0])])
    drawn = figures.decay(joined, hue="sweep", where={"model.name": "rnn"}, step="first")
    assert drawn.table["point"].nunique() == 6  # each once, whatever their gains and thresholds
    by_sweep = figures.decay(joined, row="sweep", step="first")
    assert by_sweep.table["point"].nunique() == 8


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        (pd.DataFrame(), "table of gradlab.load_runs; this one lacks the columns status, path"),
        (pd.DataFrame({"a": [1]}), "this one lacks the columns status, path"),
        (pd.DataFrame(columns=["status", "path"]), "the table of runs has no rows"),
        ("runs/mine", "must be the table of gradlab.load_runs; got a str"),
    ],
)
def test_a_table_that_is_none_of_runs_is_refused_in_a_sentence(
    name: str, runs: Any, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        getattr(figures, name)(runs)


def test_the_views_are_of_a_point_that_is_there(tmp_path: Path) -> None:
    for seed in range(2):
        write_point(tmp_path / str(seed), all_probes(), seed=seed)
    runs = load_runs(tmp_path)
    with pytest.raises(ValueError, match="point must be a number from 0 to 1; got 999"):
        figures.views(runs, 999)
    with pytest.raises(ValueError, match="views are those of one run, and there are 2: give"):
        figures.views(runs)
    write_point(tmp_path / "2", geometric())
    with pytest.raises(ValueError, match="did not measure lyapunov, theory: run with probe="):
        figures.views(load_runs(tmp_path), 2)


def test_the_title_of_the_views_has_the_unit_of_their_axes(tmp_path: Path) -> None:
    write_point(tmp_path, all_probes(), summary={"verdict": "stable"})
    runs = load_runs(tmp_path).assign(reason="stable: the log norm changes by -0.1 nats a step")
    change = "the log norm changes by -0.0434 decades a step, -0.3 over 8 steps"
    assert f"stable: {change}" in text_of(figures.views(runs).figure)
    with figures.theme(unit="nats"):
        text = text_of(figures.views(runs).figure)
    assert "stable: the log norm changes by -0.1000 nats a step, -0.8 over 8 steps" in text
    failed = runs.assign(verdict="diverged", reason="a loss was not finite; at step 3")
    assert "a loss was not finite" in text_of(figures.views(failed).figure)


@pytest.mark.parametrize("values", ["x", [["a", "b"], ["c", "d"]], {"a": 1}, np.ones(3) * 1j])
def test_what_is_no_number_is_refused_by_what_draws_a_measurement(values: Any) -> None:
    for draw in (gradlab.draw_map, gradlab.draw_decay, gradlab.draw_spectrum):
        with pytest.raises(ValueError, match="are real numbers; got"):
            draw(values)
