"""Parts of one's own from one folder, with an installed gradlab: README's commands, as typed."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradlab import __main__ as command
from gradlab import load_gradients, load_runs
from gradlab.components import ConfigError, build, locate
from gradlab.initialisers import draw_matrix

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


CODE = """
def needing(length: int, lag: int = 1): ...
def start(key, n, width): ...
def own(length: int = 3): ...
"""
PARTS_OF_SOMEBODY = {
    "own_code.py": CODE,
    "own_broken.py": "import no_such_package\n",
    "conf/task/needing.yaml": "_target_: own_code.needing\n",
    "conf/task/own.yaml": "_target_: own_code.own\n",
    "conf/task/typo.yaml": "_target_: own_code.onw\n",
    "conf/task/broken.yaml": "_target_: own_broken.task\n",
    "conf/task/elsewhere.yaml": "_target_: no_such_module.task\n",
    "conf/experiment/bare.yaml": "train: {steps: 2}\n",
    "conf/experiment/added.yaml": "# @package _global_\ndefaults: [/task: echo]\n",
    "conf/experiment/relative.yaml": "# @package _global_\ndefaults: [override task: echo]\n",
}
MISTAKES: Mapping[str, str] = {
    "task=needing": r"own_code\.needing needs length: give it beside its _target_",
    "task=own task.length=4": r"task\.length has no value .* with task=own: type \+task\.length=…",
    "task=typo": r"own_code has no onw; did you mean own\?",
    "task=broken": r"'own_broken\.task' \(No module named 'no_such_package'\)",
    "task=elsewhere": r"there is no module 'no_such_module'; the working folder is /",
    "probe=[spectral,nosuch]": "probe has no 'nosuch': python -m gradlab --help lists what",
    "+probe=rms": "probe has an option already: type probe=rms, or",
    "+probe=spectral": "probe has this option already: leave it out",
    "+experiment=bare": "experiment/bare.yaml must begin with the line `# @package _global_`",
    "+experiment=added": "task has an option already: .* `- override /task: echo`",
    "+experiment=relative": "must name task from the root: `- override /task`",
    "init.gain=[0.5,1]": "to sweep over several, leave the brackets out",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_in_ones_own_files_ends_in_one_sentence(
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, text in PARTS_OF_SOMEBODY.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["gradlab", "--config-dir", "conf", *words.split(), "seed=0"])
    with pytest.raises(SystemExit, match=MISTAKES[words]) as told:
        command.main()
    assert "\n" not in str(told.value)
    assert "Error" not in capfd.readouterr().err  # Hydra logs what it raises


def test_an_argument_that_nothing_gives_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    import jax

    module = types.ModuleType("code_of_somebody")
    exec(CODE, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    start = {"_target_": "code_of_somebody.start"}
    with pytest.raises(ConfigError, match=r"code_of_somebody\.start needs width"):
        draw_matrix(start, jax.random.key(0), 4)
    assert draw_matrix(start | {"width": 2}, jax.random.key(0), 4) is None
    assert locate("code_of_somebody.own") is module.own
    assert build({"_target_": "code_of_somebody.needing"}, lag=2, length=1) is None


def test_help_on_an_option_has_its_keys_and_what_they_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gradlab", "task=arrays", "--help"])
    command.main()
    printed = capsys.readouterr().out
    assert printed.startswith("task=arrays, keys task.…:")
    keys = ("path", "targets", "test_share", "standardise", "tolerance")
    for key in keys:
        assert re.search(rf"^  {key}: ", printed, re.MULTILINE)
    assert "(sequences, time, features)" in printed
    assert ">>>" not in printed
    monkeypatch.setattr(sys, "argv", ["gradlab", "--help"])
    command.main()
    assert "GROUP=NAME --help" in capsys.readouterr().out
