"""A study that is computed directly: one Hydra job that calls a function and writes its table."""

import sys
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gradlab import records
from gradlab.components import ConfigError, build
from gradlab.config import check
from gradlab.point.failures import is_interrupt, reason_of, traceback_of
from gradlab.point.recorder import now, running_status
from gradlab.records import leases
from gradlab.records.files import RecordError
from gradlab.training.precision import in_float32


@in_float32
def run_measurement(composed: DictConfig) -> Path:
    """Call the function that `measure` names and write its table to the job's folder.

    Raises:
        ConfigError: its arguments are wrong, it returned something else than a table, or another
            process computes it.
        SystemExit: it failed otherwise, which its status and traceback.txt say.
    """
    config = check(composed)
    folder = Path(HydraConfig.get().runtime.output_dir)
    status = running_status(config)
    if other := leases.take(folder):
        raise ConfigError(
            f"{other} computes {str(folder)!r}: wait for it, or end it ({other.end})."
        )
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
    except BaseException as error:
        state = "interrupted" if is_interrupt(error) else "failed"
        status |= {"state": state, "reason": reason_of(error)}
        if isinstance(error, ConfigError | RecordError) or is_interrupt(error):
            raise
        records.save_traceback(folder, traceback_of(error))
        sys.exit(f"gradlab: {reason_of(error)} (see {folder / records.TRACEBACK})")
    finally:
        status |= {"finished": now(), "seconds": round(time.perf_counter() - clock, 3)}
        records.save_status(folder, status)
        leases.release(folder)
    print(f"records  {folder}")
    return folder
