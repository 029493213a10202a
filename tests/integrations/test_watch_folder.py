"""The records of a watched training: read, drawn and gone on with as those of a sweep's point."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from flax import nnx
from matplotlib.text import Text

import gradlab
from gradlab import decay, figures, records
from gradlab.claims.expressions import evaluate
from gradlab.claims.results import collect
from gradlab.integrations.folder import AT_ONCE, SHARE, WatchFolder
from gradlab.probes import Measurement

pytestmark = pytest.mark.usefixtures("no_watcher_left")
X = jax.random.normal(jax.random.key(0), (2, 8, 3))
MAP = "jacobian_log_norm"


def cell(gain: float = 1.0) -> nnx.SimpleCell:
    rnn = nnx.SimpleCell(3, 6, rngs=nnx.Rngs(0))
    rnn.dense_h.kernel[...] *= gain
    return rnn


def train(folder: Path, steps: Any = range(6), gain: float = 1.0, **arguments: Any) -> None:
    """Watch a network whose weights shrink at every step."""
    rnn = cell(gain)
    config = {"config": {"init.gain": gain, "seed": 0}} | arguments
    with gradlab.watch(X, folder=folder, **config) as watcher:
        for step in steps:
            rnn.dense_h.kernel[...] = 0.9**step * gain * cell().dense_h.kernel[...]
            watcher(step, rnn, loss=1 / (step + 1), **{"eval/accuracy": 0.5})


def config_of(folder: str | Path) -> dict[str, Any]:
    return records.flatten(records.load_yaml(Path(folder) / records.CONFIG))


def test_a_folder_reads_back_as_that_of_a_point(tmp_path: Path) -> None:
    train(tmp_path / "runs" / "mine")
    (run,) = gradlab.load_runs(tmp_path / "runs" / "mine").to_dict("records")
    assert (run["status"], run["model.name"], run["task.length"]) == ("done", "rnn", 8)
    config = config_of(run["path"])
    assert (config["init.gain"], config["seed"], config["probe.samples"]) == (1.0, 0, 2)
    maps = gradlab.load_gradients(run["path"])[MAP]
    assert list(maps["step"]) == [0, 1, 4, 5]
    for step in (0, 4, 5):
        expected = gradlab.jacobian_log_norms(cell(0.9**step), X)
        np.testing.assert_allclose(maps.sel(step=step), expected, atol=2e-6)
    metrics = records.load_metrics(run["path"])
    assert list(metrics["train/step"]) == [0, 1, 4, 5]
    assert list(metrics["train/loss"]) == pytest.approx([1, 1 / 2, 1 / 5, 1 / 6])
    assert set(metrics["eval/accuracy"]) == {0.5}
    assert run["jacobian/decay_rate"] == metrics["jacobian/decay_rate"].iloc[-1]
    assert run["verdict"] == decay.verdict(run["jacobian/decay_rate"], 8)


PROBES = (
    *("spectral", "lyapunov", "singular_values", "statistics", "adjoint", "contribution"),
    "theory",
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three gains as three runs of somebody's, each measured by all probes."""
    folder = tmp_path_factory.mktemp("runs")
    for number, gain in enumerate((0.5, 1.0, 2.0)):
        train(
            folder / str(number),
            gain=gain,
            probes=PROBES,
            loss=lambda h, target: jnp.sum((h - target) ** 2),
            targets=jnp.ones((2, 8, 6)),
        )
    return folder


DRAWN = (
    *("heatmap", "decay", "adjoint", "contributions", "lyapunov", "singular_values", "training"),
    "clipping",  # which needs no setting that a loop of one's own does not name
)


@pytest.mark.parametrize("name", DRAWN)
def test_runs_below_one_folder_are_drawn_as_a_sweep(name: str, sweep: Path) -> None:
    drawn = getattr(figures, f"{name}_figure")(gradlab.load_runs(sweep))
    assert drawn.table["point"].nunique() == 3
    assert any("gain" in text.get_text() for text in drawn.figure.findobj(Text))


def test_runs_below_one_folder_are_a_study_s_results(tmp_path: Path) -> None:
    for gain in (0.5, 1.0):
        train(tmp_path / f"{gain}", gain=gain)
    table = collect(tmp_path, {"loss_end": "last(train.loss)"})
    rate = evaluate("first(jacobian.decay_rate[init.gain == 0.5])", table)
    assert rate == table.loc[table["init.gain"] == 0.5, "jacobian.decay_rate"].iloc[0]
    assert list(table["loss_end"]) == pytest.approx([1 / 6, 1 / 6])


