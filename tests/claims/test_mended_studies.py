"""Tables of studies that other tests do not compute: trajectories, spectra, cell states."""

from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from gradlab.studies import forget_gate, order_chaos


def test_two_trajectories_of_one_network_share_its_weights() -> None:
    weights, first, second = order_chaos._keys(3, 3)
    one, other = (order_chaos._network(weights, key, 1.5, 0.1, 8, 4) for key in (first, second))
    np.testing.assert_array_equal(one.coupling, other.coupling)
    assert not np.allclose(one.start, other.start)
    assert not np.allclose(one.noise, other.noise)
    np.testing.assert_allclose(np.std(one.noise), np.sqrt(0.1), rtol=0.5)
    # A step of the cell is one of x⁽ᵗ⁺¹⁾ = J tanh(x⁽ᵗ⁾) + ξ, of h = tanh(x).
    h, _ = one.cell(jax.numpy.tanh(one.start), one.noise[0])
    expected = np.tanh(np.asarray(one.coupling) @ np.tanh(one.start) + one.noise[0])
    np.testing.assert_allclose(h, expected, rtol=1e-5)


def test_every_size_has_as_many_units_of_spectra() -> None:
    table = order_chaos.measure(
        cases=[(1.5, 0.0)],
        sizes=[4],
        steps=3,
        map_cases=[(1.5, 0.0)],
        map_size=4,
        map_length=3,
        spectrum_gain=2.0,
        spectrum_sizes=[4, 8],
        spectrum_steps=3,
        spectrum_share=0.5,
        seeds=[0],
        map_seeds=[0],
        spectrum_seeds=[0, 1],
    )
    spectra = table[table["part"] == "spectrum"]
    assert spectra.groupby(["n", "seed"])["network"].nunique().to_dict() == {
        (4, 0): 2,
        (4, 1): 2,
        (8, 0): 1,
        (8, 1): 1,
    }
    assert spectra.groupby("n")["rate"].nunique().to_dict() == {4: 8, 8: 8}  # all drawn apart


def test_cell_states_of_one_seed_stand_below_the_training_curves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.arange(2 * 1 * 3 * 4, dtype=float).reshape(2, 1, 3, 4)
    coordinates: dict[str, Any] = {"t": [5, 10, 15, 20]}
    states = xr.DataArray(values, dims=("step", "sample", "unit_c", "t"), coords=coordinates)
    monkeypatch.setattr(
        forget_gate.records, "load_gradients", lambda path: xr.Dataset({"traces_c": states})
    )
    curves = pd.DataFrame({"point": [0, 1], "step": 7, "quantity": "eval/accuracy", "value": 0.5})
    monkeypatch.setattr(forget_gate, "training_table", lambda runs: curves)
    runs = pd.DataFrame({"seed": [0, 1], "path": ["a", "b"]})
    table = forget_gate.table(runs)
    traced = table[table["quantity"] == "cell state"]
    assert set(traced["point"]) == {0}
    assert len(table) == 2 + 12
    second = traced[traced["unit"] == 1]
    np.testing.assert_array_equal(second["step"], [5, 10, 15, 20])
    np.testing.assert_array_equal(second["value"], values[-1, 0, 1])
