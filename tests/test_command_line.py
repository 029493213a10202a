"""The command line as a person meets it: help, and one sentence for each wrong input."""

import errno
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from conftest import gradlab
from hydra.core.override_parser.overrides_parser import OverridesParser

from gradlab import __main__ as command
from gradlab import components
from gradlab.explain.words import arguments, replaced
from gradlab.printable import pasted

MODELS = ", ".join(sorted(path.stem for path in (command.CONF / "model").glob("*.yaml")))
WRONG = {
    "model.hidden_size=0": ("model.hidden_size", "greater than or equal to 1", "got 0"),
    "model.hidden_size=many": ("model.hidden_size", "Integer", "'many'"),
    "model.hiden_size=3": ("model.hiden_size", "hidden_size, num_layers", "Did you mean"),
    "model=transformer": (
        "model",
        MODELS,
        "'transformer'",
    ),
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
    "+train.nosuch=1": ("train.nosuch is unknown: train takes steps, batch_size",),
    "++wandb.bucket=x": ("wandb.bucket is unknown: wandb takes mode, project, entity, tags",),
    "+model.gain=2": ("model.gain is unknown: model takes name, hidden_size",),
    "init.gain=true": ("init.gain", "must be a number", "got True"),
    "init.gain=nan": ("init.gain", "finite", "got nan"),
    "init.gain=inf": ("init.gain", "finite", "got inf"),
    "init.gain=[1,2]": ("init.gain", "number", "got [1, 2]"),
    "+init.n=5": ("gets its n from the network", "leave n out"),
    "task.length=true": ("task.length", "must be a number", "got True"),
    "task.length=8.5": ("task.length", "integer", "got 8.5"),
    "probe.samples=true": ("probe.samples", "must be a number", "got True"),
    "probe.schedule=[true]": ("probe.schedule", "training steps", "got [True]"),
    "optim.learning_rate=true": ("optim.learning_rate", "must be a number", "got True"),
    "train.steps=true": ("train.steps", "Integer", "'True'"),
    "train.steps=1e3": ("train.steps", "Integer", "1000.0"),
    "train.steps=-1": ("train.steps", "greater than or equal to 0", "got -1"),
    "train.log_every=0": ("train.log_every", "greater than or equal to 1", "got 0"),
    "train.checkpoint_seconds=nan": ("train.checkpoint_seconds", "got nan"),
    "model.decoder=maybe": ("model.decoder", "bool", "'maybe'"),
    "seed=4294967296": ("seed", "less than 4294967296", "got 4294967296"),
    "seed=1.5": ("seed", "Integer", "1.5"),
    "seed=": ("seed", "Integer", "''"),
    "seed=range(0)": ("seed=range(0) has no value",),
    "model=glob(x*)": ("model=glob(x*) has no value",),
    "seed=choice()": ("seed=choice()", "empty choice"),
    "seed=interval(0,1)": ("names no values", "range(START,STOP,STEP)"),
    "name=": ("name", "must not be empty"),
    "name=..": ("name", "below runs/", "'..'"),
    "name=/tmp/runs": ("name", "below runs/", "'/tmp/runs'"),
    "wandb.project=my/project": ("wandb.project", "/ \\ # ? % :", "'my/project'"),
    "wandb.project=": ("wandb.project", "must not be empty"),
    f"wandb.project={'x' * 129}": ("wandb.project", "at most 128 characters"),
    "wandb.entity=a:b": ("wandb.entity", "/ \\ # ? % :", "'a:b'"),
    "wandb.tags=['']": ("wandb.tags", "must not be empty"),
    f"wandb.tags=[{'x' * 65}]": ("wandb.tags", "at most 64 characters"),
    "sweep.resume=": ("sweep.resume", "must not be empty"),
    "sweep.chunk=0": ("sweep.chunk", "greater than or equal to 1", "got 0"),
    "hydra.sweep.dir=": ("hydra.sweep.dir", "got ''"),
    "hydra.sweep.dir=/dev/null/x": ("hydra.sweep.dir=/dev/null/x cannot be made", "choose"),
    "hydra.run.dir=x": ("type hydra.sweep.dir=FOLDER",),
    "hydra.sweep.subdir=.": ("hydra.sweep.subdir", "got '.' for point 0"),
    "hydra.sweeper.max_batch_size=1": ("must be null", "sweep.chunk=N"),
    "hydra.sweeper.skip=[{nosuch:1}]": ("hydra.sweeper.skip names nosuch",),
    "hydra.sweeper.skip=5": ("hydra.sweeper.skip must be a list of keys", "got 5"),
    "hydra.sweeper.skip=[5] seed=0,1": ("hydra.sweeper.skip must be a list", "got [5]"),
    "seed=range(0,10,0)": ("seed=range(0,10,0) has steps of 0",),
    "sweep.resume=../base,../base": ("give sweep.resume one value for all points",),
    "sweep.chunk=1,2": ("give sweep.chunk one value for all points",),
    "hydra.mode=SOMETIMES": ("RUN, MULTIRUN",),
    "hydra.output_subdir=../x": ("hydra.output_subdir must be .hydra",),
    "name=a/../../x": ("name", "below runs/"),
    r"name=..\x": ("name", "below runs/"),
    "name=C:x": ("name", "below runs/"),
    f"name={'x' * 300}": ("hydra.sweep.dir has a name of 300 characters", "takes 255"),
    f"hydra.sweep.subdir={'x' * 300}": ("the folder of point 0", "300 characters", "takes 255"),
    'name="~/x"': ("name", "below runs/"),
    "name=~/x": ("name=~/x cannot be read: quote the value, 'name=\"~/x\"'",),
    "hydra.sweep.subdir=../../up": ("hydra.sweep.subdir", "got '../../up' for point 0"),
    'hydra.sweep.subdir="~/up"': ("hydra.sweep.subdir", "got '~/up' for point 0"),
    "hydra/launcher=basic name=../../x": ("name", "below runs/"),
    "hydra/launcher=basic init.gain=1,-1": ("init.gain", "got -1"),
    "+experiment=error_surface name=../../x": ("name", "below runs/"),
    "+experiment=error_surface measure.grid=no": ("measure.grid", "got 'no'"),
    "+experiment=error_surface sweep.resume=x": ("sweep.resume", "single job"),
    "task=echo,adding task.delay=5": ("task.delay is unknown with task=adding: task takes",),
    "task=echo,xor task.permuted=true": ("task.permuted is unknown with task=echo",),
    "task=digits,echo +task.delay=5": ("there already with task=echo: type task.delay=5",),
    "init=gaussian,identity init.foo=2": ("init.foo is unknown with init=gaussian: init takes",),
    "init=gaussian,identity ++init.foo=2": ("init.foo is unknown", "takes key, n, gain"),
    "+network=irnn,tanh_basic model.cell.x=3": ("model.cell.x", "with +network=irnn"),
    "seed=range(1,3),5": ("seed=range(1,3),5 has a range among its values",),
    "hydra.sweeper.params=3": ("hydra.sweeper.params must be keys with their values; got 3",),
    "name=${oc.env:NOSUCH}": ("hydra.sweep.dir", "'NOSUCH' not found"),
    "~seed": ("seed is missing: leave ~seed out",),
    "task=echo,nosuch seed=1,2": ("task must be one of adding", "got 'nosuch'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_gets_one_sentence_and_runs_nothing(
    wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["gradlab", *wrong.split()])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    message = str(stopped.value.code)
    assert message.count("\n") == 0
    for part in WRONG[wrong]:
        assert part in message
    assert list(tmp_path.rglob("*")) == []


WORDS = {  # as typed, and as Hydra gets them
    "a=1 -m b=2": "a=1 b=2 --multirun",
    "a=1 --dry b=2": "a=1 b=2 sweep.plan_only=true",
    "--cfg job a=1": "a=1 --cfg job",
    "-c job -p model a=1 --resolve": "a=1 --cfg job --package model --resolve",
    "--cfg=job a=1": "a=1 --cfg job",
    "--info a=1": "a=1 --info",
    "--info defaults a=1": "a=1 --info defaults",
    "-cd . +experiment=mine": "+experiment=mine --config-dir .",
    "-sc query=bash": "query=bash --shell-completion",
    "~probe +probe=rms": "~probe +probe=rms",
    "probe=[rms],[theory]": "probe=[rms],[theory]",
    "probe=choice([rms],[theory])": "probe=choice([rms],[theory])",
    "probe=[rms,theory] init.gain=-1": "probe=[rms,theory] init.gain=-1",
    "model.cell._target_=my.Cell a=1": "model.cell._target_=my.Cell a=1 model.name=Cell",
    "model.cell._target_=my.Cell model.name=own": "model.cell._target_=my.Cell model.name=own",
    "model.cell._target_=a.A,a.B model.name=a": "model.cell._target_=a.A,a.B model.name=a",
    "--cfg=job --init=orthogonal --seed=3": "init=orthogonal seed=3 --cfg job",
    "--init.gain=0.5 --dry --+experiment=mine": (
        "init.gain=0.5 +experiment=mine sweep.plan_only=true"
    ),
    "--tbptt.window=None wandb.entity=None": "tbptt.window=null wandb.entity=null",
    "--task={'length':4,'noise':{'std':None}} init={gain:1}": (
        "task.length=4 task.noise.std=null init={gain:1}"
    ),
}


@pytest.mark.parametrize("typed", WORDS)
def test_no_word_is_lost_behind_an_option(typed: str) -> None:
    assert arguments(typed.split(), command.CONF) == WORDS[typed].split()


WRONG_WORDS = {
    "--run": "every command is a sweep",
    "a=1 -r": "every command is a sweep",
    "--resume runs/x": "type sweep.resume=FOLDER",
    "--dryrun": "did you mean --dry?",
    "--dry=1": "did you mean --dry?",
    "-seed=3": "type seed=3",
    "--retry=failed": "type sweep.retry=failed",
    "--cfgg=job": "did you mean --cfg?",
    "--seed": "is no option of gradlab: --help shows what to type",
    "--=3": "is no option",
    "--model=3": f"model must be one of {MODELS}; got '3'",
    "--experimental-rerun x": "is no option",
    "--cfg": "--cfg takes a value",
    "--cfg everything": "--cfg takes job, hydra, all; got 'everything'",
    "--package model": "--package goes with --cfg job",
    "--resolve": "--resolve goes with --cfg job",
    "-m --cfg job": "--multirun and --cfg do different things",
    "seed": "'seed' is neither KEY=VALUE nor an option",
    "quickstart": r"type \+experiment=quickstart",
    "=3": "'=3' is neither KEY=VALUE nor an option",
    "model=3": f"model must be one of {MODELS}; got '3'",
    "model=": f"model must be one of {MODELS}; got ''",
    "model=True": f"model must be one of {MODELS}; got 'True'",
    "probe=null": "probe must be one of adjoint.*got 'null'",
    "hydra.launcher=basic": "type hydra/launcher=basic",
    "task=[echo,adding]": "type task=echo,adding",
    "model.name=lstm": "leave their cell as it is: type model=lstm",
    "model=rnn,lstm model.name=lstm": "type model=lstm for that cell",
    "model.cell._target_=a.A,a.B": "several cells, which would have one name: run a sweep for",
    "@x=1": "'@x=1' chooses no option of a group",
    "init@a=1": "'init@a=1' chooses no option of a group",
    "--shell-completion": "--shell-completion takes install=SHELL: bash, fish, zsh",
    "-sc install=tcsh": "--shell-completion takes install=SHELL",
    "probe=[spectral,[lyapunov]]": "probe takes names: type probe=NAME or",
    "probe=[spectral,{a:1}]": "probe takes names: type probe=NAME or",
}


@pytest.mark.parametrize("typed", WRONG_WORDS)
def test_words_that_mean_nothing_are_refused(typed: str) -> None:
    with pytest.raises(ValueError, match=WRONG_WORDS[typed]):
        arguments(typed.split(), command.CONF)


def test_a_word_that_replaces_another_is_named() -> None:
    words = ["seed=1", "init.gain=2", "seed=1", "seed=1,2", "~probe", "+probe=rms", "--dry"]
    assert replaced(words) == ["seed=1 is replaced by seed=1,2."]
    with pytest.raises(ValueError, match=r"seed=1 and \+\+seed=2 give one key in two ways"):
        replaced(["seed=1", "++seed=2"])


def test_the_command_says_what_it_replaces_and_where_it_is_at(tmp_path: Path) -> None:
    done = gradlab("init.gain=0", "--dry", "init.gain=-1", folder=tmp_path)
    first, second = done.stderr.splitlines()
    assert first == "gradlab: init.gain=0 is replaced by init.gain=-1."
    assert "init.gain must be greater than or equal to 0; got -1" in second
    assert gradlab("--version", folder=tmp_path).stdout == f"gradlab {version('gradlab')}\n"


def test_keys_that_every_swept_option_takes_are_no_error_of_the_default_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    params = "# @package _global_\nhydra: {sweeper: {params: {task: 'echo,xor'}}}\n"
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(params)
    monkeypatch.chdir(tmp_path)
    for words in (
        ("task=echo,xor", "model=rnn,lstm", "init=gaussian,orthogonal"),
        ("task=echo,xor", "seed=1,2", 'model.name="[/a]","[b]"'),  # names are no markup
        ("--config-dir", "conf", "+experiment=mine", "model=rnn,lstm", "init.gain=1,2"),
    ):
        monkeypatch.setattr(sys, "argv", ["gradlab", *words, "task.delay=3", "--dry"])
        command.main()
        assert "8 points to run" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


def test_a_direct_measurement_is_planned_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gradlab", "+experiment=error_surface", "--dry"])
    command.main()
    assert "1 table to compute, by gradlab.studies.error_surface" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_several_points_have_no_single_config(tmp_path: Path) -> None:
    done = gradlab("seed=1,2", "--cfg", "job", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("gradlab: seed=1,2 names several points where one is asked for")


@pytest.mark.parametrize(
    ("hint", "value", "sentence"),
    [
        (float, True, "must be a number"),
        (int, False, "must be a number"),
        (float | None, True, "must be a number"),
        (list[float], [1.0, True], "must be a number"),
        (tuple[int, float], [1, True], "must be a number"),
        (bool, 1, "must be true or false"),
        (bool, 0.0, "must be true or false"),
        (float, math.nan, "must be a number"),
        (float, "nan", "must be a number"),
        (Sequence[float], [0.0, math.nan], "must be a number"),
    ],
)
def test_true_is_no_number_and_no_number_is_true(hint: Any, value: Any, sentence: str) -> None:
    with pytest.raises(components.ConfigError, match=sentence):
        components.validate(components.validator(hint), value, "x")


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (float, 2),
        (float, "2.5"),  # as ${oc.env:GAIN} gives it
        (int, 3.0),
        (float, math.inf),
        (bool, True),
        (bool | float, True),
        (list[float], []),
        (Any, True),
        (str, "true"),
        (float | str, 2.5),
    ],
)
def test_what_a_value_means_is_kept(hint: Any, value: Any) -> None:
    checked = components.validate(components.validator(hint), value, "x")
    assert checked == (float(value) if hint is float else value)


