"""The command line as a person meets it: help, and one sentence for each wrong input."""

import sys
from pathlib import Path

import pytest
from conftest import gradlab

from gradlab import __main__ as command

WRONG = {
    "model.hidden_size=0": ("model.hidden_size", "greater than or equal to 1", "got 0"),
    "model.hidden_size=many": ("model.hidden_size", "Integer", "'many'"),
    "model.hiden_size=3": ("model.hiden_size", "hidden_size, num_layers", "Did you mean"),
    "model=transformer": ("model", "gru, lstm, rnn", "'transformer'"),
    "model.cell._target_=no.such.Module": ("model.cell._target_", "imported", "'no.such.Module'"),
    "model.cell._target_=math.sqrt": ("model.cell._target_", "RNNCellBase", "'math.sqrt'"),
    "task.length=0": ("task.length", "1, 2, 4, 8, 16, 32, 64", "got 0"),
    "clip.threshold=-1": ("clip.threshold", "greater than 0", "got -1"),
    "clip.threshold=nan": ("clip.threshold", "greater than 0", "got nan"),
    "init.gain=-1": ("init.gain", "greater than or equal to 0", "got -1"),
    "optim.learning_rate=nan": ("optim.learning_rate", "finite", "got nan"),
    "wandb.mode=sometimes": ("wandb.mode", "offline, online, disabled", "'sometimes'"),
    "probe.jacobian.norm=nuclear": (
        "probe.jacobian.norm",
        "'spectral', 'frobenius' or 'rms'",
        "'nuclear'",
    ),
    "probe.jacobian.of=c": ("probe.jacobian.of", "'h'", "got 'c'"),
    "probe.stride=100": ("probe.stride", "8 steps", "got 100"),
    "tbptt.window=100": ("tbptt.window", "8 steps", "got 100"),
    "tbptt.window=0": ("tbptt.window", "greater than or equal to 1", "got 0"),
    "tbptt.stride=2": ("tbptt.stride", "tbptt.window=STEPS", "got 2"),
    "tbptt.update=always": ("tbptt.update", "sequence, segment", "'always'"),
    "regulariser=l2": ("regulariser", "none, omega", "'l2'"),
    "seed=-1": ("seed", "greater than or equal to 0", "got -1"),
    "+experiment=nosuch": ("experiment", "quickstart", "'nosuch'"),
    "+nosuch=1": ("nosuch", "model, init, bias, task", "unknown"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_gets_one_sentence_and_runs_nothing(
    wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["gradlab", wrong])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    message = str(stopped.value.code)
    assert message.count("\n") == 0
    for part in WRONG[wrong]:
        assert part in message
    assert not list(tmp_path.rglob("status.json"))


def test_a_wrong_point_stops_the_sweep_before_the_first_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["gradlab", "init.gain=1,2,-3"])
    with pytest.raises(SystemExit, match=r"init\.gain"):
        command.main()
    assert not list(tmp_path.rglob("status.json"))


def test_the_process_fails_without_a_traceback(tmp_path: Path) -> None:
    done = gradlab("model.hidden_size=0", folder=tmp_path)
    assert done.returncode not in (0, None)
    assert done.stdout == ""
    assert done.stderr == "gradlab: model.hidden_size must be greater than or equal to 1; got 0.\n"


def test_help_lists_experiments_and_groups_with_a_line_each(tmp_path: Path) -> None:
    lines = gradlab("--help", folder=tmp_path).stdout.splitlines()
    for option in command.CONF.glob("*/*.yaml"):
        described = [line for line in lines if line.split()[:1] == [option.stem]]
        assert described, f"{option.stem} is not listed"
        assert all(len(line.split()) > 1 for line in described)
    assert "+network=…" in lines  # a group without a default is added, not replaced


def test_cfg_job_prints_the_resolved_config(tmp_path: Path) -> None:
    done = gradlab("model=lstm", "init.gain=3", "--cfg", "job", "--resolve", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "_target_: gradlab.cells.LSTM" in done.stdout
    assert "gain: 3" in done.stdout
