"""A point's files: its config, status, rows and maps, sealed when written and checked when read."""

import contextlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
import xarray as xr
import yaml
from omegaconf.errors import OmegaConfBaseException

from gradlab.records import netcdf, yaml_text
from gradlab.records.files import read_text, write_whole
from gradlab.records.layout import (
    CHECKPOINTS,
    CONFIG,
    GRADIENTS,
    HYDRA,
    METRICS,
    NONFINITE,
    OVERRIDES,
    RESULTS,
    SEALED,
    STATUS,
    SWEEP,
    TABLE,
    TRACEBACK,
)
from gradlab.records.links import lies_inside
from gradlab.records.seals import ABSENT, check_file, digest, fitting, seal_of


def load_gradients(run_folder: str | Path) -> xr.Dataset:
    """Read the gradient maps of one point.

    Args:
        run_folder: the point's folder: `path` in a row of `load_runs`.

    Returns:
        A Dataset with dims (step, sample, t, k): `step` is the training step of the measurement,
        `t` and `k` count from 0. Each variable's attributes name its units, norm, of and wrt.

    Raises:
        FileNotFoundError: the point has no maps (it failed, or its probes were off).
        ValueError: the maps are not as they were written, or cannot be checked.

    Example:
        >>> gradients = gradlab.load_gradients(runs["path"].iloc[0])
        >>> gradients["step"].values.tolist()  # updates
        [0, 20]
        >>> gradients["jacobian_log_norm"].mean("sample").dims
        ('step', 't', 'k')
    """
    path = Path(run_folder) / GRADIENTS
    _check_is_point(Path(run_folder))
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(run_folder)!r} holds no {GRADIENTS}: the point failed or its probe was off."
        )
    check_point_file(Path(run_folder), GRADIENTS)
    with _readable(path):
        foreign = netcdf.foreign_entry(path)
    if foreign:
        raise ValueError(f"{path} takes {foreign} from another file: it is not read")
    with _readable(path):
        return netcdf.read(path)


def gradient_names(run_folder: str | Path) -> set[str]:
    """Return the names of what `load_gradients` reads, without reading it.

    Raises:
        ValueError: the file is damaged.
    """
    path = Path(run_folder) / GRADIENTS
    with _readable(path), h5py.File(path, "r") as file:
        return set(file)


def load_metrics(run_folder: str | Path) -> pd.DataFrame:
    """Read one point's metrics over training.

    Args:
        run_folder: the point's folder: `path` in a row of `load_runs`.

    Returns:
        One row per logged or measured step, in the order of `train/step` (updates), and one column
        per W&B name: losses (nats, or squared errors), `jacobian/decay_rate` (nats per step), ….
        NaN is what was not measured at that step.

    Raises:
        FileNotFoundError: the point has none.
        ValueError: they are not as they were written, or cannot be checked.

    Example:
        >>> metrics = gradlab.load_metrics(runs["path"].iloc[0])
        >>> metrics["train/step"].tolist()  # updates
        [0, 20]
        >>> ax = metrics.plot("train/step", "eval/loss")
    """
    return _load_sealed_table(Path(run_folder), METRICS)


def load_table(run_folder: str | Path) -> pd.DataFrame:
    """Read the table of a direct measurement; raises as `load_metrics` does."""
    return _load_sealed_table(Path(run_folder), TABLE)


def load_choices(run_folder: str | Path) -> dict[str, str]:
    """Return the option chosen for each config group, such as {"network": "irnn", "optim": "adam"}.

    Hydra records the choices of defaults, experiment files and the command alike; the groups of its
    own config (hydra/...) are left out.

    Raises:
        FileNotFoundError: the point's folder was copied without its hidden files.
        ValueError: the file is not as it was written.
    """
    path = Path(run_folder) / HYDRA
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: copy the folder with its hidden files.")
    check_point_file(Path(run_folder), str(HYDRA))
    choices: dict[str, str] = load_yaml(path)["hydra"]["runtime"]["choices"]
    return {group: option for group, option in choices.items() if "/" not in group}


def save_config(folder: Path, config: Mapping[str, Any], status: dict[str, Any]) -> None:
    """Write the resolved config to the file that Hydra's own launchers write.

    The status that is written with it seals Hydra's other two files as well.
    """
    for name in map(str, (OVERRIDES, HYDRA)):
        if (found := digest(folder / name)) != ABSENT:
            status.setdefault("files", {})[name] = [found]
    text, path = yaml_text.dump(dict(config)), folder / CONFIG
    if _has_text(path, text):  # as `save_job` left it
        seal_file(folder, status, str(CONFIG), path)
    else:
        _write_sealed(folder, str(CONFIG), status, partial(_write_text, text))


