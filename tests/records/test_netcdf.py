"""Files whose layout was written before hold what xarray would have, and are read as by xarray."""

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
OTHERS = {  # which xarray encodes in ways of its own
    "texts": MAPS.assign_coords(unit=["a", "b", "c"]),
    "another axis": MAPS.assign_coords(lag=("k", [0.0, 1.0])),
    "booleans": MAPS.assign(dead=("unit", [True, False, True])),
    "times": MAPS.assign(spent=("unit", [1.0, 2.0, 3.0], {"units": "seconds"})),
    "numbers as attributes": MAPS.assign_attrs(version=2).assign(x=("k", [1.0, 2.0], {"n": 3})),
}


@pytest.mark.parametrize("name", ["plain", *OTHERS])
def test_a_file_of_a_known_layout_has_its_own_numbers(name: str, tmp_path: Path) -> None:
    first = MAPS if name == "plain" else OTHERS[name]
    second = first.assign(
        jacobian_log_norm=first["jacobian_log_norm"] * 3 - np.inf * (first["t"] < first["k"]),
        step=first["step"] + 7,
        count=first["count"] + 1,
    )
    for key, variable in first.variables.items():
        second[key].attrs = variable.attrs
    other = second.assign(count=second["count"].astype(np.int64))
    for dataset in (first, second, other, first.isel(t=[0]), first):
        ours, theirs = tmp_path / "ours.nc", tmp_path / "theirs.nc"
        ours.write_bytes(netcdf.content(dataset))
        dataset.to_netcdf(theirs, engine="h5netcdf")
        with (
            xr.open_dataset(ours, engine="h5netcdf") as found,
            xr.open_dataset(theirs, engine="h5netcdf") as expected,
        ):
            xr.testing.assert_identical(found.load(), expected.load())
        for path in (ours, theirs):
            xr.testing.assert_identical(netcdf.read(path), expected)
