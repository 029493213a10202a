"""Reading and writing gradients.nc as xarray does, in less time where it holds plain numbers.

xarray takes 20 ms for the smallest file, which is much of what a short point costs, and most of a
table or figure of hundreds of points.
"""

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

HDF5_OWN = ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME")  # how axes have their lengths
NETCDF4_OWN = ("_Netcdf4Dimid", "_Netcdf4Coordinates")
NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"  # as netCDF-4 names a length
DECODED = ("scale_factor", "add_offset", "missing_value", "coordinates", "dtype", "calendar")
SMALL = 2**22  # bytes of a dataset that xarray's time matters to, at most


class Layout:
    """A dataset but for its values; equal to that of the same names, axes, types and attributes."""

    def __init__(self, dataset: xr.Dataset) -> None:
        """Take the dataset whose layout it is."""
        self.dataset = dataset
        parts = [(name, x.dims, x.shape, x.dtype, x.attrs) for name, x in dataset.variables.items()]
        self._key = repr((parts, dataset.attrs))

    def __eq__(self, other: object) -> bool:
        """Return whether files of both differ in their numbers only."""
        return isinstance(other, Layout) and self._key == other._key

    def __hash__(self) -> int:
        """Return the hash of what makes layouts equal."""
        return hash(self._key)


def content(dataset: xr.Dataset) -> bytes:
    """Return the content of a netCDF-4 file, its data compressed.

    It is made in memory, since HDF5 crashes where the disk is full. Points of a sweep have one
    layout, which xarray writes once; the numbers are then put into a copy.
    """
    is_plain = all(x.dtype.kind in "iuf" for x in dataset.variables.values())
    if not is_plain or dataset.nbytes > SMALL:
        return _written(dataset)
    file = io.BytesIO(_empty(Layout(dataset)))
    with h5py.File(file, "r+") as opened:
        for name, variable in dataset.variables.items():
            opened[str(name)][...] = variable.to_numpy()
    return file.getvalue()


@lru_cache(maxsize=8)
def _empty(layout: Layout) -> bytes:
    """Return the file of a layout with zeros, which take no room beside the numbers to come."""
    return _written(xr.zeros_like(layout.dataset))


def _written(dataset: xr.Dataset) -> bytes:
    file, encoding = io.BytesIO(), {"zlib": True, "complevel": 4}
    dataset.to_netcdf(file, engine="h5netcdf", encoding=dict.fromkeys(dataset.data_vars, encoding))
    return file.getvalue()


def read(path: Path) -> xr.Dataset:
    """Return a netCDF-4 file's content, loaded.

    Raises:
        Exception: whatever h5py and xarray raise on a file that is none.
    """
    variables: dict[str, xr.Variable] = {}
    with h5py.File(path, "r") as file:
        is_plain = {*file.attrs} <= {"_NCProperties"} and all(
            _read_plain(name, entry, variables) for name, entry in file.items()
        )
    if is_plain:
        coords = {name: x for name, x in variables.items() if x.dims == (name,)}
        return xr.Dataset({name: x for name, x in variables.items() if name not in coords}, coords)
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        return dataset.load()


def _read_plain(name: str, entry: Any, variables: dict[str, xr.Variable]) -> bool:
    """Add an entry of a file to the variables, unless it is only the length of a dimension.

    Returns:
        Whether it could be read: not where xarray would decode it in a way of its own.
    """
    if not isinstance(entry, h5py.Dataset):
        return False
    is_scale = h5py.h5ds.is_scale(entry.id)
    if is_scale and bytes(entry.attrs["NAME"]).startswith(NO_VARIABLE):
        return True
    attributes = {key: x for key, x in entry.attrs.items() if key not in HDF5_OWN + NETCDF4_OWN}
    filled = np.asarray(attributes.pop("_FillValue", np.nan))
    texts = all(isinstance(x, str) for x in attributes.values())
    is_number = entry.dtype.kind in "iuf" and entry.dtype.isnative
    if not (is_number and texts and np.isnan(filled).all()):
        return False
    if _is_of_time(attributes.get("units", "")) or any(key in attributes for key in DECODED):
        return False
    dims = (name,) if is_scale else tuple(axis[0].name.lstrip("/") for axis in entry.dims)
    variables[name] = xr.Variable(dims, entry[()], attributes)
    return True


def _is_of_time(units: str) -> bool:
    return " since " in units or units.endswith(("days", "hours", "minutes", "seconds"))
