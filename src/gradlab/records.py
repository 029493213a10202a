"""The disk layout of a sweep: what a point's folder holds, written whole or not at all.

A sweep's folder holds one folder a point:

    .hydra/           the point's resolved config, as Hydra writes it
    status.json       state (running, done, diverged, failed), reason, timings, versions, device,
                      and the summary metrics under their W&B names
    metrics.parquet   one row a logged training step
    gradients.nc      the Jacobian maps, dims (step, sample, t, k)
    jacobian_map.png  a picture of them
    table.parquet     instead of these three, what a direct measurement returned
    wandb/            the point's W&B run (a link into the sweep's wandb/ folder)

Every file is written to a temporary name and renamed, so a file that is there is whole.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from omegaconf import OmegaConf

CONFIG = Path(".hydra") / "config.yaml"
STATUS = "status.json"
METRICS = "metrics.parquet"
GRADIENTS = "gradients.nc"
PICTURE = "jacobian_map.png"
TABLE = "table.parquet"


def load_runs(folder: str | Path) -> pd.DataFrame:
    """Read every point below a folder.

    Args:
        folder: a sweep's folder, or any folder above several of them, or one point's.

    Returns:
        One row a point, in the order of the folders' numbers: the config flattened with dots
        (`init.gain`), the summary metrics under their W&B names (`jacobian/decay_rate`),
        `verdict`, `status`, `reason` and `path`.

    Raises:
        FileNotFoundError: there is no such folder, or no point below it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}; give one that a sweep wrote.")
    points = sorted((path.parent for path in folder.rglob(STATUS)), key=_natural_order)
    if not points:
        raise FileNotFoundError(
            f"no point was found below {str(folder)!r}: give a folder that a sweep wrote, such as "
            "those in runs/."
        )
    return pd.DataFrame([_row(point) for point in points])


def load_gradients(run_folder: str | Path) -> xr.Dataset:
    """Read the gradient maps of one point.

    Returns:
        A Dataset with dims (step, sample, t, k): `step` is the training step of the measurement,
        `t` and `k` count from 0. Each variable's attributes name its units, norm, of and wrt.

    Raises:
        FileNotFoundError: the point has none (it failed, or its probes were off).
    """
    path = Path(run_folder) / GRADIENTS
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(run_folder)!r} holds no {GRADIENTS}: the point failed or its probe was off."
        )
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        return dataset.load()


def load_status(run_folder: str | Path) -> dict[str, Any]:
    """Read what one point's status.json says."""
    status: dict[str, Any] = json.loads((Path(run_folder) / STATUS).read_text())
    return status


def load_metrics(run_folder: str | Path) -> pd.DataFrame:
    """Read one point's metrics, one row a logged step, columns by their W&B names."""
    return pd.read_parquet(Path(run_folder) / METRICS)


def save_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the resolved config where Hydra's own launchers leave it."""
    _write(folder / CONFIG, lambda path: OmegaConf.save(OmegaConf.create(dict(config)), path))


def save_status(folder: Path, status: Mapping[str, Any]) -> None:
    """Write status.json, replacing the one before."""
    text = json.dumps(dict(status), indent=2)
    _write(folder / STATUS, lambda path: path.write_text(text))


def save_metrics(folder: Path, metrics: pd.DataFrame) -> None:
    """Write metrics.parquet."""
    _write(folder / METRICS, lambda path: metrics.to_parquet(path, index=False))


def save_table(folder: Path, table: pd.DataFrame) -> None:
    """Write table.parquet."""
    _write(folder / TABLE, lambda path: table.to_parquet(path, index=False))


def save_gradients(folder: Path, gradients: xr.Dataset) -> None:
    """Write gradients.nc, compressed."""
    encoding = {name: {"zlib": True, "complevel": 4} for name in gradients.data_vars}
    _write(
        folder / GRADIENTS,
        lambda path: gradients.to_netcdf(path, engine="h5netcdf", encoding=encoding),
    )


def _write(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _row(point: Path) -> dict[str, Any]:
    status = load_status(point)
    config = OmegaConf.to_container(OmegaConf.load(point / CONFIG), resolve=True)
    return {
        **_flatten(config),
        **status.get("summary", {}),
        "status": status["state"],
        "reason": status.get("reason", ""),
        "path": str(point),
    }


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, child in node.items():
        flat |= _flatten(child, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _natural_order(path: Path) -> tuple[Path, int, str]:
    number = int(path.name) if path.name.isdigit() else -1
    return path.parent, number, path.name
