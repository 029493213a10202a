"""The disk layout of a sweep: what a point's folder holds, written whole or not at all.

A sweep's folder holds one folder a point:

    .hydra/           the point's resolved config, and what was asked for, as Hydra writes them
    status.json       state (running, done, diverged, failed, interrupted), reason, timings,
                      versions, device, and the summary metrics under their W&B names; numbers
                      that JSON has no word for are the texts "inf", "-inf" and "nan"
    metrics.parquet   one row a logged or measured training step
    gradients.nc      the Jacobian maps, dims (step, sample, t, k)
    checkpoints/STEP  the newest training state (Orbax)
    table.parquet     instead of these three, what a direct measurement returned
    wandb/            the point's W&B run (a link into the sweep's wandb/ folder)

and beside them

    sweep.json        every point that the sweep is made of, written before the first begins
    .lock             held by the process that runs the sweep

Every file is written to a temporary name and renamed, so a file that is there is whole.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from omegaconf import OmegaConf

CONFIG = Path(".hydra") / "config.yaml"
HYDRA = Path(".hydra") / "hydra.yaml"
STATUS = "status.json"
METRICS = "metrics.parquet"
GRADIENTS = "gradients.nc"
CHECKPOINTS = "checkpoints"
SWEEP = "sweep.json"
LOCK = ".lock"
WORDS = ("inf", "-inf", "nan")


class RecordError(OSError):
    """A file that could not be written: one sentence that says which, why, and what to do."""


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


def load_metrics(run_folder: str | Path) -> pd.DataFrame:
    """Read one point's metrics, one row a logged step, columns by their W&B names."""
    return pd.read_parquet(Path(run_folder) / METRICS)


def load_choices(run_folder: str | Path) -> dict[str, str]:
    """Return the option chosen for each config group, such as {"network": "irnn", "optim": "adam"}.

    Hydra records the choices of defaults, experiment files and the command alike; the groups of its
    own config (hydra/...) are left out.
    """
    record: Any = OmegaConf.load(Path(run_folder) / HYDRA)
    choices: Any = OmegaConf.to_container(record.hydra.runtime.choices)
    return {group: option for group, option in choices.items() if "/" not in group}


def save_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the resolved config where Hydra's own launchers leave it."""
    _write(folder / CONFIG, lambda path: OmegaConf.save(OmegaConf.create(dict(config)), path))


def save_status(folder: Path, status: Mapping[str, Any]) -> None:
    """Write status.json, replacing the one before, under a seal that shows later edits."""
    sealed = _worded(dict(status) | {"seal": _seal(status)})
    text = json.dumps(sealed, indent=2, allow_nan=False)
    _write(folder / STATUS, lambda path: path.write_text(text))


def load_status(run_folder: str | Path) -> dict[str, Any]:
    """Read one point's status.json.

    Raises:
        FileNotFoundError: there is none: the point has not begun.
        ValueError: it is damaged.
    """
    path = Path(run_folder) / STATUS
    try:
        status: dict[str, Any] = json.loads(path.read_text())
        summary = status.get("summary", {})
        words = {name: float(value) for name, value in summary.items() if value in WORDS}
        status["state"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged") from error
    return status | ({"summary": summary | words} if summary else {})


def digests(folder: Path) -> dict[str, str]:
    """A hash of each file that a point's results are read from."""
    paths = (folder / METRICS, folder / GRADIENTS)
    return {x.name: hashlib.sha256(x.read_bytes()).hexdigest() for x in paths if x.is_file()}


def verify(folder: Path, status: Mapping[str, Any]) -> None:
    """Check the records of a point that has ended.

    Raises:
        ValueError: one is missing, or is not as it was written.
    """
    if status.get("seal") != _seal(status):
        raise ValueError(f"{folder / STATUS} was edited")
    found = digests(folder)
    for name, digest in status.get("files", {}).items():
        if found.get(name) != digest:
            raise ValueError(f"{folder / name} is {'damaged' if name in found else 'missing'}")


def forget(folder: Path) -> None:
    """Remove what a point has left, so that it starts anew; its .hydra/ and W&B run stay."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    for name in (METRICS, GRADIENTS, STATUS):
        (folder / name).unlink(missing_ok=True)


def save_sweep(folder: Path, points: Sequence[Mapping[str, Any]]) -> None:
    """Write sweep.json, replacing the one before."""
    text = json.dumps({"points": points}, indent=1)
    _write(folder / SWEEP, lambda path: path.write_text(text))


def load_sweep(folder: Path) -> list[dict[str, Any]]:
    """Read sweep.json.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    try:
        points: list[dict[str, Any]] = json.loads((folder / SWEEP).read_text())["points"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / SWEEP} is damaged") from error
    return points


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


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested sections as one level, keys joined with dots (`init.gain`)."""
    if not isinstance(node, dict):
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, child in node.items():
        flat |= flatten(child, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _write(path: Path, write: Callable[[Path], object]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(
            f"{path} could not be written: {error.strerror or error}; what was there before is "
            "whole. Make room, or choose another folder with hydra.sweep.dir=FOLDER."
        ) from error


def _worded(node: Any) -> Any:
    """Numbers that JSON has no word for, as texts."""
    if isinstance(node, dict):
        return {name: _worded(child) for name, child in node.items()}
    return str(node) if isinstance(node, float) and not math.isfinite(node) else node


def _seal(status: Mapping[str, Any]) -> str:
    content = _worded({name: value for name, value in status.items() if name != "seal"})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _row(point: Path) -> dict[str, Any]:
    status = load_status(point)
    config = OmegaConf.to_container(OmegaConf.load(point / CONFIG), resolve=True)
    return {
        **flatten(config),
        **status.get("summary", {}),
        "status": status["state"],
        "reason": status.get("reason", ""),
        "path": str(point),
    }


def _natural_order(path: Path) -> tuple[Path, int, str]:
    number = int(path.name) if path.name.isdigit() else -1
    return path.parent, number, path.name
