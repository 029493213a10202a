"""Modules in the working folder are imported for parts that the user names, and for no others."""

import subprocess
import sys
from pathlib import Path

from conftest import gradlab

MARK = "from pathlib import Path\n(Path(__file__).parent / 'imported').touch()\n"
CELL = "from flax import nnx\nfrom beside import NAME\nclass Cell(nnx.SimpleCell):\n    pass\n"


def test_the_working_folder_takes_no_librarys_place(tmp_path: Path) -> None:
    libraries = ("typing", "nt", "csv", "yaml", "numpy", "torch", "wandb/__init__")
    for name in (*libraries, "hydra_plugins/any"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(MARK)
    (tmp_path / "mine.py").write_text(CELL)
    (tmp_path / "beside.py").write_text("NAME = 1\n")
    words = ("task=echo", "--dry", "model.name=mine", "wandb=disabled")
    done = gradlab(*words, "model.cell._target_=mine.Cell", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 point to run" in done.stdout
    command = [sys.executable, "-m", "gradlab.dashboard", "me/project", "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("imported")) == []
