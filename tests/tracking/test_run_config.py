"""The config of a W&B run, from which its point's comes back."""

from typing import Any

import numpy as np
import pytest

from gradlab.tracking.run_config import is_point, point_config, run_config

CONFIG: dict[str, Any] = {
    "name": "x",
    "clip": {"threshold": np.inf},
    "wandb": {"mode": "offline", "entity": None, "tags": ["a"]},
    "sweep": {"resume": None, "lanes": "auto"},
    "seed": 3,
}


def test_a_points_config_comes_back_from_its_runs() -> None:
    run = run_config(CONFIG, "x/today/0", "ab12", "LSTM, gain 2")
    assert set(run) == {"name", "clip", "seed", "path", "sweep_id", "setting", "bookkeeping"}
    assert is_point(run)
    assert point_config(run | {"_wandb": {}}) == CONFIG
    assert "sweep_id" not in run_config(CONFIG, "x/today/0", "", "LSTM, gain 2")


def test_a_run_of_an_earlier_version_has_its_sections_as_they_are() -> None:
    earlier = CONFIG | {"path": "x/today/0", "sweep_id": "ab12"}
    assert is_point(earlier)
    assert point_config(earlier) == CONFIG


@pytest.mark.parametrize("packed", ["[1]", '{"init": {"gain": 9}}', "nothing"])
def test_bookkeeping_that_is_something_else_is_refused(packed: str) -> None:
    with pytest.raises(ValueError, match=r"bookkeeping is not as it was written|Expecting value"):
        point_config({"path": "x/today/0", "bookkeeping": packed})


def test_runs_of_others_are_no_points() -> None:
    assert not is_point({"path": "data", "lr": 0.1})
    assert not is_point(CONFIG)
