"""Powers of Glorot's matrix against NumPy's products, and the onset of growth of known series."""

import numpy as np
import pytest

from gradlab.studies import glorot_radius


def test_norms_of_powers_are_those_of_products() -> None:
    weights = np.random.default_rng(0).uniform(-1, 1, (24, 24)).astype(np.float32) * 0.4
    measured = glorot_radius.power_log_norms(weights, 10)
    powers = [np.linalg.matrix_power(weights.astype(float), t) for t in range(11)]
    expected = [np.log(np.linalg.norm(power) / np.sqrt(24)) for power in powers]
    np.testing.assert_allclose(measured, expected, atol=1e-4)  # 64 vectors span all 24 directions


def test_the_onset_is_where_the_squared_norm_has_doubled() -> None:
    log_norms = 0.1 * np.arange(10) - 0.2
    onset = glorot_radius._onset(log_norms)
    assert np.exp(2 * (0.1 * onset - 0.2)) == pytest.approx(2)
    assert np.isnan(glorot_radius._onset(np.zeros(5)))


def test_the_table_of_a_few_small_matrices() -> None:
    table = glorot_radius.measure([8, 16], draws=6, blocks=2, roots=3)
    radius, power, onset = (table[table["part"] == p] for p in ("radius", "power", "onset"))
    assert len(radius) == 12
    assert len(onset) == 4
    assert power.groupby("n")["lag"].max().to_dict() == {8: 8, 16: 12}
    assert (power["log_norm"][power["lag"] == 0].abs() < 1e-6).all()
    shift = 12 * np.log(1 + 1 / 4)
    of_16 = radius[radius["n"] == 16]
    np.testing.assert_allclose(of_16["rescaled"], of_16["last"] - shift)
    with pytest.raises(ValueError, match="multiple of blocks"):
        glorot_radius.measure([8], draws=5, blocks=2, roots=3)
