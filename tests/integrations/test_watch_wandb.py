"""What a watcher logs to somebody's own W&B run, read back with W&B's own reader."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import wandb
import wandb_reader as reader
from flax import nnx

import gradlab
from gradlab.records import leases

pytestmark = pytest.mark.usefixtures("no_watcher_left")
X = jax.random.normal(jax.random.key(0), (2, 8, 3))
STEPS = 18
DUE = [0, 1, 4, 16, 17]
RATE = "jacobian/decay_rate"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[wandb.Run]:
    """An offline run of somebody's."""
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    run = wandb.init(mode="offline", dir=tmp_path, settings=settings, reinit="create_new")
    yield run
    run.finish()


def train(run: wandb.Run, log: Callable[[wandb.Run, int], None], before: bool = False) -> Any:
    """Watch a network that does not change, and log the loss as a user does."""
    cell = nnx.SimpleCell(3, 5, rngs=nnx.Rngs(0))
    with gradlab.watch(X, run=run) as watcher:
        for step in range(STEPS):
            if before:
                log(run, step)
            watcher(step, cell, loss=step)
            if not before:
                log(run, step)
    run.finish()
    return cell


def rows(run: wandb.Run) -> list[dict[str, Any]]:
    """Return all logged rows."""
    return reader.records(Path(run.dir).parent, "history")


def plain(run: wandb.Run, step: int) -> None:
    run.log({"loss": float(step)})


def counted(run: wandb.Run, step: int) -> None:
    run.log({"loss": float(step)}, step=100 * step)


def rarely(run: wandb.Run, step: int) -> None:
    if step == 10:
        run.log({"loss": float(step)})


@pytest.mark.parametrize(
    ("log", "before"),
    [(plain, False), (plain, True), (counted, False), (counted, True), (rarely, False)],
)
def test_measurements_join_their_rows_and_move_no_step(
    run: wandb.Run, log: Callable[[wandb.Run, int], None], before: bool
) -> None:
    cell = train(run, log, before)
    items = [record["item"] for record in rows(run)]
    measured = [item for item in items if RATE in item]
    assert [item["train/step"] for item in measured] == DUE
    direct = gradlab.watch(X)(0, cell)
    assert direct is not None
    rates = [float(item[RATE]) for item in measured]
    assert rates == pytest.approx([direct.metrics[RATE]] * len(DUE), rel=1e-6)
    losses = {int(item["_step"]): float(item["loss"]) for item in items if "loss" in item}
    if log is plain:
        assert losses == {step: step for step in range(STEPS)}  # as without a watcher
    elif log is counted:
        assert losses == {100 * step: step for step in range(STEPS)}
    if (log, before) in ((plain, False), (counted, True)):  # it stands beside that of its step
        beside = {float(item["loss"]): item["train/step"] for item in measured if "loss" in item}
        assert beside.items() >= {(step, step) for step in DUE[:-1]}
    assert not any("train/loss" in item for item in items)  # they have logged it themselves
    assert reader.records(Path(run.dir).parent, "metric") == []  # no define_metric


def test_the_map_and_its_table_are_logged_now_and_then_and_at_the_end(run: wandb.Run) -> None:
    train(run, plain)
    pictures = [r["item"] for r in rows(run) if "jacobian/map._type" in r["item"]]
    assert len(pictures) == 4  # with the first, second and fourth measurement, and with the last
    assert all("jacobian/map_cells._type" in item for item in pictures)
    folder = Path(run.dir) / "media"
    assert len(list(folder.glob("images/jacobian/*.png"))) == 4


def test_decay_curves_are_of_the_rows_with_pictures_and_of_the_last(run: wandb.Run) -> None:
    with gradlab.watch(X, run=run, every=1) as watcher:
        for step in range(11):
            watcher(step, nnx.SimpleCell(3, 5, rngs=nnx.Rngs(0)))
    run.finish()
    tables = sorted(Path(run.dir).glob("media/table/jacobian/*curves*"), key=os.path.getmtime)
    curves = {row[1] for row in json.loads(tables[-1].read_text())["data"]}
    assert curves == {f"after {step} updates" for step in (0, 1, 3, 7, 10)}


def test_a_reader_of_sweeps_names_the_reader_of_watched_folders(run: wandb.Run) -> None:
    train(run, plain)
    with pytest.raises(FileNotFoundError, match=r"gradlab.watch logged to, gradlab.load_runs"):
        gradlab.load_wandb(Path(run.dir).parents[1])


