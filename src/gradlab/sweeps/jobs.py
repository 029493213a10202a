"""The job of a point in Hydra's words: its .hydra/, and what its launcher returns."""

import os
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, run_job
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from gradlab import records
from gradlab.sweeps.ledger import Entry


def begin_job(context: HydraContext, config: DictConfig, folder: Path, entry: Entry) -> JobReturn:
    """Write a point's .hydra/ as Hydra's `run_job` does; return its job, which is still to run.

    Hydra's own copies the config five times, which takes as long as a short point. It is called
    where it does more than that: where there are callbacks, or logging to set up for each job.

    Args:
        context: Hydra's.
        config: the point's, composed, with its number and its folder's name.
        folder: the point's.
        entry: the point as the sweep's record has it.
    """
    if context.callbacks.callbacks or _sets_up_logging(config):
        records.unshare_config(folder)
        return run_job(
            hydra_context=context,
            task_function=lambda _: records.reseal_config(folder, entry.config),
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    with read_write(config.hydra), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = os.path.abspath(folder)
    own: Any = OmegaConf.to_container(config.hydra, resolve=False, enum_to_str=True)
    records.save_job(folder, entry.config, own, own["overrides"]["task"])
    return JobReturn(overrides=own["overrides"]["task"])


def _sets_up_logging(config: DictConfig) -> bool:
    logging = config.hydra.job_logging
    return logging is None or logging.get("root") is not None or bool(config.hydra.verbose)
