"""A study that is computed directly: one Hydra job that calls a function and writes its table."""

import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gradlab import records
from gradlab.components import ConfigError, build
from gradlab.config import check
from gradlab.point.recorder import now, running_status
from gradlab.training.precision import in_float32


@in_float32
def run_measurement(composed: DictConfig) -> Path:
    """Call the function that `measure` names and write its table to the job's folder.

    Raises:
        ConfigError: its arguments are wrong, or it returned something else than a table.
    """
    config = check(composed)
    folder = Path(HydraConfig.get().runtime.output_dir)
    status = running_status(config)
    records.save_config(folder, asdict(config), status)
    clock = time.perf_counter()
    try:
        table = build(config.measure)
        if not isinstance(table, pd.DataFrame):
            raise ConfigError(
                f"measure._target_ must return a pandas DataFrame; {config.measure['_target_']} "
                f"returned a {type(table).__name__}."
            )
        records.save_table(folder, table, status)
        status |= {"state": "done", "reason": f"{len(table)} rows"}
    except Exception as error:
        status |= {"state": "failed", "reason": f"{type(error).__name__}: {error}"}
        raise
    finally:
        status |= {"finished": now(), "seconds": round(time.perf_counter() - clock, 3)}
        records.save_status(folder, status)
    print(f"records  {folder}")
    return folder
