"""The names of files and folders, and of the columns that are no config."""

from pathlib import Path

CONFIG = Path(".hydra") / "config.yaml"
OVERRIDES = Path(".hydra") / "overrides.yaml"
HYDRA = Path(".hydra") / "hydra.yaml"
STATUS = "status.json"
METRICS = "metrics.parquet"
GRADIENTS = "gradients.nc"
CHECKPOINTS = "checkpoints"
TABLE = "table.parquet"
TRACEBACK = "traceback.txt"
WANDB = "wandb"
SWEEP = "sweep.json"
LOCK = ".lock"
MULTIRUN = "multirun.yaml"
OVERVIEW = "overview.png"
SETTINGS = "settings.csv"
SLURM_LOGS = "slurm"
NONFINITE = ("inf", "-inf", "nan")  # how status.json spells them
# The columns of `load_runs` that are neither config nor logged metrics.
NOT_CONFIG = ("verdict", "status", "reason", "sweep", "path")
# States of points whose records show no numbers.
UNREADABLE = ("damaged", "unknown")
# Of a point: what it measured; they are always sealed.
RESULTS = (METRICS, GRADIENTS, TABLE)
# Of a point: all that a seal is for.
SEALED = (*RESULTS, *map(str, (CONFIG, OVERRIDES, HYDRA)))
# Files that are written under a temporary name first.
WRITTEN = (STATUS, *RESULTS, CONFIG.name, TRACEBACK, SWEEP, MULTIRUN, OVERVIEW, SETTINGS)
