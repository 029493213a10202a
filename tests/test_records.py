"""Records are read as they were written, and writing never leaves half a file."""

import errno
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_sweeps import write_point

from gradlab import load_gradients, load_metrics, load_runs, records
from gradlab.probes import Measurement, join_steps, labelled
from gradlab.probes.maps import map_metrics
from gradlab.records.files import RecordError
from gradlab.records.table import with_constants


def test_runs_have_one_row_per_point_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        folder = tmp_path / str(number)
        summary = {"jacobian/horizon": np.inf, "verdict": "stable"}
        config = {"init": {"gain": float(number)}, "clip": {"threshold": np.inf}}
        records.save_config(folder, config, {"state": "done", "summary": summary})
    runs = load_runs(tmp_path, "all")
    assert list(runs["init.gain"]) == [1, 2, 10]
    assert list(runs["path"]) == [str(tmp_path / name) for name in ("1", "2", "10")]
    assert set(runs["status"]) == {"done"}
    assert np.isinf(runs["clip.threshold"]).all()
    assert np.isinf(runs["jacobian/horizon"]).all()


def test_a_failed_point_is_a_row_with_its_reason(tmp_path: Path) -> None:
    status = {"state": "failed", "reason": "out of luck"}
    records.save_config(tmp_path / "0", {"seed": 1}, status)
    (run,) = load_runs(tmp_path).to_dict("records")
    assert (run["status"], run["reason"], run["seed"]) == ("failed", "out of luck", 1)
    with pytest.raises(FileNotFoundError, match=r"holds no gradients\.nc"):
        load_gradients(run["path"])


@pytest.mark.parametrize("load", [load_gradients, load_metrics])
def test_a_sweeps_folder_is_no_points(tmp_path: Path, load: Callable[[Path], object]) -> None:
    write_sweep(tmp_path / "swept", "0")
    with pytest.raises(FileNotFoundError, match="swept' is a sweep's folder: give a point's"):
        load(tmp_path / "swept")
    with pytest.raises(FileNotFoundError, match="nowhere' is no folder: give a point's"):
        load(tmp_path / "nowhere")


def write_sweep(folder: Path, *names: str) -> None:
    """A sweep whose points have their place in the list as seed."""
    points = [{"folder": name, "config": {"seed": n}} for n, name in enumerate(names)]
    records.save_sweep(folder, points)
    for point in points:
        records.save_config(folder / str(point["folder"]), point["config"], {"state": "done"})  # type: ignore[arg-type]


def read(folder: Path) -> dict[str, int]:
    """The seed of each point that `load_runs` reads, by its path below a folder."""
    runs = load_runs(folder)
    paths = [str(Path(path).relative_to(folder)) for path in runs["path"]]
    assert len(set(paths)) == len(paths)
    return dict(zip(paths, runs["seed"], strict=True))


def test_points_are_read_at_any_depth(tmp_path: Path) -> None:
    write_sweep(tmp_path / "deep", "rnn/1", "rnn/2", "lstm/a/b/c")
    write_sweep(tmp_path / "flat", "0", "1")
    assert read(tmp_path) == {
        "deep/rnn/1": 0,
        "deep/rnn/2": 1,
        "deep/lstm/a/b/c": 2,
        "flat/0": 0,
        "flat/1": 1,
    }


def test_linked_sweeps_and_points_are_read_once(tmp_path: Path) -> None:
    write_sweep(tmp_path / "s", "0", "1")
    write_sweep(tmp_path / "t", "x/0")
    links = tmp_path / "all"
    links.mkdir()
    for name, target in {"s": "../s", "again": "../s", "point": "../s/1", "deep": "../t/x"}.items():
        (links / name).symlink_to(target)
    assert sorted(read(links).values()) == [0, 0, 1]
    (tmp_path / "s/0/up").symlink_to("..")  # cycles
    (tmp_path / "t/x/all").symlink_to(links)
    (tmp_path / "t/x/0/top").symlink_to(tmp_path)
    assert sorted(read(links).values()) == [0, 0, 1]
    assert set(read(tmp_path)) == {"s/0", "s/1", "t/x/0"}  # by their own paths


def test_what_lies_above_a_folder_is_not_read_by_a_link(tmp_path: Path) -> None:
    write_sweep(tmp_path / "a" / "s", "0")
    write_sweep(tmp_path / "b", "0")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert set(read(tmp_path / "a")) == {"s/0"}