def save_job(
    folder: Path, config: Mapping[str, Any], hydra: Mapping[str, Any], overrides: Sequence[str]
) -> None:
    """Write the .hydra/ of a point that is about to begin, as Hydra does for a job.

    Args:
        folder: the point's.
        config: its resolved config.
        hydra: Hydra's own config of the job.
        overrides: its words.
    """
    for name, content in ((HYDRA, {"hydra": hydra}), (OVERRIDES, [*overrides])):
        write_whole(folder / name, partial(_write_text, yaml_text.dump(content)))
    try:
        save_config(folder, config, load_status(folder))
    except (FileNotFoundError, ValueError):  # not begun, or damaged anyway
        write_whole(folder / CONFIG, partial(_write_text, yaml_text.dump(dict(config))))


def unshare_config(folder: Path) -> None:
    """Make Hydra's files of a point its own, before Hydra writes into them.

    (A backup by hard links shares them, and would be written to as well.)
    """
    for path in (folder / name for name in (CONFIG, OVERRIDES, HYDRA)):
        if path.is_file():
            write_whole(path, partial(shutil.copyfile, path))


def reseal_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write a point's config in place of one that Hydra has just written, if it has a status."""
    with contextlib.suppress(FileNotFoundError, ValueError):  # not begun, or damaged anyway
        save_config(folder, config, load_status(folder))


def save_status(folder: Path, status: Mapping[str, Any]) -> None:
    """Write or replace status.json, sealed."""
    content = _nonfinite_as_text(dict(status))
    text = json.dumps(content | {"seal": seal_of(content)}, indent=2, allow_nan=False)
    write_whole(folder / STATUS, lambda path: path.write_text(text, encoding="utf-8"))


def load_status(run_folder: str | Path) -> dict[str, Any]:
    """Read one point's status.json.

    Raises:
        FileNotFoundError: the point has not started, so the file does not exist.
        ValueError: the file is damaged.
    """
    path = Path(run_folder) / STATUS
    try:
        status: dict[str, Any] = json.loads(read_text(path))
        summary, files = status.get("summary", {}), status.get("files", {})
        is_whole = all(isinstance(x, str) for entry in files.values() for x in fitting(entry))
        nonfinite = {name: float(value) for name, value in summary.items() if value in NONFINITE}
        is_whole = is_whole and status["seal"] == seal_of(status) and bool(status["state"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged") from error
    if not is_whole:
        raise ValueError(f"{path} was edited")
    return status | ({"summary": summary | nonfinite} if summary else {})


def load_verified(run_folder: str | Path) -> dict[str, Any]:
    """Read one point's status.json, and check all files of the point against it.

    Raises:
        FileNotFoundError: the point has not started.
        ValueError: a file is not as it was written; the message names it.
    """
    folder = Path(run_folder)
    return _while_written(folder, lambda status: verify(folder, status))


def verify(folder: Path, status: Mapping[str, Any]) -> None:
    """Check a point's files against its status.

    Hidden files may be missing, since some ways to copy a folder leave them out. A status without
    digests (of version 0.1.0, while the point ran) is not checked further.

    Raises:
        ValueError: a file is missing, was changed or was added; the message names it.
    """
    for name in SEALED:
        if name in RESULTS or (folder / name).exists():
            _verify_only(folder, status, name)


def check_point_file(folder: Path, name: str) -> None:
    """Check one file of a point against its status, read again if the point is being written.

    Raises:
        FileNotFoundError: the point has no status.json to check it by.
        ValueError: the file, or status.json, is not as it was written.
    """
    if not (folder / STATUS).is_file():
        raise FileNotFoundError(
            f"{folder / name} cannot be checked without {STATUS}: copy the point's folder whole."
        )
    _while_written(folder, lambda status: _verify_only(folder, status, name))


def seal_file(folder: Path, status: dict[str, Any], name: str, path: Path) -> None:
    """Enter a file into a point's status, and write that.

    Args:
        folder: the point's.
        status: the content of status.json, which is changed.
        name: the file's, below the folder.
        path: where the file is; it may still be to take its place, and then the one that is there
            fits too.
    """
    files = status.setdefault("files", {})
    new, present = digest(path), digest(folder / name)
    old = [present] if present in fitting(files.get(name)) and present != new else []
    files[name] = [new, *old]
    save_status(folder, status)


def settled(folder: Path, files: Mapping[str, Any]) -> dict[str, Any]:
    """Return the seals of a point's files with one digest each, now that none is being replaced."""
    present = {name: digest(folder / name) for name in files}
    return {
        name: [present[name]] if present[name] in fitting(entry) else entry
        for name, entry in files.items()
    }


def delete_records(folder: Path) -> None:
    """Delete a point's results and checkpoints; its .hydra/ and its W&B run stay."""
    delete_checkpoints(folder)
    for name in (METRICS, GRADIENTS, STATUS, TRACEBACK):
        with contextlib.suppress(OSError):  # what stays in the way is named when it is written
            (folder / name).unlink()


def list_checkpoints(folder: Path) -> list[Path]:
    """Return a point's checkpoints, the newest last; what else lies beside them is none."""
    parent = folder / CHECKPOINTS
    found = [x for x in parent.iterdir() if x.name.isdigit()] if parent.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))


