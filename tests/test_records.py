"""Records are read as they were written, and writing never leaves half a file."""

import errno
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradlab import load_gradients, load_runs, records
from gradlab.probes import Measurement, join_steps, labelled
from gradlab.probes.maps import map_metrics


def test_runs_have_one_row_per_point_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        folder = tmp_path / str(number)
        records.save_config(
            folder, {"init": {"gain": float(number)}, "clip": {"threshold": np.inf}}
        )
        summary = {"jacobian/horizon": np.inf, "verdict": "stable"}
        records.save_status(folder, {"state": "done", "summary": summary})
    runs = load_runs(tmp_path)
    assert list(runs["init.gain"]) == [1, 2, 10]
    assert list(runs["path"]) == [str(tmp_path / name) for name in ("1", "2", "10")]
    assert set(runs["status"]) == {"done"}
    assert np.isinf(runs["clip.threshold"]).all()
    assert np.isinf(runs["jacobian/horizon"]).all()


def test_a_failed_point_is_a_row_with_its_reason(tmp_path: Path) -> None:
    records.save_config(tmp_path / "0", {"seed": 1})
    records.save_status(tmp_path / "0", {"state": "failed", "reason": "out of luck"})
    (run,) = load_runs(tmp_path).to_dict("records")
    assert (run["status"], run["reason"], run["seed"]) == ("failed", "out of luck", 1)
    with pytest.raises(FileNotFoundError, match=r"holds no gradients\.nc"):
        load_gradients(run["path"])


def test_gradients_keep_their_numbers_and_units(tmp_path: Path) -> None:
    maps = {step: np.random.default_rng(step).normal(size=(2, 4, 4)) for step in (0, 50)}
    times, dims = [0, 3, 6, 9], ("sample", "t", "k")
    measured = {
        step: Measurement(
            {}, {"jacobian_log_norm": labelled(x, dims, {"t": times, "k": times}, units="nats")}
        )
        for step, x in maps.items()
    }
    records.save_gradients(tmp_path, join_steps(measured))
    variable = load_gradients(tmp_path)["jacobian_log_norm"]
    assert variable.dims == ("step", "sample", "t", "k")
    assert variable.attrs["units"] == "nats"
    assert variable["step"].attrs["units"] == "updates"
    np.testing.assert_array_equal(variable["t"], [0, 3, 6, 9])
    np.testing.assert_allclose(variable.sel(step=50), maps[50], rtol=1e-6)


def test_metrics_keep_infinities_and_missing_values(tmp_path: Path) -> None:
    rows = pd.DataFrame([{"train/step": 0, "jacobian/horizon": np.inf}, {"train/step": 1}])
    records.save_metrics(tmp_path, rows)
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
    records.save_metrics(tmp_path, rows)

    def fill_disk(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fill_disk)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", fill_disk)
    for save in (
        lambda: records.save_status(tmp_path, {"state": "done"}),
        lambda: records.save_metrics(tmp_path, rows * 2),
    ):
        with pytest.raises(records.RecordError, match="could not be written: No space left on dev"):
            save()
    pd.testing.assert_frame_equal(records.load_metrics(tmp_path), rows)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.parquet"]


def test_a_folder_that_cannot_be_made_gives_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(records.RecordError, match=r"status\.json could not be written"):
        records.save_status(tmp_path / "file" / "0", {"state": "running"})
