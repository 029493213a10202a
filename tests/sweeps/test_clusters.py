"""SLURM and Ray: what a plan prints, what a job is started by, and what nodes that die cost."""

import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import gradlab
from test_sweep_elsewhere import NEEDS, RECORDS, SMALL, measured

from gradlab import __main__ as command
from gradlab import load_gradients, load_runs
from gradlab.records import load_metrics, load_status
from gradlab.records.leases import holder
from gradlab.sweeps import history

POINTS = (*SMALL, "init.gain=2", "model=rnn,lstm", "seed=0,1,2")
SLURM = (
    "hydra/launcher=fused_slurm",
    "hydra.launcher.points=4",
    "hydra.launcher.cpus=3",
    "hydra.launcher.minutes=30",
    "hydra.launcher.memory_gb=1.5",
    "hydra.launcher.partition=long",
    "+hydra.launcher.options.account=my lab",
    'hydra.launcher.setup=["module load apptainer", "export  A=1"]',
    "hydra.launcher.python=apptainer exec --bind /data image.sif python",
)


def plan(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> None:
    """Print a plan, in this process, where no command of SLURM is found."""
    if not importlib.util.find_spec("submitit"):
        pytest.skip("submitit is not installed")
    monkeypatch.setattr(history, "history_folder", lambda: None)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("SUBMITIT_LOG_LEVEL", "NOCONFIG")  # else absl closes pytest's own streams
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["gradlab", *words, *RECORDS, "--dry"])
    command.main()