def test_several_cells_are_points_of_one_folder(tmp_path: Path) -> None:
    model = nnx.Bidirectional(nnx.RNN(cell()), nnx.RNN(cell(2.0)))
    with gradlab.watch(X, folder=tmp_path / "mine") as watcher:
        watcher(0, model)
    runs = gradlab.load_runs(tmp_path / "mine").set_index("model.part")
    assert sorted(runs.index) == ["backward_rnn", "forward_rnn"]
    maps = gradlab.load_gradients(runs["path"]["backward_rnn"])[MAP][0]
    np.testing.assert_allclose(maps, gradlab.jacobian_log_norms(cell(2.0), X[:, ::-1]), atol=2e-6)


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "mine")
    before = (tmp_path / "mine" / records.METRICS).read_bytes()
    with pytest.raises(ValueError, match=r"config differs in init\.gain; give another f"):
        train(tmp_path / "mine", range(6, 8), gain=2.0)
    with pytest.raises(ValueError, match="began at step 0; this one begins at 0"):
        train(tmp_path / "mine")
    assert (tmp_path / "mine" / records.METRICS).read_bytes() == before
    (tmp_path / "mine" / "checkpoints" / "5").mkdir(parents=True)  # of the user's own
    train(tmp_path / "mine", gain=2.0, overwrite=True)
    assert config_of(tmp_path / "mine")["init.gain"] == 2
    assert (tmp_path / "mine" / "checkpoints" / "5").is_dir()
    (tmp_path / "mine" / records.METRICS).write_bytes(b"others")
    with pytest.raises(ValueError, match=r"which are not whole .*metrics\.parquet is damaged"):
        train(tmp_path / "mine", range(6, 8))


def test_a_run_that_is_resumed_goes_on_with_its_records(tmp_path: Path) -> None:
    train(tmp_path / "cut", range(6))
    train(tmp_path / "cut", range(3, 20))  # from a checkpoint at step 3
    maps = gradlab.load_gradients(tmp_path / "cut")[MAP]
    assert list(maps["step"]) == [0, 1, 3, 4, 16, 19]
    metrics = records.load_metrics(tmp_path / "cut")
    assert list(metrics["train/step"]) == [0, 1, 3, 4, 16, 19]
    assert list(metrics["train/loss"]) == pytest.approx([1, 1 / 2, 1 / 4, 1 / 5, 1 / 17, 1 / 20])
    assert gradlab.load_runs(tmp_path / "cut")["status"].item() == "done"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_watcher_that_was_left_open_writes_no_more_once_another_does(
    tmp_path: Path, overwrite: bool
) -> None:
    def watch(steps: range, gain: float) -> Any:
        watcher = gradlab.watch(X, folder=tmp_path / "0", overwrite=overwrite)
        for step in steps:
            watcher(step, cell(gain))
        return watcher

    left = watch(range(3), 1.0)
    with pytest.warns(RuntimeWarning, match="closes the watcher that was open on '.*0'"):
        second = watch(range(3, 6), 2.0)
    assert left(16, cell()) is None
    left.finish()
    second.finish()
    maps = gradlab.load_gradients(tmp_path / "0")[MAP]
    assert list(maps["step"]) == [3, 4, 5] if overwrite else [0, 1, 3, 4, 5]
    expected = gradlab.jacobian_log_norms(cell(2.0), X)
    np.testing.assert_allclose(maps.sel(step=[3, 4, 5]), [expected] * 3, atol=2e-6)
    assert gradlab.load_runs(tmp_path)["status"].item() == "done"