def test_digits_are_a_text_where_one_is_asked_for() -> None:
    """Part 1 of a carry is named "1", which YAML reads as a number."""
    check = components.validator(str | None)
    assert components.validate(check, 1, "probe.jacobian.of") == "1"
    with pytest.raises(components.ConfigError, match="must be a valid string; got True"):
        components.validate(check, True, "probe.jacobian.of")


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


def test_help_lists_the_users_own_options_and_marks_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for option in ("experiment/mine", "bias/mine", "cells/odd", "init/gaussian"):
        path = tmp_path / "own" / f"{option}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# Of my own.\n")
    for words in ("--config-dir own --help", "-cd own -h", "--help --config-dir=own"):
        monkeypatch.setattr(sys, "argv", ["gradlab", *words.split()])
        command.main()
        lines = capsys.readouterr().out.splitlines()
        assert sum(line.split() == ["mine", "Of", "my", "own.", "[own]"] for line in lines) == 2
        assert lines[lines.index("+cells=…") + 1].split() == ["odd", "Of", "my", "own.", "[own]"]
        assert any("  gaussian " in x and x.endswith("needs another name") for x in lines)
    monkeypatch.setattr(sys, "argv", ["gradlab", "-cd", "own", "init=gaussian"])
    with pytest.raises(SystemExit, match=r"own/init/gaussian.yaml has a name of gradlab's own"):
        command.main()
    (tmp_path / "own" / "init" / "gaussian.yaml").unlink()
    (tmp_path / "own" / "experiment" / "wrong.yaml").write_text("# @package _global_\nname: [a")
    (tmp_path / "own" / "experiment" / "latin.yaml").write_bytes(b"# @package _global_\n# \xfc\n")
    for name, sentence in {"wrong": "wrong.yaml.* line 2", "latin": "not text in UTF-8"}.items():
        monkeypatch.setattr(sys, "argv", ["gradlab", "-cd", "own", f"+experiment={name}"])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        with pytest.raises(SystemExit, match=sentence):
            command.main()
    for words in ("--help --config-dir=onw", "-cd onw seed=1"):
        monkeypatch.setattr(sys, "argv", ["gradlab", *words.split()])
        with pytest.raises(SystemExit, match=r"must be a folder.*did you mean own\?"):
            command.main()
    with pytest.raises(ValueError, match=r"type \+experiment=mine"):
        arguments(["mine", "--config-dir", "own"], command.CONF)


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


