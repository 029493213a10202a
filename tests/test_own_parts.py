"""Parts of one's own from one folder, with an installed gradlab: README's commands, as typed."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradlab import load_gradients, load_runs

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "examples" / "own_parts"
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
CUT = "model.cell.epsilon=0.2 train.steps=4 train.log_every=4 probe.schedule=ends"
PARTS = {"experiment": "mine", "task": "latch", "init": "rotations", "model": "antisymmetric"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked wheel, as pip would install it; no file of the checkout is on its path."""
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is missing")
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (archive,) = place.glob("*.whl")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(place / "installed")
    return place / "installed"


def environment(wheel: Path, home: Path) -> dict[str, str]:
    """The environment of somebody who has no account at W&B, and no settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "HYDRA"))}
    return kept | {
        "PYTHONPATH": str(wheel),
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


@pytest.fixture(scope="module")
def walked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of the folder in which every command of its README has run, and what these printed."""
    folder = tmp_path_factory.mktemp("somebodys") / "folder"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    where = "python -c 'import gradlab; print(gradlab.__file__)'\n"
    printed = []
    for language, block in [("bash", where), *BLOCKS]:
        quick = block.replace("+experiment=mine", f"+experiment=mine {CUT}")
        quick = quick.replace("train.steps=50", "train.steps=4 probe.schedule=ends")
        command = ["bash", "-ec", quick] if language == "bash" else [sys.executable, "-c", block]
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(wheel, folder.parent),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}{done.stdout}{done.stderr}"
        printed.append(done.stdout)
    assert Path(printed[0].strip()).is_relative_to(wheel)
    return folder, "".join(printed)


def test_help_lists_the_parts_of_the_folder(walked: tuple[Path, str]) -> None:
    lines = [line.split() for line in walked[1].splitlines() if line.endswith("[conf]")]
    assert {line[0] for line in lines} == {*PARTS.values(), "dimension"}


def test_the_parts_of_the_folder_run(walked: tuple[Path, str]) -> None:
    runs = load_runs(walked[0] / "runs" / "mine", "all")
    assert list(runs["status"]) == ["done"] * 2
    targets = {"task": "mine.latch", "init": "mine.rotations", "model.cell": "mine.Antisymmetric"}
    for section, target in targets.items():
        assert set(runs[f"{section}._target_"]) == {target}
    ratio = load_gradients(runs["path"].iloc[0])["dimension_ratio"]
    assert ((ratio >= 1) & (ratio <= 16)).all()
    assert runs["dimension/mean"].iloc[0] == pytest.approx(float(ratio.isel(step=-1).mean()))
    assert "nothing is left to run" in walked[1]
    assert list(load_runs(walked[0] / "runs" / "data")["status"]) == ["done"]


def test_figures_of_ours_and_of_the_folder(walked: tuple[Path, str]) -> None:
    runs = walked[0] / "runs" / "mine"
    for name in ("decay", "dimension_figure"):
        assert (runs / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(runs / "dimension_figure.png.csv", skiprows=1)
    assert len(table) == 2 * len(set(table["train/step"]))
    assert np.isfinite(table["dimension/mean"]).all()


def test_the_parts_are_what_they_say() -> None:
    import jax
    from flax import nnx

    spec = spec_from_file_location("parts_of_own", FOLDER / "mine.py")
    assert spec is not None
    assert spec.loader is not None
    mine = module_from_spec(spec)
    spec.loader.exec_module(mine)

    for n in (6, 7):
        matrix = np.asarray(mine.rotations(jax.random.key(0), (n, n), turn=0.3))
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(n), atol=1e-6)
        angles = np.abs(np.angle(np.linalg.eigvals(matrix)))
        assert 0 < angles.max() <= 0.3 + 1e-6
    batch = mine.latch(length=5, noise=0.0).sample(jax.random.key(1), 50)
    np.testing.assert_array_equal(batch.inputs[:, 0, 0] > 0, batch.targets[:, -1] == 1)
    assert set(np.asarray(batch.targets[:, -1])) == {0, 1}
    cell = mine.Antisymmetric(1, 4, epsilon=0.2, rngs=nnx.Rngs(0))
    h, x = jax.random.normal(jax.random.key(2), (4,)), jax.numpy.ones(1)
    jacobian = np.asarray(jax.jacobian(lambda h: cell(h, x)[0])(h))
    slopes = (jacobian - np.eye(4)) / 0.2
    matrix = np.asarray(cell.dense_h.kernel)
    field = np.tanh(np.asarray(h) @ (matrix - matrix.T) + np.asarray(cell.dense_i(x)))
    np.testing.assert_allclose(cell(h, x)[0], h + 0.2 * field, rtol=1e-5)
    np.testing.assert_allclose(slopes, (1 - field**2)[:, None] * (matrix.T - matrix), atol=1e-5)
