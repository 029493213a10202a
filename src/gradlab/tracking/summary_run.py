"""The W&B run of a whole sweep: its table by setting, beside the runs of its points."""

import hashlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from gradlab import records
from gradlab.printable import printable
from gradlab.records.files import read_text
from gradlab.tracking.client import apart_from_agent, prepare_client, quiet_settings
from gradlab.tracking.run_config import SWEEP_KEY
from gradlab.tracking.runs import check_writable
from gradlab.tracking.uploads import shared_uploader

if TYPE_CHECKING:
    import wandb

JOB_TYPE = "summary"
TABLE = "settings"  # the table's name in the run's summary
COUNTED = ("done", "diverged", "failed")


def log_settings(table: pd.DataFrame, sweep: Path, group: str, config: Mapping[str, Any]) -> None:
    """Log a sweep's table by setting to a run of its own, in place of the one of before.

    Nothing is written where the run of before has the same table. W&B never fails a sweep: if the
    run cannot be written, that is said.

    Args:
        table: from `gradlab.by_setting`.
        sweep: the sweep's folder; the run is written to its wandb/.
        group: the sweep, as NAME/DATE.
        config: of a point, whose "wandb" section sets project, entity, tags and, unless "disabled",
            whether the run is sent.
    """
    try:
        _replace(table, sweep, group, config)
    except Exception as error:  # a full disk, a name that W&B refuses
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        print(
            printable(f"gradlab: the sweep has no W&B run of its own: {reason}."), file=sys.stderr
        )


def settings_table(table: pd.DataFrame) -> "wandb.Table":
    """Return a table by setting as W&B takes it: JSON, which has no infinity.

    Levels that are no finite numbers make their column one of text, in the words of the figures
    ("none"); other numbers that are not finite are null.
    """
    import wandb

    from gradlab.figures.labels import value_label

    shown = dict[str, list[Any]]()
    for name, column in table.items():
        key = str(name)
        if "/" not in key and not (is_numeric_dtype(column) and np.isfinite(column).all()):
            shown[key] = [value_label(key, level) for level in column]
        else:
            shown[key] = [x if np.isfinite(x) else None for x in column.tolist()]
    return wandb.Table([*shown], [list(row) for row in zip(*shown.values(), strict=True)])


def _replace(table: pd.DataFrame, sweep: Path, group: str, config: Mapping[str, Any]) -> None:
    """Log the table to a new run, and delete the run of before; see `log_settings`."""
    from gradlab.figures.settings import to_csv

    text, settings, sweep_id = to_csv(table), config["wandb"], records.sweep_id_of(sweep)
    run_id = f"{TABLE}_{hashlib.sha256((sweep_id or group).encode()).hexdigest()[:12]}"
    check_writable(sweep)
    earlier = [*(sweep / records.WANDB).glob(f"offline-run-*-{run_id}")]
    if any(_content(run) == text for run in earlier):
        return
    prepare_client()
    import wandb

    is_online = settings["mode"] == "online"
    for run_folder in earlier:
        if not is_online or shared_uploader().withdraw(run_folder):
            shutil.rmtree(run_folder)
    with apart_from_agent():
        run = wandb.init(
            dir=sweep,
            mode="offline",  # online runs too: gradlab.tracking.uploads sends them
            id=run_id,
            project=settings["project"],
            entity=settings["entity"],
            tags=settings["tags"],
            job_type=JOB_TYPE,
            group=settings.get("group") or group,
            name="by setting",
            config={"name": config["name"], SWEEP_KEY: sweep_id},
            reinit="create_new",
            settings=quiet_settings(),
        )
    run_folder = Path(run.settings.sync_dir)
    (run_folder / "logs" / "debug-core.log").unlink(missing_ok=True)  # as for a point's run
    if is_online:
        shared_uploader().add(run_folder)
    counts = {f"sweep/{state}": int(table[state].sum()) for state in COUNTED}
    sizes = {"sweep/points": int(table["seeds"].sum()), "sweep/settings": len(table)}
    run.summary.update({TABLE: settings_table(table), **sizes, **counts})
    file = Path(run.dir) / records.SETTINGS
    file.write_text(text, encoding="utf-8", newline="")
    run.save(file, base_path=file.parent, policy="now")
    run.finish()


def _content(run_folder: Path) -> str:
    """Return the table that a run has as a file; "" if it has none."""
    try:
        return read_text(run_folder / "files" / records.SETTINGS)
    except (OSError, ValueError):
        return ""
