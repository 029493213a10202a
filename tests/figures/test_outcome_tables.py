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
    moments,
    phase_figure,
    phase_table,
    singular_values_table,
    style,
    training_figure,
    training_table,
)
from gradlab.figures.moments import AFTER, BEFORE
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
    assert at(adjoints, BEFORE, k=2)["log_norm"] == pytest.approx(-0.5 * 6)
    assert at(adjoints, AFTER, k=0)["log_norm"] == pytest.approx(-0.1 * 8)
    assert at(spectrum, BEFORE, index=3)["exponent"] == pytest.approx(-1.5)
    assert at(spectrum, AFTER, index=1)["standard_error"] == pytest.approx(0.01)


def test_means_over_samples_leave_out_exact_zeros_and_short_sequences(tmp_path: Path) -> None:
    gradients = all_probes().isel(step=[0])
    adjoint, spectrum, errors, values = (
        gradients[name].to_numpy().copy()
        for name in (
            "adjoint_log_norm",
            "lyapunov_exponent",
            "lyapunov_standard_error",
            "singular_values_log",
        )
    )
    adjoint[0, 0, 2] = adjoint[0, :, 3] = spectrum[0, 0] = values[0, 0] = -inf
    adjoint[0, 1, 5:] = errors[0, 0] = values[0, 1, 1] = np.nan
    values[0, 2, 0, 3] = -inf  # unresolved, though the product is not zero
    write_point(
        tmp_path / "0",
        gradients.assign(
            adjoint_log_norm=(("step", "sample", "k"), adjoint),
            lyapunov_exponent=(("step", "sample", "exponent"), spectrum),
            lyapunov_standard_error=(("step", "sample", "exponent"), errors),
            singular_values_log=(("step", "sample", "chosen_lag", "index"), values),
        ),
    )
    runs = load_runs(tmp_path)
    by_k = adjoint_table(runs).set_index("k")["log_norm"]
    assert by_k[2] == pytest.approx(-0.5 * 6 + 0.5)  # samples differ by −1, 0, 1
    assert by_k[3] == -inf
    assert by_k[6] == pytest.approx(-0.5 * 2)
    assert at(lyapunov_table(runs), BEFORE, index=2)["exponent"] == pytest.approx(-1.0)
    assert at(lyapunov_table(runs), BEFORE, index=2)["standard_error"] == pytest.approx(0.01)
    singular = singular_values_table(runs)
    assert at(singular, BEFORE, lag=4, index=2)["log_value"] == pytest.approx(-0.5 * 2 * 4)
    assert at(singular, BEFORE, lag=1, index=4)["log_value"] == -inf


def test_the_adjoint_of_each_loss_is_that_of_each_samples_last_step(tmp_path: Path) -> None:
    ends = np.array([8, 5, 3])
    step = np.arange(9)
    maps = np.where(np.tri(9) > 0, -0.5 * (step[:, None] - step), -inf) + np.zeros((3, 1, 1))
    beyond = np.maximum.outer(step, step) > ends[:, None, None]
    maps = np.where(beyond, np.nan, maps)[None]
    gradients = geometric(rates=(-0.5,)).assign(
        adjoint_log_norm=(("step", "sample", "t", "k"), maps)
    )
    write_point(tmp_path / "0", gradients)
    by_k = adjoint_table(load_runs(tmp_path)).set_index("k")["log_norm"]
    for k in range(9):
        expected = np.mean([-0.5 * (end - k) for end in ends if k <= end])
        assert by_k[k] == pytest.approx(expected)


def test_singular_values_are_named_by_their_lag(measured: pd.DataFrame) -> None:
    table = singular_values_table(measured)
    assert at(table, BEFORE, lag=4, index=2)["log_value"] == pytest.approx(-0.5 * 2 * 4)
    assert set(table["quantity"]) == {"lag 1", "lag 4"}


def test_shares_add_up_and_the_whole_window_is_left_out(measured: pd.DataFrame) -> None:
    table = contributions_table(measured)
    shares = table[table["quantity"] == "share of the gradient"]
    assert shares.groupby("when")["value"].sum().to_numpy() == pytest.approx(1)
    errors = table[table["quantity"] == "truncation error"]
    assert errors["window"].max() == 7
    assert at(errors, AFTER, window=2)["value"] == pytest.approx(1 - 2 / 8)


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
    assert list(moments.load_at(run, "ends")) == [BEFORE]


def test_drawing_a_moment_that_no_run_reached_is_an_error(tmp_path: Path) -> None:
    write_point(tmp_path / "0", geometric(rates=(0.9,)), state="diverged")
    for draw in (decay_figure, heatmap_figure):
        with pytest.raises(ValueError, match="no run was measured after training"):
            draw(load_runs(tmp_path), step="last")


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
    with pytest.raises(
        ValueError, match=r"no run has eval/loss after training: draw one of decay_rate"
    ):
        phase_table(runs, "loss")


def test_phase_plots_tell_divergence_from_exact_zeros_and_from_missing_values(
    tmp_path: Path,
) -> None:
    cells = {  # (gain, length): state and decay rate of each seed
        (0.5, 4): [("done", -0.5), ("done", -0.7)],
        (0.5, 8): [("done", -inf), ("done", -inf)],
        (1.0, 4): [("diverged", 3.0), ("diverged", np.nan)],  # W&B keeps rates from before
        (1.0, 8): [("done", 0.5), ("diverged", np.nan)],
        (2.0, 4): [("done", 1.0), ("done", -inf)],
        (2.0, 8): [("failed", np.nan)],
    }
    points = [(cell, seed, *run) for cell, runs in cells.items() for seed, run in enumerate(runs)]
    for i, ((gain, length), seed, state, rate) in enumerate(points):
        summary = {"jacobian/decay_rate": rate, "jacobian/horizon": inf}
        write_point(
            tmp_path / str(i),
            None,
            gain=gain,
            length=length,
            seed=seed,
            state=state,
            summary=summary,
        )
    figure = phase_figure(load_runs(tmp_path)).figure
    axes = figure.axes[0]
    looks = {
        (round(patch.get_x() + 0.5), round(patch.get_y() + 0.5)): patch.get_hatch()
        for patch in axes.patches
    }
    assert looks == {
        (0, 1): style.ZERO["hatch"],
        (1, 0): style.DIVERGED["hatch"],
        (2, 1): None,
    }
    assert style.ZERO["hatch"] != style.DIVERGED["hatch"]
    numbers = {text.get_position(): text.get_text() for text in axes.texts}
    assert numbers == {  # decades per step
        (0, 0): "−0.26\n±0.06",
        (1, 1): "0.22\n1 of 2",
        (2, 0): "0.43\n1 of 2",
        (2, 1): "–",
    }
    (legend,) = (child for child in figure.subfigs[0].legends)
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["diverged", "exactly zero", "no value"]
    note = figure._supxlabel.get_text().replace("\n", " ")
    assert "points without a number: 1 diverged, 1 exactly zero." in note
    assert "mean of 1 to 2 seeds ± one standard deviation where there are several; “2 of 5”" in note
    horizons = phase_figure(load_runs(tmp_path), "horizon").figure
    (legend,) = (child for child in horizons.subfigs[0].legends)
    assert "never falls to 1/e" in [text.get_text() for text in legend.get_texts()]