def test_a_block_that_raises_is_recorded_with_its_reason(tmp_path: Path) -> None:
    def fail(error: BaseException) -> None:
        with gradlab.watch(X, folder=tmp_path / type(error).__name__) as watcher:
            for step in range(3):
                watcher(step, cell())
            raise error

    for error in (RuntimeError("no data"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            fail(error)
    runs = gradlab.load_runs(tmp_path).set_index("status")
    assert runs["reason"]["failed"] == "RuntimeError: no data"
    assert set(runs.index) == {"failed", "interrupted"}
    assert set(runs["train/step"]) == {1}  # the last step is not measured then


def test_a_network_that_diverges_is_a_point_that_did(tmp_path: Path) -> None:
    rnn = cell()
    with gradlab.watch(X, folder=tmp_path / "0", every=1) as watcher:
        watcher(0, rnn)
        rnn.dense_h.kernel[...] *= jnp.inf
        with pytest.warns(RuntimeWarning, match="diverged at step 1"):
            watcher(1, rnn, loss=jnp.nan)
    (run,) = gradlab.load_runs(tmp_path).to_dict("records")
    assert (run["status"], run["verdict"]) == ("diverged", "diverged")
    assert "not finite at step 1" in run["reason"]
    assert list(gradlab.load_gradients(run["path"])["step"]) == [0]


SCRIPT = """
import sys, time
import jax, gradlab
from flax import nnx
from matplotlib.text import Text
cell = nnx.SimpleCell(3, 4, rngs=nnx.Rngs(0))
watcher = gradlab.watch(jax.numpy.ones((5, 3)), folder=sys.argv[1], config={"seed": 1})
for step in range(6):
    watcher(step, cell)
print("trained", flush=True)
%s
"""


def run_script(folder: Path, ending: str, check: Callable[[Any], None] = lambda _: None) -> str:
    command = [sys.executable, "-c", SCRIPT % ending, str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as p:
        assert p.stdout is not None
        line = p.stdout.readline()
        assert line == "trained\n", line + p.stdout.read()
        check(p)
        return p.stdout.read()


def test_a_script_that_raises_ends_as_failed(tmp_path: Path) -> None:
    output = run_script(
        tmp_path / "mine", "raise OSError('full')"
    )  # test_examples has one that ends
    assert "OSError: full" in output
    assert "gradlab: 3 measurements took" in output
    (run,) = gradlab.load_runs(tmp_path).to_dict("records")
    assert (run["status"], run["reason"]) == ("failed", "OSError: full")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_worker_that_ends_leaves_the_watcher_alone(tmp_path: Path) -> None:
    worker = """
import multiprocessing
worker = multiprocessing.get_context("fork").Process(target=print, args=("loaded",))
worker.start()
worker.join(30)
print("ended with", worker.exitcode, gradlab.load_runs(sys.argv[1])["status"].item())
worker.kill()
"""
    output = run_script(tmp_path / "mine", worker)
    assert "ended with 0 running" in output
    assert output.count("measurements took") == 1  # by the program, which then ends too
    assert list(gradlab.load_metrics(tmp_path / "mine")["train/step"]) == [0, 1, 4, 5]


def test_a_training_that_is_killed_keeps_what_was_measured(tmp_path: Path) -> None:
    folder = tmp_path / "mine"

    def kill(process: Any) -> None:
        (run,) = gradlab.load_runs(tmp_path).to_dict("records")
        assert run["status"] == "running"
        with pytest.raises(ValueError, match=f"is written by process {process.pid} on .* end that"):
            gradlab.watch(X, folder=folder, config={"seed": 1})(6, cell())
        os.kill(process.pid, signal.SIGKILL)

    run_script(folder, "time.sleep(60)", kill)
    (run,) = gradlab.load_runs(tmp_path).to_dict("records")
    assert (run["status"], run["train/step"]) == ("interrupted", 4)
    assert list(gradlab.load_gradients(folder)["step"]) == [0, 1, 4]


def test_writing_takes_its_share_of_the_time_and_the_end_writes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, writes = 0.0, [0.0]

    def slowly(folder: Path, metrics: Any, status: Any) -> None:
        nonlocal now
        now += 0.05 * len(metrics)  # as long as all rows take
        writes.append(now)
        save_metrics(folder, metrics, status)

    save_metrics = records.save_metrics
    monkeypatch.setattr(records, "save_metrics", slowly)
    monkeypatch.setattr("gradlab.integrations.folder.time.perf_counter", lambda: now)
    kept = WatchFolder(tmp_path / "0", {}, 8)
    kept.open(0, overwrite=False)
    for step in range(200):
        now += 1
        kept.add({"train/step": step}, Measurement({}, {"x": xr.DataArray(float(step))}))
        written = gradlab.load_metrics(kept.folder)["train/step"]
        assert list(gradlab.load_gradients(kept.folder)["step"]) == list(written)
        longest = 0.05 * (step + 1)
        assert now - writes[-1] <= longest / SHARE  # what a process that is killed loses
        assert now - (step + 1) <= AT_ONCE + SHARE * now + longest  # all that writing has taken
    assert len(written) < 200
    kept.finish("done")
    assert list(gradlab.load_metrics(kept.folder)["train/step"]) == list(range(200))
    np.testing.assert_array_equal(gradlab.load_gradients(kept.folder)["x"], np.arange(200))


def test_a_disk_that_is_full_at_the_end_ends_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradlab.integrations.folder.SHARE", 0)
    monkeypatch.setattr("gradlab.integrations.folder.AT_ONCE", 0)
    with gradlab.watch(X, folder=tmp_path, every=1) as watcher:
        for step in range(3):
            watcher(step, cell())
        assert list(gradlab.load_metrics(tmp_path)["train/step"]) == [0]
        with monkeypatch.context() as full:
            full.setattr(records, "save_metrics", Mock(side_effect=records.RecordError("full")))
            with pytest.warns(RuntimeWarning, match="could not close its records: full"):
                watcher.finish()
    gradlab.watch(X, folder=tmp_path, overwrite=True)(0, cell())  # nobody holds the folder


def test_config_is_taken_flat_or_nested_and_as_plain_data(tmp_path: Path) -> None:
    config = {
        "optim": {"learning_rate": np.float32(0.5), "schedule": ("cosine", 3)},
        "model.name": "mine",
        "seed": jnp.int32(3),
        "path_of_data": tmp_path,
        "nothing": None,
    }
    train(tmp_path / "0", config=config)
    found = config_of(tmp_path / "0")
    assert (found["optim.learning_rate"], found["seed"], found["model.name"]) == (0.5, 3, "mine")
    assert (found["optim.schedule"], found["nothing"]) == (["cosine", 3], None)
    assert found["path_of_data"] == str(tmp_path)
    with pytest.raises(ValueError, match="config has 'model' both as a value and as a section"):
        train(tmp_path / "1", config={"model": "lstm"})