def test_a_link_to_nothing_is_warned_of(tmp_path: Path) -> None:
    write_sweep(tmp_path / "s", "0")
    (tmp_path / "gone").symlink_to("nosuch")
    with pytest.warns(UserWarning, match="gone is a link to nothing"):
        assert set(read(tmp_path)) == {"s/0"}


@pytest.mark.parametrize("copy", ["of the sweep", "linked", "of the sweep, linked points"])
def test_a_copy_without_hidden_files_has_its_configs_in_the_sweep(
    copy: str, tmp_path: Path
) -> None:
    write_sweep(tmp_path / "s", "0", "rnn/7")
    expected = load_runs(tmp_path / "s").drop(columns=["path", "sweep"])
    shutil.copytree(tmp_path / "s", tmp_path / "copy", ignore=shutil.ignore_patterns(".*"))
    folder = tmp_path / "copy"
    if copy == "linked":
        (tmp_path / "all").mkdir()
        (tmp_path / "all" / "link").symlink_to(folder)
        folder = tmp_path / "all"
    elif copy == "of the sweep, linked points":
        folder = tmp_path / "points"
        folder.mkdir()
        (folder / "0").symlink_to(tmp_path / "copy" / "0")
        (folder / "7").symlink_to(tmp_path / "copy" / "rnn" / "7")
    pd.testing.assert_frame_equal(load_runs(folder).drop(columns=["path", "sweep"]), expected)


def test_a_point_whose_config_was_not_copied_is_named(tmp_path: Path) -> None:
    write_sweep(tmp_path / "s", "0", "1")
    shutil.rmtree(tmp_path / "s/1/.hydra")
    (tmp_path / "s/sweep.json").unlink()
    whole, bare = load_runs(tmp_path / "s").to_dict("records")
    assert (whole["status"], bare["status"]) == ("done", "unknown")
    assert re.search(r"no \.hydra.*copy the sweep's folder whole", bare["reason"])
    with pytest.raises(FileNotFoundError, match=r"hydra\.yaml is missing"):
        records.load_choices(tmp_path / "s/1")


def test_a_copy_that_follows_links_has_each_point_once(tmp_path: Path) -> None:
    write_sweep(tmp_path / "s", "0", "1")
    for point in ("0", "1"):
        run = tmp_path / "s" / "wandb" / f"run-{point}"
        run.mkdir(parents=True)
        (run / "status.json").write_text("not a point's")
        (tmp_path / "s" / point / "wandb").symlink_to(run)
    shutil.copytree(tmp_path / "s", tmp_path / "copy", symlinks=False)
    assert read(tmp_path / "copy") == {"0": 0, "1": 1}


def test_a_copy_of_a_point_in_its_own_sweep_counts_once(tmp_path: Path) -> None:
    status = {"state": "done", "identity": "a", "summary": {"eval/loss": 1.0}}
    records.save_sweep(tmp_path, [{"folder": "0", "identity": "a", "config": {"seed": 0}}])
    records.save_config(tmp_path / "0", {"seed": 0}, status)
    shutil.copytree(tmp_path / "0", tmp_path / "0 (copy)")
    runs = load_runs(tmp_path)
    assert list(runs["status"]) == ["unknown", "done"]
    assert runs["reason"][0] == f"it is a copy of {tmp_path / '0'}, which counts once"
    assert runs["eval/loss"].count() == 1
    shutil.rmtree(tmp_path / "0")  # it was moved
    assert list(load_runs(tmp_path)["status"]) == ["done", "unknown"]


def test_gradients_keep_their_numbers_and_units(tmp_path: Path) -> None:
    maps = {step: np.random.default_rng(step).normal(size=(2, 4, 4)) for step in (0, 50)}
    times, dims = [0, 3, 6, 9], ("sample", "t", "k")
    measured = {
        step: Measurement(
            {}, {"jacobian_log_norm": labelled(x, dims, {"t": times, "k": times}, units="nats")}
        )
        for step, x in maps.items()
    }
    records.save_gradients(tmp_path, join_steps(measured), {"state": "done"})
    variable = load_gradients(tmp_path)["jacobian_log_norm"]
    assert variable.dims == ("step", "sample", "t", "k")
    assert variable.attrs["units"] == "nats"
    assert variable["step"].attrs["units"] == "updates"
    np.testing.assert_array_equal(variable["t"], [0, 3, 6, 9])
    np.testing.assert_allclose(variable.sel(step=50), maps[50], rtol=1e-6)


