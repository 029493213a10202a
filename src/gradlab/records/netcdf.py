"""The file gradients.nc: written as xarray does, in less time, and what of it lies elsewhere.

xarray takes 20 ms to write the smallest file, which is much of what a short point costs.
"""

import io
from functools import lru_cache, partial
from pathlib import Path

import h5py
import xarray as xr

SMALL = 2**22  # bytes of a dataset that xarray's time matters to, at most


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