def hydra_reads(word: str) -> str:
    (override,) = OverridesParser.create().parse_overrides([word])
    return str(override.value())


@pytest.mark.parametrize(
    "value",
    ["runs/a/2026-01-01_00-00-00", "a b", "a,b", "it's", 'a"b', "$(touch x)", "a=b", "${x}", "~/ü"],
)
def test_a_word_to_paste_is_read_as_it_was_meant(value: str) -> None:
    (word,) = shlex.split(pasted("sweep.resume", value))
    assert hydra_reads(word).replace("\\$", "$") == value


def test_what_the_system_refuses_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    failures = {
        OSError(errno.ENOSPC, "No space left on device", "x/0"): "x/0: No space left on device.",
        OSError("x is full:\nmake room."): "x is full: make room.",
        KeyboardInterrupt(): 130,
        (cut := ImportError("initializing the extension")): 130,
    }
    cut.__cause__ = KeyboardInterrupt()
    for failure, code in failures.items():
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.setattr(sys, "argv", ["gradlab", "--dry"])
        monkeypatch.setattr(command, "_run_hydra", Mock(side_effect=failure))
        with pytest.raises(SystemExit) as stopped:
            command.main()
        assert stopped.value.code == (code if isinstance(code, int) else f"gradlab: {code}")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(command, "_run_hydra", Mock(side_effect=OSError("x")))
    with pytest.raises(OSError, match="x"):
        command.main()


def test_help_that_no_one_reads_to_its_end_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "gradlab", "--help"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_printing_never_fails_and_the_script_finds_modules_where_it_is_called(
    tmp_path: Path,
) -> None:
    (tmp_path / "hübsch.py").write_text("print('here')\ncell = 3\n", encoding="utf-8")
    call = "import sys; sys.path.remove(''); from gradlab.__main__ import main; main()"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    environment.pop("HYDRA_FULL_ERROR", None)
    cases = {"model.cell._target_='hübsch.cell'": r"h\xfcbsch.cell", "name=\udc80÷": r"\xf7"}
    for word, expected in cases.items():
        done = subprocess.run(
            [sys.executable, "-c", call, word],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("gradlab: ")
        assert expected in done.stderr
        assert ("here" in done.stdout) == ("hübsch" in word)
