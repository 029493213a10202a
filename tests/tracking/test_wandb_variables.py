"""W&B's environment variables: heard where the command line and its experiment say nothing."""

import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import wandb_reader as reader
from hydra.types import RunMode
from hypothesis import given
from hypothesis import strategies as st

import gradlab
from gradlab import config
from gradlab.__main__ import CONF
from gradlab.components import ConfigError
from gradlab.from_python import hydra_apart
from gradlab.identity import identity, training_digest
from gradlab.tracking import environment, runs
from gradlab.tracking.runs import track
from hydra_plugins.gradlab_commands import commands

VARIABLES = {
    "WANDB_MODE": "disabled",
    "WANDB_PROJECT": "reach",
    "WANDB_ENTITY": "us",
    "WANDB_TAGS": "a, b",
    "WANDB_RUN_GROUP": "june",
    "WANDB_NAME": "first",
    "WANDB_NOTES": "no gate",
    "WANDB_RUN_ID": "r1-un_",
}
HEARD = {
    "mode": "disabled",
    "project": "reach",
    "entity": "us",
    "tags": ["a", "b"],
    "group": "june",
    "name": "first",
    "notes": "no gate",
    "id": "r1-un_",
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, environment.SWEEP_ID, environment.PARAMETERS, environment.FOLDER):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def composed(words: Sequence[str], own: Path | None = None) -> config.Config:
    """The checked config of a command of one point."""
    with hydra_apart():
        hydra = commands(CONF, own)
        return config.check(hydra.compose_config("config", list(words), RunMode.MULTIRUN))


def test_each_variable_is_heard_and_changes_no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = composed(())
    assert silent.wandb == config.Wandb()
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    heard = composed(())
    assert asdict(heard.wandb) == HEARD
    assert identity(heard) == identity(silent)
    assert training_digest(heard) == training_digest(silent)


def test_the_command_and_its_experiment_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "experiment").mkdir()
    header = "# @package _global_\ndefaults: [override /wandb: online]\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(f"{header}wandb: {{project: study}}\n")
    words = ["+experiment=mine", "wandb.tags=[c]", "wandb.name=null"]
    assert asdict(composed(words, tmp_path).wandb) == HEARD | {
        "mode": "online",
        "project": "study",
        "tags": ["c"],
        "name": None,
    }
    assert composed(["wandb=offline"]).wandb.mode == "offline"
    assert composed(["wandb.mode=online"]).wandb.mode == "online"


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({"WANDB_MODE": "run"}, "online"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_MODE": ""}, "offline"),
        ({"WANDB_SWEEP_ID": "sw33p"}, "online"),  # the agent waits for the run there
        ({"WANDB_SWEEP_ID": "sw33p", "WANDB_MODE": "dryrun"}, "offline"),
    ],
)
def test_the_mode_is_said_in_any_of_wandbs_words(
    variables: dict[str, str], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert composed(()).wandb.mode == mode


WRONG = {
    "WANDB_MODE": ("sometimes", "WANDB_MODE must be one of offline, online, disabled; got 'some"),
    "WANDB_PROJECT": ("a/b", "WANDB_PROJECT must be without the characters / "),
    "WANDB_RUN_ID": ("a b", "WANDB_RUN_ID must be 1 to 64 letters, digits, _ or -; got 'a b'"),
    "WANDB_TAGS": ("x" * 65, "WANDB_TAGS must have at most 64 characters"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value, sentence = WRONG[name]
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=sentence):
        composed(())


@given(st.lists(st.text(st.characters(exclude_characters=","), min_size=1).map(str.strip)))
def test_tags_are_those_between_commas(tags: list[str]) -> None:
    heard = [default.value for default in environment.defaults({"WANDB_TAGS": " , ".join(tags)})]
    kept = [tag for tag in tags if tag]
    assert heard == ([kept] if kept else [])


@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_several_points_are_no_one_run(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written; today's points of an agent else end with one run of many."""
    monkeypatch.setenv("WANDB_RUN_ID", "r1un")
    words = ("seed=0,1", "train.steps=0", f"hydra/launcher={launcher}")
    with pytest.raises(ConfigError, match="2 points cannot be one W&B run, 'r1un'"):
        gradlab.sweep(*words, folder=tmp_path / "sweep")
    assert not any(tmp_path.iterdir())
    if launcher == "fused":
        for word in ("wandb=disabled", "wandb.id=null"):
            gradlab.sweep(*words, word, "--dry", folder=tmp_path / "sweep")


def test_a_run_is_what_the_section_says(tmp_path: Path) -> None:
    settings = HEARD | {"mode": "offline"}
    config = {"wandb": settings, "seed": 3}
    gradlab.records.save_sweep(tmp_path, [])
    with track(tmp_path / "0", config, "study/today", "seed=3") as tracker:
        tracker.log({"train/step": 0, "eval/loss": 2.0})
    (run,) = reader.records(tmp_path / "0" / "wandb", "run")
    written = {"run_id", "project", "entity", "run_group", "notes", "tags", "display_name"}
    assert {key: run[key] for key in written} == {
        "run_id": "r1-un_",
        "project": "reach",
        "entity": "us",
        "run_group": "june",
        "notes": "no gate",
        "tags": ["a", "b"],
        "display_name": "first, seed=3",
    }
    (place,) = (tmp_path / "wandb").glob("offline-run-*")
    assert re.fullmatch(r"offline-run-\d+_\d+-r1-un_", place.name)


def test_a_name_is_that_of_a_sweeps_only_run(tmp_path: Path) -> None:
    setting = runs.Setting("RNN", "RNN, seed 3")
    point: dict[str, Any] = {"number": 0, "folder": "0", "overrides": [], "identity": "x"}
    gradlab.records.save_sweep(tmp_path / "one", [point | {"config": {"seed": 3}}])
    two = [point | {"number": n, "folder": str(n), "config": {"seed": n}} for n in (0, 1)]
    gradlab.records.save_sweep(tmp_path / "two", two)
    assert runs.run_name("first", setting, tmp_path / "one" / "0") == "first"
    assert runs.run_name("first", setting, tmp_path / "two" / "0") == "first, RNN, seed 3"
    assert runs.run_name(None, setting, tmp_path / "one" / "0") == "RNN, seed 3"


def test_runs_lie_in_their_sweep_whatever_wandb_dir_says(tmp_path: Path) -> None:
    here, elsewhere = str(tmp_path), str(tmp_path / "elsewhere")
    assert environment.unheard({}, tmp_path) == ""
    assert "hydra.sweep.dir" in environment.unheard({"WANDB_DIR": here}, tmp_path)
    agents = {"WANDB_DIR": here, "WANDB_SWEEP_ID": "sw33p"}  # an agent sets both
    assert environment.unheard(agents, tmp_path) == ""
    assert "WANDB_DIR" in environment.unheard(agents | {"WANDB_DIR": elsewhere}, tmp_path)


def test_an_upload_is_not_that_of_another_run() -> None:
    kept = {"WANDB_API_KEY": "k", "WANDB_BASE_URL": "u", "PATH": os.environ["PATH"]}
    agents = {"WANDB_SWEEP_ID": "s", "WANDB_SWEEP_PARAM_PATH": "p", "WANDB_DIR": "."}
    assert environment.without({**kept, **VARIABLES, **agents}) == kept
