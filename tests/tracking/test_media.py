"""What a map becomes in somebody's own W&B run."""

import numpy as np
import pytest
import xarray as xr
from synthetic_sweeps import geometric

import gradlab

MAPS = geometric(8, (-0.5, -0.1), stride=2)["jacobian_log_norm"]


def test_a_plain_map_is_a_picture_a_table_and_a_curve() -> None:
    media = gradlab.map_media(MAPS.isel(step=0).to_numpy(), name="mine")
    assert set(media) == {"mine/map", "mine/map_cells", "mine/decay_curves"}
    table = media["mine/map_cells"]
    assert table.columns == ["step", "t", "k", "log_norm"]
    rows = np.array(table.data)
    assert len(rows) == 15  # pairs k ≤ t of five times
    np.testing.assert_allclose(rows[:, 3], -1.0 * (rows[:, 1] - rows[:, 2]), atol=1e-6)
    curve = {tuple(row[:2]): row[2] for row in media["mine/decay_curves"].table.data}
    assert {key for _, key in curve} == {"mean"}
    decades = -np.arange(5) / np.log(10)
    assert [curve[lag, "mean"] for lag in range(5)] == pytest.approx(decades)


def test_maps_over_training_have_their_steps() -> None:
    media = gradlab.map_media(MAPS)
    rows = np.array(media["jacobian/map_cells"].data)
    assert set(rows[:, 0]) == {0, 100}
    assert set(rows[:, 1]) == {0, 2, 4, 6, 8}
    keys = {row[1] for row in media["jacobian/decay_curves"].table.data}
    assert keys == {"after 0 updates", "after 100 updates"}
    one, two = (gradlab.map_media(x)["jacobian/map"].image.size[0] for x in (MAPS[:1], MAPS))
    assert two > one + 200  # panels side by side


def test_a_table_of_a_long_map_has_its_farthest_pair() -> None:
    maps = np.where(np.tri(65, dtype=bool), 0.0, -np.inf)
    pairs = {tuple(row[1:3]) for row in gradlab.map_table(maps).data}
    assert pairs == {(t, k) for t in range(0, 65, 2) for k in range(0, t + 1, 2)}


def test_a_table_leaves_out_what_is_zero_or_was_not_measured() -> None:
    maps = MAPS.isel(step=[0]).copy()
    maps[..., 4, 0], maps[..., 4, 1] = -np.inf, np.nan
    pairs = {tuple(row[1:3]) for row in gradlab.map_table(maps).data}
    assert len(pairs) == 13
    assert not pairs & {(8, 0), (8, 2)}


def test_what_is_no_map_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        gradlab.map_media(xr.DataArray(np.zeros((2, 3))))


def test_the_curves_are_called_by_what_was_measured() -> None:
    named = MAPS.assign_attrs(long_name="log spectral norm of ∂c⁽ᵗ⁾/∂c⁽ᵏ⁾")
    titles = [
        gradlab.map_media(maps)["jacobian/decay_curves"].spec.string_fields["title"]
        for maps in (named, MAPS.isel(step=0).to_numpy())
    ]
    assert titles == [
        "Mean log spectral norm of ∂c⁽ᵗ⁾/∂c⁽ᵏ⁾ (decades)",
        "Mean log norm (decades)",
    ]