def test_several_cells_are_told_apart_by_their_names(run: wandb.Run) -> None:
    cells = [nnx.RNN(nnx.SimpleCell(3, 5, rngs=nnx.Rngs(seed))) for seed in (0, 1)]
    with gradlab.watch(X, run=run) as watcher:
        watcher(0, nnx.Bidirectional(*cells))
    run.finish()
    names = set().union(*(record["item"] for record in rows(run)))
    for way in ("forward_rnn", "backward_rnn"):
        assert {f"{way}/{RATE}", f"{way}/jacobian/map._type"} <= names


def test_two_watchers_of_one_run_log_beside_each_other_under_their_names(run: wandb.Run) -> None:
    cells = [nnx.SimpleCell(3, 5, rngs=nnx.Rngs(seed)) for seed in (0, 1)]
    named = {"": cells[0], "test": cells[1]}
    watchers = {name: gradlab.watch(X, run=run, name=name) for name in named}
    for step in range(2):
        for name, watcher in watchers.items():
            watcher(step, named[name], grads={"w": np.ones(1)})
        if step == 0:
            with pytest.raises(
                ValueError, match=r"under the same names, .*give gradlab.watch a name="
            ):
                gradlab.watch(X, run=run, name="test")(0, cells[0])
        plain(run, step)
    for watcher in watchers.values():
        watcher.finish()
    gradlab.watch(X, run=run, name="test")(2, cells[1])  # a later part of the training
    run.finish()
    items = [r["item"] for r in rows(run)]
    assert [item["train/step"] for item in items] == [0, 1, 2]
    for name, cell in named.items():
        direct = gradlab.watch(X)(0, cell)
        assert direct is not None
        prefix = f"{name}/" if name else ""
        rates = [float(item[prefix + RATE]) for item in items[:2]]
        assert rates == pytest.approx([direct.metrics[RATE]] * 2, rel=1e-6)
        assert f"{prefix}jacobian/map._type" in items[0]
        assert items[0][f"{prefix}train/grad_norm"] == 1


def test_a_watcher_that_was_refused_holds_neither_its_run_nor_a_folder(
    run: wandb.Run, tmp_path: Path
) -> None:
    cells = [nnx.RNN(nnx.SimpleCell(3, 5, rngs=nnx.Rngs(seed))) for seed in (0, 1)]
    folder, model = tmp_path / "mine", nnx.Bidirectional(*cells)
    with gradlab.watch(X, folder=folder / "backward_rnn") as other:
        other(0, cells[1])
    refused = gradlab.watch(X, run=run, folder=folder)
    with pytest.raises(ValueError, match="backward_rnn' holds the records of another run"):
        refused(0, model)
    assert not {folder / "forward_rnn", folder / "backward_rnn"} & set(leases.held())
    with gradlab.watch(X, run=run, folder=folder, overwrite=True) as watcher:
        assert watcher(0, model) is not None


def test_the_config_reaches_the_run_and_replaces_nothing_there(run: wandb.Run) -> None:
    run.config.update({"init": {"gain": 3.0}, "lr": 0.1, "clip": "norm"})
    config = {"init.gain": 1.5, "init.std": 0.5, "lr": 0.2, "clip.threshold": 1.0, "seed": 3}
    with gradlab.watch(X, run=run, config=config) as watcher:
        watcher(0, nnx.SimpleCell(3, 5, rngs=nnx.Rngs(0)))
    run.finish()
    logged = reader.summary(Path(run.dir).parent)["config"]
    theirs = {"init": {"gain": 3.0, "std": 0.5}, "lr": 0.1, "clip": "norm"}
    assert {key: logged[key] for key in (*theirs, "seed")} == theirs | {"seed": 3}


def test_clipping_is_logged_and_what_was_not_measured_is_not(run: wandb.Run) -> None:
    cell = nnx.SimpleCell(3, 5, rngs=nnx.Rngs(0))
    with gradlab.watch(X, run=run, clip=1.0, every="ends") as watcher:
        watcher(0, cell)
        for step in (1, 2):
            watcher(step, cell, grads={"w": np.full(1, 2.0 * step)})
    run.finish()
    (row,) = [r["item"] for r in rows(run) if "train/grad_norm" in r["item"]]
    assert (row["train/step"], row["train/grad_norm"], row["train/clip_fraction"]) == (2, 3, 1)


def test_a_run_that_fails_ends_no_training(run: wandb.Run, tmp_path: Path) -> None:
    run.finish()  # whoever logs to it now gets an error
    cell = nnx.SimpleCell(3, 5, rngs=nnx.Rngs(0))
    watcher = gradlab.watch(X, run=run, folder=tmp_path / "mine")
    with pytest.warns(RuntimeWarning, match="logs nothing more to your W&B run: .*finished"):
        assert watcher(0, cell) is not None
    assert watcher(1, cell) is not None  # and it is said once
    watcher.finish()
    assert list(gradlab.load_gradients(tmp_path / "mine")["step"]) == [0, 1]
