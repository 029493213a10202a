"""Commands that W&B's agents start: the real agent's, with a server of ours on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
import wandb_reader as reader
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from logged_sweeps import write_sweep
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args
from wandb_server import Server, serving

from gradlab import load_runs, load_wandb
from gradlab.__main__ import CONF
from gradlab.explain.words import arguments

SWEEP = yaml.safe_load((CONF / "wandb_sweep.yaml").read_text(encoding="utf-8"))
SMALL = ("model.hidden_size=4", "task.length=4", "task.items=2", "task.test_size=8")
CHOSEN = {"init.gain": 0.5, "bias.value": 1e-05, "optim.learning_rate": 0.01}
NUMBERS = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, min_size=1, max_size=3),
    max_leaves=3,
)


class SweepServer(Server):
    """Has one sweep, and one run for the first agent."""

    command: list[str] = SWEEP["command"]
    given = False

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        query = body.get("query", "")
        if "SweepWithRuns" in query:
            content = yaml.safe_dump(SWEEP | {"command": self.command})
            sweep = {"id": "s", "name": "sw33p", "config": content, "runs": {"edges": []}}
            return {"data": {"project": {"sweep": sweep}}}
        if "CreateAgent" in query:
            return {"data": {"createAgent": {"agent": {"id": "a"}}}}
        if "Heartbeat" in query:
            values = {name: {"value": value} for name, value in CHOSEN.items()}
            run = {"type": "run", "run_id": "r1un", "program": SWEEP["program"], "args": values}
            commands = json.dumps([] if self.given else [run])
            self.given = True
            return {"data": {"agentHeartbeat": {"agent": {"id": "a"}, "commands": commands}}}
        if "Viewer" in query:
            return {"data": {"viewer": {"id": "u", "entity": "me", "username": "me"}}}
        return super().reply(body)


def test_the_docs_show_the_shipped_sweep() -> None:
    page = (Path(__file__).parents[2] / "docs" / "wandb.md").read_text(encoding="utf-8")
    shipped = (CONF / "wandb_sweep.yaml").read_text(encoding="utf-8")
    assert f"```yaml\n{shipped}```" in page


def test_the_shipped_sweep_runs_under_the_real_agent(tmp_path: Path) -> None:
    """The agent's run has the agent's id and sweep, its values, and the metric that is searched."""
    search = {name: entry["distribution"] for name, entry in SWEEP["parameters"].items()}
    assert search.keys() == CHOSEN.keys()
    with serving("accepts", SweepServer) as server:
        hyphens = {"${args_no_hyphens}": "${args}"}  # the agent's default
        command = [hyphens.get(word, word) for word in SWEEP["command"]]
        server.command = [*command, *SMALL, "train.steps=0"]
        agent = [sys.executable, "-m", "wandb", "agent", "--count", "1", "me/reach/sw33p"]
        environment = os.environ | {
            "WANDB_BASE_URL": server.url,
            "WANDB_API_KEY": "0" * 40,
            "HOME": str(tmp_path / "home"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        done = subprocess.run(agent, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        sent = [body["variables"] for _, body in server.received if "upsert" in str(body)]
        losses = [row["eval/loss"] for row in server.history() if "eval/loss" in row]
        summary = json.loads(server.files["files/r1un/wandb-summary.json"])
    assert "WANDB_DIR is not used" not in done.stderr
    assert {(run["name"], run["project"], run["entity"]) for run in sent} == {
        ("r1un", "reach", "me")
    }
    assert sent[0]["sweep"] == "sw33p"  # of later ones only the config counts
    config = json.loads(sent[-1]["config"])
    assert {name: config[name]["value"] for name in CHOSEN} == CHOSEN
    (run,) = load_runs(tmp_path / "runs", "all").to_dict("records")
    assert {name: run[name] for name in CHOSEN} == CHOSEN
    assert SWEEP["metric"]["name"] == "eval/loss"
    assert summary["eval/loss"] == losses[-1] == pytest.approx(run["eval/loss"])


def test_a_section_that_an_agent_has_chosen_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`model: lstm` is what the search wants to find in a run's config, in the section's place."""
    chosen = {"init": "orthogonal", "init.gain": 2.0, "seed": 3, "experiment": "mine"}
    values = tmp_path / "wandb" / "sweep-sw33p" / "config-r1un.yaml"
    values.parent.mkdir(parents=True)
    content = {"wandb_version": 1} | {name: {"value": value} for name, value in chosen.items()}
    values.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("WANDB_RUN_ID", "r1un")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sw33p")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(values))
    wandb.teardown()  # the settings are read anew
    sweep = write_sweep(tmp_path / "sweep", 2.0, id="r1un")
    (run,) = reader.records(sweep / "0" / "wandb", "run")
    assert (run["run_id"], run["sweep_id"], run["project"]) == ("r1un", "sw33p", "reach")
    assert chosen.items() <= run["config"]["update"].items()
    before, after = load_runs(sweep, "all"), load_wandb(sweep / "wandb", columns="all")
    assert {"experiment", "chosen_by_agent"}.isdisjoint(after.columns)
    assert after["init.gain"].item() == before["init.gain"].item() == 2.0


@given(value=st.none() | NUMBERS)
@pytest.mark.parametrize("form", ["args", "args_no_hyphens", "args_override_hydra"])
def test_an_agents_values_arrive(form: str, value: Any) -> None:
    words = create_sweep_command_args({"args": {"optim.b1": {"value": value}}})[form]
    (override,) = OverridesParser.create().parse_overrides(arguments(words, CONF))
    assert (override.key_or_group, override.value()) == ("optim.b1", value)


@pytest.mark.parametrize("form", ["args", "args_no_hyphens"])
def test_a_nested_parameter_sets_the_keys_of_its_section(form: str) -> None:
    values = {"init": {"value": {"gain": 0.5, "scale": {"of": None}}}, "model": {"value": "lstm"}}
    words = create_sweep_command_args({"args": values})[form]
    assert arguments(words, CONF) == ["init.gain=0.5", "init.scale.of=null", "model=lstm"]


@pytest.mark.parametrize("text", ["a b", "data/my file.csv", "mean"])
def test_an_agents_text_arrives(text: str) -> None:
    words = create_sweep_command_args({"args": {"wandb.notes": {"value": text}}})["args"]
    (override,) = OverridesParser.create().parse_overrides(arguments(words, CONF))
    assert override.value() == text