def test_dry_prints_the_file_that_sbatch_would_be_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "my lab"
    folder.mkdir()
    plan(monkeypatch, folder, *POINTS, *SLURM)
    printed = capsys.readouterr().out
    assert list(folder.iterdir()) == []
    script = printed[printed.index("#!/bin/bash") : printed.index("\n\n12 points to run")]
    log = f"{folder}/sweep/slurm/%A_%a/%A_%a_0_log"
    for line in (
        "#SBATCH --array=0-3%4",  # of two programs, 4 and 2 points each
        "#SBATCH --account='my lab'",
        "#SBATCH --cpus-per-task=3",
        "#SBATCH --mem=1536MB",
        "#SBATCH --partition=long",
        "#SBATCH --signal=USR2@90",
        "#SBATCH --time=30",
        f"#SBATCH --error='{log}.err'",
        "# setup\nmodule load apptainer\nexport  A=1\n",
        " apptainer exec --bind /data image.sif python -P -u -m submitit.core._submit "
        f"'{folder}/sweep/slurm/%j'",
    ):
        assert line in script
    assert subprocess.run(["/bin/bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_one_job_is_no_array_and_starts_this_python(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plan(monkeypatch, tmp_path, "seed=1", SLURM[0], "hydra.launcher.gpus=1")
    printed = capsys.readouterr().out
    assert "--array" not in printed
    assert "#SBATCH --gpus-per-node=1" in printed
    assert f" {sys.executable} -P -u -m submitit.core._submit " in printed
    assert "# setup" not in printed


@pytest.mark.parametrize("word", ["setup=module load x", "python=[a, b]", "setup=[[a]]"])
def test_wrong_lines_of_setup_are_refused_in_a_sentence(
    word: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=f"hydra.launcher.{word.partition('=')[0]}"):
        plan(monkeypatch, tmp_path, SLURM[0], f"hydra.launcher.{word}")


@NEEDS["fused_slurm"]
def test_slurm_takes_the_printed_file_and_runs_the_set_up(tmp_path: Path) -> None:
    """A script in the place of a container: it starts the interpreter, in an environment."""
    container = tmp_path / "container"
    container.write_text('#!/bin/sh\necho "$INSIDE" "$@" > started\nexec "$@"\n')
    container.chmod(0o755)
    words = (
        *(*SMALL, *RECORDS, "init.gain=2", "model=rnn", "hydra/launcher=fused_slurm"),
        *('hydra.launcher.setup=["export INSIDE=image.sif", "touch prepared"]',),
        f"hydra.launcher.python={container} {sys.executable}",
    )
    printed = gradlab(*words, "--dry", folder=tmp_path).stdout
    script = printed[printed.index("#!/bin/bash") : printed.index("\n\n2 points to run")]
    checked = subprocess.run(
        ["sbatch", "--test-only"], input=script, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert not (tmp_path / "sweep").exists()
    done = gradlab(*words, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(load_runs(tmp_path / "sweep")["status"]) == ["done", "done"]
    assert (tmp_path / "prepared").exists()
    started = (tmp_path / "started").read_text()
    assert started.startswith(f"image.sif {sys.executable} -P -u -m submitit")


def same_numbers(expected: Path, found: Path) -> None:
    """Check that two points have the same records, bit for bit."""
    pd.testing.assert_frame_equal(
        measured(load_metrics(expected)), measured(load_metrics(found)), check_exact=True
    )
    assert load_gradients(expected).equals(load_gradients(found))


JOBS, EACH = 50, 20  # jobs of the array, points of each
PREEMPTED = range(0, JOBS, 5)


@pytest.mark.slow
@NEEDS["fused_slurm"]
def test_a_thousand_points_survive_the_preemption_of_a_fifth_of_their_jobs(tmp_path: Path) -> None:
    words = (
        *("task=copying", "task.length=2", "model.hidden_size=6", "train.steps=200"),
        *("train.log_every=20", "train.checkpoint_seconds=0", "probe=frobenius"),
        *("probe.schedule=ends", *RECORDS),
    )
    launcher = ("hydra/launcher=fused_slurm", f"hydra.launcher.points={EACH}")
    head = [sys.executable, "-m", "gradlab", *words, f"seed=range({JOBS * EACH})", *launcher]
    sweep, waiting = tmp_path / "sweep", list(PREEMPTED)
    command_line = [*head, "hydra.launcher.cpus=1", "hydra.launcher.jobs_at_once=2"]
    with subprocess.Popen(command_line, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and waiting:  # jobs start in their order
            time.sleep(0.1)
            first, last = (sweep / str(waiting[0] * EACH + n) for n in (0, EACH - 1))
            running = holder(last)  # a job has the leases of all its points that are to run
            if running and (first / "metrics.parquet").exists():
                # SLURM's notice; `scancel --signal` would wait until the job has gone.
                os.kill(running.pid, signal.SIGUSR2)
                waiting.pop(0)
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    runs = load_runs(sweep)
    assert list(runs["status"]) == JOBS * EACH * ["done"]
    assert sorted(runs["seed"]) == list(range(JOBS * EACH))
    logs = [path for path in sweep.glob("slurm/*/*_log.err") if "preempted" in path.read_text()]
    assert {int(x.name.split("_")[1]) for x in logs} == set(PREEMPTED)
    # The points of a job that was preempted have the numbers of an undisturbed sweep.
    (tmp_path / "whole").mkdir()
    job = PREEMPTED[1]
    seeds = f"seed=range({job * EACH},{(job + 1) * EACH})"
    assert gradlab(*words, seeds, folder=tmp_path / "whole").returncode == 0
    for number in range(EACH):
        same_numbers(tmp_path / f"whole/sweep/{number}", sweep / str(job * EACH + number))


@pytest.fixture
def two_nodes() -> Any:
    """A cluster of Ray of two nodes on this machine, with a core each; the second."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        yield cluster, cluster.add_node(num_cpus=1)
    finally:
        cluster.shutdown()


@pytest.mark.slow
@NEEDS["fused_ray"]
def test_a_node_of_ray_that_dies_costs_no_point(two_nodes: Any, tmp_path: Path) -> None:
    cluster, second = two_nodes
    words = (
        *("task.length=8", "train.steps=6000", "train.log_every=100", "probe.schedule=ends"),
        *("train.checkpoint_seconds=0.5", "seed=0,1,2,3", *RECORDS),
    )
    (tmp_path / "whole").mkdir()
    assert gradlab(*words, folder=tmp_path / "whole").returncode == 0
    ray = ("hydra/launcher=fused_ray", f"hydra.launcher.address={cluster.address}")
    command_line = [sys.executable, "-m", "gradlab", *words, *ray, "hydra.launcher.points=1"]
    sweep = tmp_path / "sweep"
    with subprocess.Popen(command_line, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while len(list(sweep.glob("*/checkpoints/*"))) < 2 and process.poll() is None:
            time.sleep(0.05)
        running = {x.parent: holder(x.parent) for x in sweep.glob("*/.lease")}
        cluster.remove_node(second, allow_graceful=False)
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "starts anew" not in errors
    assert list(load_runs(sweep)["status"]) == 4 * ["done"]
    moved = [x for x, before in running.items() if before and load_status(x)["pid"] != before.pid]
    assert moved, "the node that died ran no point"
    for number in range(4):
        same_numbers(tmp_path / f"whole/sweep/{number}", sweep / str(number))


PAGE = Path(__file__).parents[2] / "docs" / "clusters.md"
COMMANDS = [x for x in PAGE.read_text().splitlines() if x.startswith("python -m gradlab ")]


@pytest.mark.parametrize("line", [x for x in COMMANDS if x.endswith("--dry")])
def test_the_pages_commands_have_plans(
    line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(monkeypatch, tmp_path, *shlex.split(line)[3:-1])
    printed = capsys.readouterr().out
    assert "Nothing was run." in printed
    assert ("#SBATCH" in printed) == ("fused_slurm" in line)
