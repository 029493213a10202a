"""The disk layout of a sweep, and the functions that read and write its files.

`points` has a point's files, `sweeps` a sweep's own, `seals` the digests by which they are checked,
`links` what may not be written through, `table` all points below a folder.

A sweep's folder has one folder per point, at any depth below it, which holds

    .hydra/           the point's resolved config and its overrides, in Hydra's format
    status.json       state (running, done, diverged, pruned, failed, interrupted), reason, timings,
                      versions, device, and the summary metrics under their W&B names; JSON has
                      no non-finite numbers, so they are the strings "inf", "-inf" and "nan"
    metrics.parquet   one row per training step that was logged or measured
    gradients.nc      the Jacobian maps, dims (step, sample, t, k)
    checkpoints/STEP  the newest training state (a NumPy archive; a large one Orbax's)
    traceback.txt     what a point that failed was raised by
    .lease            the process that runs the point, while it does (`leases`)
    table.parquet     the table of a direct measurement, which has none of the three above
    wandb/            the point's W&B run (a link into the sweep's wandb/ folder)

and, beside the points' folders,

    sweep.json        the sweep's id and the list of all points, written before the first one starts
    .lock             locked by the process that runs the sweep
    multirun.yaml     Hydra's own config of the sweep
    wandb/            the W&B runs of all points
    overview.png      the sweep's figure, drawn at its end
    settings.csv      a row a setting: means over its seeds, written at the sweep's end
    slurm/            submitit's scripts and logs, if the points ran as jobs of SLURM

Every file gets a temporary name first and is then renamed (`files.write_whole`), so that none is
ever half written.
"""

from typing import Any

from gradlab.records.files import RecordError, clear_unfinished, write_whole
from gradlab.records.layout import (
    CHECKPOINTS,
    CONFIG,
    GRADIENTS,
    HYDRA,
    LOCK,
    METRICS,
    MULTIRUN,
    NONFINITE,
    NOT_CONFIG,
    OVERRIDES,
    OVERVIEW,
    RESULTS,
    SETTINGS,
    SLURM_LOGS,
    STATUS,
    SWEEP,
    TABLE,
    TRACEBACK,
    WANDB,
)
from gradlab.records.links import lies_inside, links_outside
from gradlab.records.points import (
    delete_checkpoints,
    delete_records,
    gradient_names,
    list_checkpoints,
    load_choices,
    load_gradients,
    load_metrics,
    load_status,
    load_table,
    load_verified,
    load_yaml,
    reseal_config,
    save_config,
    save_gradients,
    save_job,
    save_metrics,
    save_status,
    save_table,
    save_traceback,
    seal_file,
    settled,
    unshare_config,
    verify,
)
from gradlab.records.sweeps import load_sweep, save_sweep, sweep_folder, sweep_id_of

__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "GRADIENTS",
    "HYDRA",
    "LOCK",
    "METRICS",
    "MULTIRUN",
    "NONFINITE",
    "NOT_CONFIG",
    "OVERRIDES",
    "OVERVIEW",
    "RESULTS",
    "SETTINGS",
    "SLURM_LOGS",
    "STATUS",
    "SWEEP",
    "TABLE",
    "TRACEBACK",
    "WANDB",
    "RecordError",
    "clear_unfinished",
    "delete_checkpoints",
    "delete_records",
    "flatten",
    "gradient_names",
    "lies_inside",
    "links_outside",
    "list_checkpoints",
    "load_choices",
    "load_gradients",
    "load_metrics",
    "load_status",
    "load_sweep",
    "load_table",
    "load_verified",
    "load_yaml",
    "reseal_config",
    "save_config",
    "save_gradients",
    "save_job",
    "save_metrics",
    "save_status",
    "save_sweep",
    "save_table",
    "save_traceback",
    "seal_file",
    "settled",
    "sweep_folder",
    "sweep_id_of",
    "unshare_config",
    "verify",
    "write_whole",
]


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
