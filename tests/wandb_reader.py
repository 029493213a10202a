"""Read offline runs with W&B's own reader, `wandb leet inspect`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

Item = dict[str, Any]


def history(run: Path) -> list[dict[str, float]]:
    """Return the logged rows of numbers, without W&B's own columns, pictures and tables."""
    rows = [record["item"] for record in records(run, "history")]
    return [
        {name: float(value) for name, value in row.items() if not name.startswith("_")}
        for row in rows
        if not any(name.endswith("._type") for name in row)
    ]


def summary(run: Path) -> Item:
    """Return a run's state, name, config and summary."""
    return json.loads(_inspect(run, "--summary"))


def records(run: Path, kind: str) -> list[Item]:
    """Return all records of a kind in the run's transaction log."""
    items = [json.loads(line) for line in _inspect(run).splitlines()]
    return [item[kind] for item in items if item["type"] == kind]


def _inspect(run: Path, *options: str) -> str:
    (log,) = run.resolve().glob("*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(log)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
