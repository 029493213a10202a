"""The disk layout of a sweep, and the functions that read and write its files.

A sweep's folder has one folder per point, at any depth below it, which holds

    .hydra/           the point's resolved config and its overrides, in Hydra's format
    status.json       state (running, done, diverged, failed, interrupted), reason, timings,
                      versions, device, and the summary metrics under their W&B names; JSON has
                      no non-finite numbers, so they are the strings "inf", "-inf" and "nan"
    metrics.parquet   one row per training step that was logged or measured
    gradients.nc      the Jacobian maps, dims (step, sample, t, k)
    checkpoints/STEP  the newest training state (Orbax)
    table.parquet     the table of a direct measurement, which has none of the three above
    wandb/            the point's W&B run (a link into the sweep's wandb/ folder)

and, beside the points' folders,

    sweep.json        the sweep's id and the list of all points, written before the first one starts
    .lock             locked by the process that runs the sweep
    multirun.yaml     Hydra's own config of the sweep
    wandb/            the W&B runs of all points
    overview.png      the sweep's figure, drawn at its end
    slurm/            submitit's scripts and logs, if the points ran as jobs of SLURM

Every file gets a temporary name first and is then renamed (`files.write_whole`), so that none is
ever half written.
"""

import hashlib
import json
import math
import secrets
import shutil
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from omegaconf import OmegaConf

from gradlab.records.files import write_whole

CONFIG = Path(".hydra") / "config.yaml"
OVERRIDES = Path(".hydra") / "overrides.yaml"
HYDRA = Path(".hydra") / "hydra.yaml"
STATUS = "status.json"
METRICS = "metrics.parquet"
GRADIENTS = "gradients.nc"
CHECKPOINTS = "checkpoints"
TABLE = "table.parquet"
WANDB = "wandb"
SWEEP = "sweep.json"
LOCK = ".lock"
MULTIRUN = "multirun.yaml"
OVERVIEW = "overview.png"
SLURM_LOGS = "slurm"
NONFINITE = ("inf", "-inf", "nan")  # how status.json spells them
# The columns of `load_runs` that are neither config nor logged metrics.
NOT_CONFIG = ("verdict", "status", "reason", "path")


def sweep_folder(point: Path) -> Path:
    """Return the folder of a point's sweep: the nearest above it that records one, else the next.

    (With hydra.sweep.subdir=A/B the points lie deeper than one folder below their sweep's.)
    """
    above = point.parents
    recorded = (f for f in above if (f / SWEEP).exists() or (f / MULTIRUN).exists())
    return next(recorded, point.parent)


def load_gradients(run_folder: str | Path) -> xr.Dataset:
    """Read the gradient maps of one point.

    Args:
        run_folder: the point's folder: `path` in a row of `load_runs`.

    Returns:
        A Dataset with dims (step, sample, t, k): `step` is the training step of the measurement,
        `t` and `k` count from 0. Each variable's attributes name its units, norm, of and wrt.

    Raises:
        FileNotFoundError: the point has no maps (it failed, or its probes were off).

    Example:
        >>> gradients = gradlab.load_gradients(runs["path"][0])
        >>> gradients["jacobian_log_norm"].mean("sample")
    """
    path = Path(run_folder) / GRADIENTS
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(run_folder)!r} holds no {GRADIENTS}: the point failed or its probe was off."
        )
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        return dataset.load()


def load_metrics(run_folder: str | Path) -> pd.DataFrame:
    """Read one point's metrics: one row per logged step, one column per W&B name."""
    return pd.read_parquet(Path(run_folder) / METRICS)


def load_choices(run_folder: str | Path) -> dict[str, str]:
    """Return the option chosen for each config group, such as {"network": "irnn", "optim": "adam"}.

    Hydra records the choices of defaults, experiment files and the command alike; the groups of its
    own config (hydra/...) are left out.

    Raises:
        FileNotFoundError: the point's folder was copied without its hidden files.
    """
    path = Path(run_folder) / HYDRA
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: copy the folder with its hidden files.")
    record: Any = OmegaConf.load(path)
    choices: Any = OmegaConf.to_container(record.hydra.runtime.choices)
    return {group: option for group, option in choices.items() if "/" not in group}


def save_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the resolved config to the file that Hydra's own launchers write."""
    write_whole(folder / CONFIG, lambda path: OmegaConf.save(OmegaConf.create(dict(config)), path))


