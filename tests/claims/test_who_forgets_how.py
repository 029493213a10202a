"""Who forgets how: sizes by the cells' formulas, and the table of runs whose norms are known."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import Compose
from flax import nnx
from synthetic_sweeps import geometric

from gradlab import records
from gradlab.claims import results
from gradlab.claims.study import load_study
from gradlab.components import build
from gradlab.initialisers import draw_matrix
from gradlab.models import build_network
from gradlab.studies import who_forgets_how

ROOT = Path(__file__).parents[2]
WEIGHTS: dict[str, Callable[[int, int], float]] = {  # of n units that read m inputs
    "tanh_glorot": lambda n, m: n * (n + m + 1),
    "leaky": lambda n, m: n * (n + m + 1),
    "exprnn": lambda n, m: n * (n - 1) / 2 + n * (m + 1),
    "cornn": lambda n, m: n * (2 * n + m + 1),
    "lstm_1997": lambda n, m: 3 * n * (3 * n + m + 1),
    "lstm_forget_1": lambda n, m: 4 * n * (n + m + 1),
    "gru": lambda n, m: 3 * n * (n + m + 1),
    "janet": lambda n, m: 2 * n * (n + m + 1),
    "minimal_rnn": lambda n, m: n * (m + 1) + n * (2 * n + 1),
    "slstm": lambda n, m: 4 * n * (m + 1) + 4 * n * n / 4,
    "mingru": lambda n, m: 2 * n * (m + 1),
    "minlstm": lambda n, m: 3 * n * (m + 1),
    "indrnn": lambda n, m: n * (m + 2),
    "lru": lambda n, m: 3 * n + 2 * m * n + 2 * n * n + m * n,
}
HEADS = 4  # of the sLSTM, which divide its units


@pytest.mark.parametrize("network", WEIGHTS)
def test_the_recurrent_layers_have_closest_to_2000_weights(composed: Compose, network: str) -> None:
    count, step = WEIGHTS[network], HEADS if network == "slstm" else 1
    for task, inputs in {"copying": 10, "adding": 2}.items():
        choices = (f"+network={network}", f"task={task}")
        config = composed("+experiment=who_forgets_how", *choices, "task.test_size=1")
        initialiser, bias = partial(draw_matrix, config.init), partial(build, config.bias)
        parts = (config.model, initialiser, bias, inputs, 9, jax.random.key(0))
        built: Any = nnx.eval_shape(partial(build_network, *parts))
        leaves = jax.tree.leaves(nnx.state(built.cell, nnx.Param))
        units, weights = config.model.hidden_size, sum(x.size for x in leaves)
        assert weights == count(units, inputs) == who_forgets_how.recurrent_weights(asdict(config))
        others = [abs(count(units + change, inputs) - 2000) for change in (-step, step)]
        assert abs(weights - 2000) <= min(others)


def write_training(folder: Path, network: str, seed: int, rate: float, loss: float) -> None:
    """Write a point whose worst case decays at `rate`, half of it after training, typical twice."""
    gradients = geometric(8, rates=(rate, rate / 2))
    typical = geometric(8, rates=(2 * rate, rate))["jacobian_log_norm"]
    gradients = gradients.assign(jacobian_rms_log_norm=typical)
    metrics = pd.DataFrame({"train/step": [0, 100], "eval/loss": [1.0, loss]})
    for section, factor in (("jacobian", 1), ("jacobian_rms", 2)):
        rates = factor * np.array([rate, rate / 2])
        metrics[f"{section}/decay_rate"] = rates
        metrics[f"{section}/horizon"] = np.where(-8 * rates > 1, -1 / rates, np.inf)
        metrics[f"{section}/zero_share"] = 0.0
    config = {
        "model": {
            "name": network,
            "hidden_size": 5,
            "cell": {"_target_": "gradlab.cells.MinGRU", "log_space": True},
        },
        "task": {"_target_": "gradlab.tasks.adding.adding", "length": 8, "test_size": 1},
        "seed": seed,
    }
    status: dict[str, Any] = {
        "state": "done",
        "summary": {"eval/loss": loss, "eval/baseline": 0.5},
    }
    choices = {"network": network, "model": network, "experiment": "who_forgets_how"}
    (folder / ".hydra").mkdir(parents=True)
    hydra = {"hydra": {"runtime": {"choices": choices}}}
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
    records.save_config(folder, config, status)
    records.save_metrics(folder, metrics, status)
    records.save_gradients(folder, gradients, status)


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    for seed, rate in enumerate((-0.2, -0.4)):
        write_training(tmp_path / f"{seed}", "mingru", seed, rate, 0.25 + 0.1 * seed)
    rows = {"_target_": "gradlab.studies.who_forgets_how.rows"}
    return results.collect(tmp_path, {}, rows)


def test_rows_are_the_norms_over_the_lag(table: pd.DataFrame) -> None:
    lags = table[(table["part"] == "lag") & (table["seed"] == 1)]
    before, after = (lags[lags["when"] == when].sort_values("lag") for when in ("before", "after"))
    np.testing.assert_allclose(before["worst"], -0.4 * np.arange(9), rtol=1e-5)
    np.testing.assert_allclose(before["typical"], -0.8 * np.arange(9), rtol=1e-5)
    np.testing.assert_allclose(after["worst"], -0.2 * np.arange(9), rtol=1e-5)
    deviations = table[table["part"] == "identity"]["deviation"]
    assert len(deviations) == 2
    assert deviations.max() < 1e-5


def test_the_summary_has_means_with_their_intervals(table: pd.DataFrame) -> None:
    (row,) = who_forgets_how.summary(table).to_dict("records")
    assert (row["cell"], row["task"], row["units"]) == ("minGRU", "adding", 5)
    assert row["weights"] == 2 * 5 * 3
    assert row["seeds"] == row["trained"] == 2
    assert row["rate_worst_before"] == pytest.approx(-0.3)
    assert row["rate_typical_after"] == pytest.approx(-0.3)
    assert row["rate_worst_before_low"] == pytest.approx(-0.3 - 12.7062 * 0.1, rel=1e-4)  # t of 1
    assert row["horizon_worst_before"] == pytest.approx((5 + 2.5) / 2)
    assert row["horizon_worst_after"] == np.inf  # of 5 steps and of more than 8
    assert row["loss"] == pytest.approx(0.6)


def test_lines_are_geometric_means_in_decades(table: pd.DataFrame) -> None:
    figure = who_forgets_how.figure(table)
    (panel,) = (axes for axes in figure.axes if axes.get_title() == "minGRU")
    drawn = {
        (line.get_color(), line.get_linestyle() == "-"): line.get_ydata()
        for line in panel.get_lines()
        if len(line.get_ydata()) == 9
    }
    colours = who_forgets_how.COLOURS
    decades = np.arange(9) / np.log(10)
    np.testing.assert_allclose(drawn[colours["before"], True], -0.3 * decades, atol=1e-6)
    np.testing.assert_allclose(drawn[colours["before"], False], -0.6 * decades, atol=1e-6)
    np.testing.assert_allclose(drawn[colours["adding"], True], -0.15 * decades, atol=1e-6)


def test_the_bundled_table_is_that_of_the_bundled_results() -> None:
    folder = ROOT / "experiments" / "who_forgets_how"
    rows, _ = results.load_results(load_study(ROOT, "who_forgets_how"), "small", folder)
    bundled = pd.read_csv(folder / "networks.csv")
    expected = who_forgets_how.summary(rows)
    assert list(bundled) == list(expected)
    for column in expected:
        if expected[column].dtype.kind == "f":
            np.testing.assert_allclose(bundled[column], expected[column], rtol=1e-3, atol=1e-12)
        else:
            assert list(bundled[column]) == list(expected[column])
