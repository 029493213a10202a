"""The tables of the probes' measurements and of the outcomes of training hold the right numbers."""

from math import inf
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_sweeps import all_probes, geometric, metrics_with, write_point

from gradlab import load_runs
from gradlab.figures import (
    adjoint_table,
    clipping_figure,
    clipping_table,
    contributions_table,
    decay_figure,
    gates_table,
    heatmap_figure,
    lyapunov_table,
    phase_figure,
    phase_table,
    selection,
    singular_values_table,
    training_figure,
    training_table,
)
from gradlab.figures.outcome import succeeded

# Measurements of the probes


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("measured")
    write_point(folder / "0", all_probes(8))
    return load_runs(folder)


def at(table: pd.DataFrame, when: str, **key: object) -> pd.Series:
    rows = table[table["when"] == when]
    for name, value in key.items():
        rows = rows[rows[name] == value]
    (row,) = (row for _, row in rows.iterrows())
    return row


def test_adjoints_and_exponents_are_means_over_samples(measured: pd.DataFrame) -> None:
    adjoints, spectrum = adjoint_table(measured), lyapunov_table(measured)
    assert at(adjoints, "before", k=2)["log_norm"] == pytest.approx(-0.5 * 6)
    assert at(adjoints, "after", k=0)["log_norm"] == pytest.approx(-0.1 * 8)
    assert at(spectrum, "before", index=3)["exponent"] == pytest.approx(-1.5)
    assert at(spectrum, "after", index=1)["standard_error"] == pytest.approx(0.01)


def test_singular_values_are_named_by_their_lag(measured: pd.DataFrame) -> None:
    table = singular_values_table(measured)
    assert at(table, "before", lag=4, index=2)["log_value"] == pytest.approx(-0.5 * 2 * 4)
    assert set(table["quantity"]) == {"lag 1", "lag 4"}


def test_shares_add_up_and_the_whole_window_is_left_out(measured: pd.DataFrame) -> None:
    table = contributions_table(measured)
    shares = table[table["quantity"] == "share of the gradient"]
    assert shares.groupby("when")["value"].sum().to_numpy() == pytest.approx(1)
    errors = table[table["quantity"] == "truncation error"]
    assert errors["window"].max() == 7
    assert at(errors, "after", window=2)["value"] == pytest.approx(1 - 2 / 8)


def test_states_are_tabulated_from_the_first_step(measured: pd.DataFrame) -> None:
    table = gates_table(measured)
    assert set(table["quantity"]) == {"h norm"}
    assert table["t"].min() == 1
    assert table["value"].to_numpy() == pytest.approx(1)


def test_a_missing_variable_is_named_with_its_probe(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric())
    with pytest.raises(ValueError, match=r"did not measure adjoint.*probe=\[spectral,adjoint\]"):
        adjoint_table(load_runs(tmp_path))


def test_a_diverged_run_with_several_measurements_has_no_after(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(rates=(0.1, 0.2, 0.9)), state="diverged")
    (run,) = (run for _, run in load_runs(tmp_path).iterrows())
    assert list(selection.load_before_and_after(run)) == ["before"]


def test_drawing_a_moment_that_no_run_reached_is_an_error(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(rates=(0.9,)), state="diverged")
    for draw in (decay_figure, heatmap_figure):
        with pytest.raises(ValueError, match="no run was measured after training"):
            draw(load_runs(tmp_path), ["after"])


# Outcomes of training


def test_success_is_a_low_error_rate_else_a_high_accuracy_and_never_divergence() -> None:
    runs = pd.DataFrame(
        {
            "eval/error_rate": [0.005, 0.02, np.nan, np.nan, 0.001],
            "eval/accuracy": [0.5, 0.99, 0.95, 0.5, 1.0],
            "status": ["done"] * 4 + ["diverged"],
        }
    )
    assert succeeded(runs).tolist() == [1, 0, 1, 0, 0]
    assert succeeded(runs, error=0.05, accuracy=0.99).tolist() == [1, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="no run logs eval/error_rate or eval/accuracy"):
        succeeded(runs[["status"]])


def clipped_sweep(folder: Path) -> pd.DataFrame:
    """Write two thresholds by two learning rates; without clipping the higher rate diverges."""
    for i, (threshold, rate) in enumerate(((1.0, 0.1), (1.0, 1.0), (inf, 0.1), (inf, 1.0))):
        diverged = (threshold, rate) == (inf, 1.0)
        losses = [3.0, 40.0] if diverged else [3.0, 2.0, rate]
        summary = {} if diverged else {"eval/loss": rate, "eval/accuracy": 0.95}
        write_point(
            folder / str(i),
            None,
            state="diverged" if diverged else "done",
            threshold=threshold,
            rate=rate,
            summary=summary,
            metrics=metrics_with(losses, 0.25 if threshold == 1 else 0.0),
        )
    return load_runs(folder)


def test_clipping_table_counts_divergence_as_failure_without_a_loss(tmp_path: Path) -> None:
    table = clipping_table(clipped_sweep(tmp_path))
    outcomes = table[table["step"].isna()].pivot_table(
        index=["threshold", "learning_rate"], columns="quantity", values="value", dropna=False
    )
    assert outcomes.loc[(inf, 1.0), "success"] == 0
    assert np.isnan(outcomes.loc[(inf, 1.0), "final loss"])
    assert outcomes.loc[(1.0, 1.0)].to_dict() == {"success": 1, "final loss": 1.0}
    fractions = table[table["quantity"] == "clip fraction"]
    assert set(fractions[fractions["threshold"] == 1]["value"]) == {0.25}
    assert fractions["step"].min() == 10


def test_clipping_and_training_say_which_runs_diverged(tmp_path: Path) -> None:
    runs = clipped_sweep(tmp_path)
    table = training_table(runs)
    last = table[table["diverged"]].groupby("quantity").last()
    assert last.loc["eval/loss", ["step", "value"]].tolist() == [10, 40]
    marks = [
        line
        for axes in training_figure(runs).figure.axes
        for line in axes.lines
        if line.get_marker() == "X"
    ]
    assert len(marks) == 2  # in the panels of both losses
    assert clipping_figure(runs).table["quantity"].nunique() == 3


def test_phase_table_has_the_value_of_each_point_and_names_wrong_axes(tmp_path: Path) -> None:
    for i, (gain, length) in enumerate(((0.5, 4), (0.5, 8), (2.0, 4), (2.0, 8))):
        rate = {"jacobian/decay_rate": np.log(gain)}
        write_point(tmp_path / str(i), None, gain=gain, length=length, summary=rate)
    runs = load_runs(tmp_path)
    table = phase_table(runs)
    assert table["decay_rate"].to_numpy() == pytest.approx(np.log(table["init.gain"]))
    assert len(phase_figure(runs).table) == 4
    with pytest.raises(ValueError, match=r"no config key 'gain'; what varies: init\.gain, task"):
        phase_table(runs, x="gain")
    with pytest.raises(ValueError, match=r"no run has eval/loss: draw one of decay_rate"):
        phase_table(runs, "loss")