def save_status(folder: Path, status: Mapping[str, Any]) -> None:
    """Write or replace status.json, with a hash ("seal") by which `verify` detects later edits."""
    sealed = _nonfinite_as_text(dict(status) | {"seal": _seal(status)})
    text = json.dumps(sealed, indent=2, allow_nan=False)
    write_whole(folder / STATUS, lambda path: path.write_text(text, encoding="utf-8"))


def load_status(run_folder: str | Path) -> dict[str, Any]:
    """Read one point's status.json.

    Raises:
        FileNotFoundError: the point has not started, so the file does not exist.
        ValueError: the file is damaged.
    """
    path = Path(run_folder) / STATUS
    try:
        status: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        summary = status.get("summary", {})
        nonfinite = {name: float(value) for name, value in summary.items() if value in NONFINITE}
        status["state"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged") from error
    return status | ({"summary": summary | nonfinite} if summary else {})


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of a point's metrics and gradients files, by file name."""
    paths = (folder / METRICS, folder / GRADIENTS)
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()
    }


def verify(folder: Path, status: Mapping[str, Any]) -> None:
    """Check that the records of a point that has ended are as they were written.

    Raises:
        ValueError: a file is missing or was changed.
    """
    if status.get("seal") != _seal(status):
        raise ValueError(f"{folder / STATUS} was edited")
    current = digests(folder)
    for name, digest in status.get("files", {}).items():
        if current.get(name) != digest:
            raise ValueError(f"{folder / name} is {'damaged' if name in current else 'missing'}")


def delete_records(folder: Path) -> None:
    """Delete a point's results and checkpoints; its .hydra/ and its W&B run stay."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    for name in (METRICS, GRADIENTS, STATUS):
        (folder / name).unlink(missing_ok=True)


def save_sweep(folder: Path, points: Sequence[Mapping[str, Any]]) -> None:
    """Write or replace sweep.json; the sweep's id is drawn the first time, and stays."""
    sweep_id = sweep_id_of(folder) if (folder / SWEEP).exists() else secrets.token_hex(4)
    text = json.dumps(({"id": sweep_id} if sweep_id else {}) | {"points": points}, indent=1)
    write_whole(folder / SWEEP, lambda path: path.write_text(text, encoding="utf-8"))


def sweep_id_of(folder: Path) -> str:
    """Return the id that tells a sweep from others of its name and date; "" if it has none.

    It is random, since a command that is repeated elsewhere makes another sweep of equal content.
    """
    try:
        return _sweep_id(folder / SWEEP, (folder / SWEEP).stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError):  # of an earlier version, or another launcher
        return ""


@lru_cache(maxsize=8)  # every point asks for it, and the file grows with their number
def _sweep_id(path: Path, _changed: int) -> str:
    return str(json.loads(path.read_text(encoding="utf-8"))["id"])


def load_sweep(folder: Path) -> list[dict[str, Any]]:
    """Read sweep.json.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged.
    """
    try:
        points: list[dict[str, Any]] = json.loads((folder / SWEEP).read_text(encoding="utf-8"))[
            "points"
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / SWEEP} is damaged") from error
    return points


def save_metrics(folder: Path, metrics: pd.DataFrame) -> None:
    """Write metrics.parquet."""
    write_whole(folder / METRICS, lambda path: metrics.to_parquet(path, index=False))


def save_table(folder: Path, table: pd.DataFrame) -> None:
    """Write table.parquet."""
    write_whole(folder / TABLE, lambda path: table.to_parquet(path, index=False))


def save_gradients(folder: Path, gradients: xr.Dataset) -> None:
    """Write gradients.nc, compressed."""
    encoding = {name: {"zlib": True, "complevel": 4} for name in gradients.data_vars}
    write_whole(
        folder / GRADIENTS,
        lambda path: gradients.to_netcdf(path, engine="h5netcdf", encoding=encoding),
    )


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested sections as one dict, in their order, with keys joined by dots (`init.gain`).

    Empty sections are dropped. (`pandas.json_normalize` would move top-level values to the front.)
    """
    if not isinstance(node, dict):
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, child in node.items():
        flat |= flatten(child, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _nonfinite_as_text(node: Any) -> Any:
    """Return nested dicts with each non-finite number as a string, since JSON has none."""
    if isinstance(node, dict):
        return {name: _nonfinite_as_text(child) for name, child in node.items()}
    return str(node) if isinstance(node, float) and not math.isfinite(node) else node


def _seal(status: Mapping[str, Any]) -> str:
    content = _nonfinite_as_text({name: value for name, value in status.items() if name != "seal"})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