def test_metrics_keep_infinities_and_missing_values(tmp_path: Path) -> None:
    rows = pd.DataFrame([{"train/step": 0, "jacobian/horizon": np.inf}, {"train/step": 1}])
    records.save_metrics(tmp_path, rows, {"state": "done"})
    pd.testing.assert_frame_equal(records.load_metrics(tmp_path), rows)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    records.save_status(tmp_path, {"state": "running"})
    with pytest.raises(TypeError):
        records.save_status(tmp_path, {"state": object()})
    assert '"running"' in (tmp_path / "status.json").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


@pytest.mark.parametrize("missing", ["nosuch", "."])
def test_a_folder_without_points_is_named(tmp_path: Path, missing: str) -> None:
    with pytest.raises(FileNotFoundError, match="that a sweep wrote"):
        load_runs(tmp_path / missing)


def test_map_metrics_count_in_time_steps() -> None:
    lags = np.subtract.outer(np.arange(9), np.arange(9))
    maps = np.where(lags >= 0, -0.5 * lags, -np.inf)[None]  # −0.5 nats per stride of 2 steps
    metrics = map_metrics(maps, stride=2)
    assert metrics["jacobian/decay_rate"] == pytest.approx(-0.25)
    assert metrics["jacobian/horizon"] == pytest.approx(4)
    assert metrics["jacobian/log_norm/lag_2"] == pytest.approx(-0.5)
    assert metrics["jacobian/log_norm/lag_16"] == pytest.approx(-4)
    assert "jacobian/log_norm/lag_1" not in metrics


def test_a_status_is_strict_json_and_reads_back(tmp_path: Path) -> None:
    summary = {"jacobian/horizon": np.inf, "train/loss": np.nan, "a": -np.inf, "verdict": "stable"}
    records.save_status(tmp_path, {"state": "done", "summary": summary})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "status.json").read_text()
    assert json.loads(text, parse_constant=refuse)["summary"]["jacobian/horizon"] == "inf"
    np.testing.assert_equal(records.load_status(tmp_path)["summary"], summary)


def test_a_full_disk_gives_one_sentence_and_leaves_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pd.DataFrame([{"train/step": 0}])
    status = {"state": "running"}
    records.save_metrics(tmp_path, rows, status)

    def fill_disk(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fill_disk)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", fill_disk)
    for save in (
        lambda: records.save_status(tmp_path, {"state": "done"}),
        lambda: records.save_metrics(tmp_path, rows * 2, status),
    ):
        with pytest.raises(RecordError, match="could not be written: No space left on dev"):
            save()
    pd.testing.assert_frame_equal(records.load_metrics(tmp_path), rows)
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.parquet", "status.json"}


def test_a_folder_that_cannot_be_made_gives_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RecordError, match=r"status\.json could not be written"):
        records.save_status(tmp_path / "file" / "0", {"state": "running"})


def test_the_columns_are_what_varies_and_the_metrics(tmp_path: Path) -> None:
    for number, gain in enumerate((0.5, 1.0, 2.0)):
        write_point(tmp_path / str(number), None, gain=gain, threshold=np.inf)
    short, whole = load_runs(tmp_path), load_runs(tmp_path, "all")
    columns = {"model.name", "init.gain", "task.length", "seed", "jacobian/decay_rate", "verdict"}
    assert set(short) == columns | {"status", "reason", "sweep", "path", "wandb.tags"}
    assert set(whole) == set(short) | set(short.attrs["constant"])
    assert short.attrs["constant"]["optim.learning_rate"] == 0.01
    pd.testing.assert_frame_equal(with_constants(short)[list(whole)], whole)
    pd.testing.assert_frame_equal(with_constants(short[:2])[list(whole)], whole[:2])


def test_a_key_that_differs_in_a_damaged_point_stays(tmp_path: Path) -> None:
    configs = [{"init": {"gain": gain}, "optim": {"rate": 0.1}} for gain in (0.5, 2.0)]
    points = [{"folder": str(n), "config": config} for n, config in enumerate(configs)]
    records.save_sweep(tmp_path, points)
    records.save_config(tmp_path / "0", configs[0], {"state": "done"})
    runs = load_runs(tmp_path)
    assert list(runs["status"]) == ["done", "unknown"]
    assert list(runs["init.gain"]) == [0.5, 2.0]
    assert "optim.rate" not in runs


def test_columns_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'varying' or 'all'; got 'every'"):
        load_runs(tmp_path, "every")  # type: ignore[arg-type]
