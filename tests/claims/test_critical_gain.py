"""Critical gains against matrices written out from the cells' equations, and against a long run."""

import numpy as np
import pandas as pd
import pytest

from gradlab.studies import critical_gain

SIZE = 12


@pytest.mark.parametrize(
    ("kind", "gate", "kept", "slope"),  # gate: the candidate's place among the recurrent weights
    [
        ("tanh", 0, 0.0, 1.0),
        ("GRU", 2, 0.5, 0.25),
        ("LSTM", 2, 0.5, 0.25),
        ("LSTM, forget bias 1", 2, 1 / (1 + np.exp(-1)), 0.25),
    ],
)
def test_the_eigenvalue_at_rest(kind: str, gate: int, kept: float, slope: float) -> None:
    cell = critical_gain._cell(critical_gain.KINDS[kind], SIZE, seed=0)
    weights = np.asarray(cell.dense_h.kernel[...], float)[:, gate * SIZE : (gate + 1) * SIZE]
    at_rest = kept * np.eye(SIZE) + slope * 1.3 * weights.T
    expected = np.log(np.abs(np.linalg.eigvals(at_rest)).max())
    measured = critical_gain.log_eigenvalue_at_rest(cell, 1.3)
    assert measured == pytest.approx(expected, abs=1e-5)
    assert critical_gain.KINDS[kind].critical == pytest.approx((1 - kept) / slope)


def test_networks_rest_below_and_not_above() -> None:
    table = critical_gain.measure([0.4, 2.5], SIZE, 400, [0])
    networks = table[table["part"] == "network"]
    below, above = (networks[networks["share"] == share] for share in (0.4, 2.5))
    assert below["rested"].tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(below["rate"], below["expected"], atol=0.01)
    assert above["rested"].tolist() == [0, 0, 0, 0]
    assert above["expected"].isna().all()
    assert table[table["part"] == "onset"]["onset"].tolist() == [1.45] * 4


def test_the_onset_is_between_the_last_rest_and_the_next_gain() -> None:
    shares = pd.Series([1.2, 0.9, 1.0, 1.1])
    assert critical_gain._onset(shares, pd.Series([0, 1, 1, 0])) == pytest.approx(1.05)
    assert np.isnan(critical_gain._onset(shares, pd.Series([1, 1, 1, 1])))