def delete_checkpoints(folder: Path, keep: str = "") -> None:
    """Delete a point's checkpoints but one; what else somebody keeps beside them stays.

    Args:
        folder: the point's.
        keep: the name of the one to keep; "": delete all.
    """
    with contextlib.suppress(OSError):
        for path in list_checkpoints(folder):
            if path.name != keep:
                shutil.rmtree(path, ignore_errors=True)
        (folder / CHECKPOINTS).rmdir()  # unless something is left in it


def save_metrics(folder: Path, metrics: pd.DataFrame, status: dict[str, Any]) -> None:
    """Write metrics.parquet, and the status that seals it."""
    _write_sealed(folder, METRICS, status, lambda path: metrics.to_parquet(path, index=False))


def save_table(folder: Path, table: pd.DataFrame, status: dict[str, Any]) -> None:
    """Write table.parquet, and the status that seals it."""
    _write_sealed(folder, TABLE, status, lambda path: table.to_parquet(path, index=False))


def save_traceback(folder: Path, text: str) -> None:
    """Write traceback.txt."""
    write_whole(folder / TRACEBACK, lambda path: path.write_text(text, encoding="utf-8"))


def save_gradients(folder: Path, gradients: xr.Dataset, status: dict[str, Any]) -> None:
    """Write gradients.nc, compressed, and the status that seals it."""
    content = netcdf.content(gradients)
    _write_sealed(folder, GRADIENTS, status, lambda path: path.write_bytes(content))


def load_yaml(path: Path) -> Any:
    """Read a YAML file as plain data: `${...}` stays text, whatever it names.

    Raises:
        ValueError: the file is no YAML.
    """
    try:
        return yaml_text.load(read_text(path))
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged") from error


def _nonfinite_as_text(node: Any) -> Any:
    """Return nested dicts with each non-finite number as a string, since JSON has none."""
    if isinstance(node, dict):
        return {name: _nonfinite_as_text(child) for name, child in node.items()}
    return str(node) if isinstance(node, float) and not math.isfinite(node) else node


def _check_is_point(folder: Path) -> None:
    """Refuse what is no folder, and a sweep's, which are no point's."""
    is_sweep = (folder / SWEEP).is_file() and not (folder / STATUS).is_file()
    if is_sweep or not folder.is_dir():
        what = "is a sweep's folder" if is_sweep else "is no folder"
        raise FileNotFoundError(
            f"{str(folder)!r} {what}: give a point's, `path` of a row of gradlab.load_runs."
        )


def _load_sealed_table(folder: Path, name: str) -> pd.DataFrame:
    _check_is_point(folder)
    check_point_file(folder, name)
    with _readable(folder / name):
        return pd.read_parquet(folder / name)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Name the file in whatever a library raises that cannot read it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise ValueError(f"{path} is damaged: it cannot be read ({kind})") from error


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _has_text(path: Path, text: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return not path.is_symlink() and read_text(path) == text
    return False


def _write_sealed(
    folder: Path, name: str, status: dict[str, Any], write: Callable[[Path], object]
) -> None:
    write_whole(folder / name, write, lambda path: seal_file(folder, status, name, path))


def _while_written(folder: Path, check: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Check a point's status; a newer one, if the point is being written meanwhile."""
    status = load_status(folder)
    while True:
        try:
            check(status)
        except ValueError:
            before, status = status, load_status(folder)
            if status["seal"] == before["seal"]:  # a NaN in them is not equal to itself
                raise
        else:
            return status


def _verify_only(folder: Path, status: Mapping[str, Any], name: str) -> None:
    files, path = status.get("files", {}), folder / name
    if name in files or (files and name in RESULTS):
        check_file(path, files.get(name))
    elif path.exists() and not (path.is_file() and lies_inside(path, folder)):
        raise ValueError(f"{path} is no file of the point's own")
