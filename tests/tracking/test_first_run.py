"""The first run of a process imports no more of W&B than it needs."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from gradlab.tracking.client import prepare_client, quiet_settings

prepare_client()
import wandb

def open_run():
    wandb.init(mode="offline", reinit="create_new", settings=quiet_settings()).finish()

open_run()
assert "wandb.sdk.launch" not in sys.modules
from wandb.sdk.launch.inputs.internal import StagedLaunchInputs

applied = []
StagedLaunchInputs.apply = lambda self, run: applied.append(run)
open_run()
assert len(applied) == 1
"""


def test_it_leaves_the_launcher_out_unless_inputs_may_be_staged_there(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
