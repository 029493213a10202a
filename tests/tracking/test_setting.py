"""What a point's setting says, and its outcome by what its sweep varies."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb_reader as reader
from logged_sweeps import ROWS
from synthetic_sweeps import geometric

from gradlab import records
from gradlab.tracking.runs import OUTCOMES, track
from gradlab.tracking.setting import COLUMNS, LAST, outcome_table, setting_of

MAPS = geometric()["jacobian_log_norm"]


def config(model: str, gain: float, threshold: float, seed: int, **more: Any) -> dict[str, Any]:
    own = {"model": {"name": model}, "init": {"gain": gain}, "clip": {"threshold": threshold}}
    offline = {"mode": "offline", "project": "reach", "entity": None, "tags": []}
    return {"name": "x", **own, "seed": seed, "wandb": offline, **more}


def write(sweep: Path, *configs: dict[str, Any]) -> list[Path]:
    """Write a sweep's record; return the folders of its points."""
    points = [{"folder": str(i), "config": own} for i, own in enumerate(configs)]
    records.save_sweep(sweep, points)
    return [sweep / point["folder"] for point in points]


def test_a_setting_words_what_varies_without_the_seed(tmp_path: Path) -> None:
    configs = [
        config(model, gain, threshold, seed)
        for model in ("rnn", "lstm")
        for gain in (0.5, 1.0)
        for threshold in (1.0, np.inf)
        for seed in (0, 1)
    ]
    folders = write(tmp_path, *configs)
    settings = [setting_of(*x, "words") for x in zip(folders, configs, strict=True)]
    assert settings[0].text == settings[1].text == "RNN, gain 0.5, clip threshold 1"
    assert [settings[i].name for i in (0, 1)] == [f"{settings[0].text}, seed {i}" for i in (0, 1)]
    assert settings[-1].text == "LSTM, gain 1, clip threshold none"
    assert len({setting.text for setting in settings}) == 8
    model, gain, threshold = settings[-1].axes
    assert model == ("model.name", "LSTM", 0.0, "gain 1, clip threshold none")
    assert gain == ("init.gain", "1", 1.0, "LSTM, clip threshold none")
    assert threshold == ("clip.threshold", "none", LAST, "LSTM, gain 1")


def test_where_the_seed_alone_varies_the_setting_is_the_model(tmp_path: Path) -> None:
    configs = [config("gru", 1.0, 1.0, seed) for seed in (3, 4)]
    folders = write(tmp_path, *configs)
    assert setting_of(folders[1], configs[1], "seed=4") == ("GRU", "GRU, seed 4", ())
    (alone,) = write(tmp_path / "alone", configs[0])
    words = "model=gru,+init.gain=1,train.steps=9,probe=[a,b],clip.threshold=1"
    text = "GRU, gain 1, clip threshold 1"  # what the command sets
    assert setting_of(alone, configs[0], words) == (text, f"{text}, seed 3", ())


def test_bookkeeping_and_keys_that_only_some_points_have_do_no_harm(tmp_path: Path) -> None:
    configs = [
        config("rnn", 1.0, 1.0, 0, task={"delay": 3, "pair": [1, 2]}, sweep={"lanes": "auto"}),
        config("rnn", 1.0, 1.0, 0, task={"pair": [2, 1]}, sweep={"lanes": 2}),
    ]
    folders = write(tmp_path, *configs)
    texts = [setting_of(*x, "").text for x in zip(folders, configs, strict=True)]
    assert texts == ["delay 3", "delay none"]  # which tells them apart


def test_without_a_record_of_the_sweep_the_overrides_but_the_seed_are_the_setting(
    tmp_path: Path,
) -> None:
    words = "model=rnn,seed=3,init.gain=2"
    setting = setting_of(tmp_path / "0", config("rnn", 2.0, 1.0, 3), words)
    assert setting == ("model=rnn,init.gain=2", words, ())
    records.save_sweep(tmp_path, [])
    assert setting_of(tmp_path / "0", config("rnn", 2.0, 1.0, 3), words) == setting


def test_an_outcome_is_in_decades_and_its_horizon_ends_with_the_map(tmp_path: Path) -> None:
    configs = [config("rnn", gain, 1.0, 0) for gain in (1.0, 2.0)]
    setting = setting_of(write(tmp_path, *configs)[1], configs[1], "")
    summary = {"jacobian/decay_rate": -np.log(10), "jacobian/horizon": np.inf}
    table = outcome_table(setting, summary | {"success/solved": 1.0}, MAPS)
    (row,) = (dict(zip(table.columns, row, strict=True)) for row in table.data)
    assert tuple(row) == COLUMNS
    assert (row["axis"], row["value"], row["order"], row["series"]) == ("init.gain", "2", 2.0, "")
    assert row["decay_rate"] == pytest.approx(-1)
    assert (row["horizon"], row["solved"], row["accuracy"]) == (8, 1, None)
    diverged = outcome_table(setting, {"jacobian/decay_rate": np.nan}, None)
    assert diverged.data[0][-4:] == [None] * 4


def test_a_run_has_its_setting_and_is_named_by_it_also_when_it_runs_again(tmp_path: Path) -> None:
    configs = [config("rnn", gain, 1.0, seed) for gain in (1.0, 2.0) for seed in (0, 1)]
    folder = write(tmp_path, *configs)[3]
    for _ in range(2):
        with track(folder, configs[3], "reach/today", "init.gain=2,seed=1") as tracker:
            tracker.log(ROWS[0])
            tracker.finish({"state": "done", "summary": ROWS[-1]}, None)
        run = reader.summary(folder / "wandb")
        assert run["config"]["setting"] == "gain 2"
        assert run["name"] == "gain 2, seed 1"
        assert run["summary"][OUTCOMES]["_type"] == "table-file"
    assert {"wandb", "sweep"}.isdisjoint(run["config"])  # a column each would say nothing
