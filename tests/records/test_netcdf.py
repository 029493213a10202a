"""Reading gradients.nc without xarray's reader gives what xarray's gives."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from gradlab.records import netcdf

MAPS = xr.Dataset(
    {
        "jacobian_log_norm": (
            ("step", "sample", "t", "k"),
            np.log(np.arange(1, 17, dtype=np.float32)).reshape(2, 2, 2, 2),
            {"units": "nats", "long_name": "ln ‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖", "of": "h"},
        ),
        "lyapunov_exponents": (("step", "unit"), np.array([[0.5, np.nan, -np.inf]] * 2)),
        "count": ((), np.int32(3)),
    },
    {"step": ("step", [0, 100], {"units": "updates"}), "t": [0, 4], "k": [0, 4]},
)
DECODED = {  # by xarray, in ways of its own
    "texts": MAPS.assign_coords(unit=["a", "b", "c"]),
    "another axis": MAPS.assign_coords(lag=("k", [0.0, 1.0])),
    "booleans": MAPS.assign(dead=("unit", [True, False, True])),
    "times": MAPS.assign(spent=("unit", [1.0, 2.0, 3.0], {"units": "seconds"})),
    "numbers as attributes": MAPS.assign_attrs(version=2).assign(x=("k", [1.0, 2.0], {"n": 3})),
}


@pytest.mark.parametrize("name", ["plain", *DECODED])
def test_it_reads_what_xarray_reads(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gradients.nc"
    dataset = MAPS if name == "plain" else DECODED[name]
    encoding = {variable: {"zlib": dataset[variable].ndim > 0} for variable in dataset.data_vars}
    dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    with xr.open_dataset(path, engine="h5netcdf") as opened:
        expected = opened.load()
    if name == "plain":
        monkeypatch.setattr(xr, "open_dataset", None)  # it is not needed
    xr.testing.assert_identical(netcdf.read(path), expected)
    assert [*netcdf.read(path)] == [*expected]
