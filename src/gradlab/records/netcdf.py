"""The file gradients.nc: written and read as xarray does, in less time, and what lies elsewhere.

xarray takes 20 ms to write or to read the smallest file, which is much of what a short point costs.
"""

import io
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

SMALL = 2**22  # bytes of a dataset that xarray's time matters to, at most
UNNAMED = b"This is a netCDF dimension but not a netCDF variable"  # an axis without coordinates
OF_THE_FORMAT = {  # attributes by which netCDF-4 keeps axes in HDF5
    "CLASS",
    "NAME",
    "REFERENCE_LIST",
    "DIMENSION_LIST",
    "_Netcdf4Dimid",
    "_Netcdf4Coordinates",
    "_NCProperties",
}


class Layout:
    """A dataset but for its values; equal to that of the same names, axes, types and attributes."""

    def __init__(self, dataset: xr.Dataset) -> None:
        """Take the dataset whose layout it is."""
        self.dataset = dataset
        parts = [(name, x.dims, x.shape, x.dtype, x.attrs) for name, x in dataset.variables.items()]
        self._key = repr((parts, [*dataset.coords], dataset.attrs))

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
    """Return the dataset in a file, as `xarray.load_dataset` does.

    Raises:
        OSError: it is no HDF5 file.
    """
    with h5py.File(path, "r") as file:
        variables = {
            name: _encoded(data)
            for name, data in file.items()
            if not data.attrs.get("NAME", b"").startswith(UNNAMED)
        }
        attributes = _attributes(file)
    encoded = [x for x in variables.values() if x is not None]
    if len(encoded) < len(variables) or not _are_plain(attributes, *(x.attrs for x in encoded)):
        return xr.load_dataset(path, engine="h5netcdf")
    return xr.decode_cf(xr.Dataset(variables, attrs=attributes)).load()


def _encoded(data: Any) -> xr.Variable | None:
    """Return a variable as it lies in the file, if it is numbers, each of whose axes has a name."""
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "iuf":
        return None
    scales = [data] if data.is_scale else [axis[0] for axis in data.dims if len(axis) == 1]
    if len(scales) != data.ndim or data.name.startswith("/_nc4_"):
        return None
    axes = [scale.name.removeprefix("/") for scale in scales]
    return xr.Variable(axes, data[...], _attributes(data))


def _attributes(entry: Any) -> dict[str, Any]:
    """Return the attributes of an entry; single numbers, which lie there as lists, as numbers."""
    found = {key: entry.attrs[key] for key in entry.attrs if key not in OF_THE_FORMAT}
    return {key: x[0] if np.shape(x) == (1,) else x for key, x in found.items()}


def _are_plain(*attributes: Mapping[str, Any]) -> bool:
    """Return whether attributes are texts and single numbers."""
    return all(isinstance(x, str | np.number) for each in attributes for x in each.values())


def foreign_entry(path: Path) -> str:
    """Return the name of an entry whose numbers lie in another file, which HDF5 would open.

    Returns:
        The first; "" if there is none.

    Raises:
        OSError: it is no HDF5 file.
    """
    with h5py.File(path, "r") as file:
        return next(filter(None, map(partial(_foreign, file), file)), "")


def _foreign(file: h5py.File, name: str) -> str:
    """Return the name of an entry whose numbers lie in another file; "" if they do not."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return name
    data = file[name]
    lies_elsewhere = isinstance(data, h5py.Dataset) and (data.external or data.is_virtual)
    return name if lies_elsewhere else ""
