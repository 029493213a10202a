"""Sweeps from Python: the records of the command line, and a process left as it was."""

import asyncio
import importlib
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from conftest import gradlab as command_line
from flax import nnx
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rich.console import Console

import gradlab
from gradlab.__main__ import CONF
from gradlab.components import ConfigError
from gradlab.explain.values import words_of
from gradlab.probes import Measurement
from gradlab.records import flatten, load_sweep
from gradlab.sweeps.interrupts import as_guest, stopping
from gradlab.sweeps.screen import NotebookLine, show
from gradlab.tasks.echo import echo

TINY: dict[str, Any] = {
    "task": "echo",
    "task.length": 6,
    "task.delay": 2,
    "model.hidden_size": 5,
    "probe": "frobenius",
    "train": {"steps": 4, "log_every": 2},
    "wandb": "disabled",
}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words(settings: dict[str, Any] = TINY) -> list[str]:
    return words_of(flatten(settings), [CONF])


# The same sweep


def test_a_sweep_from_python_has_the_records_of_the_command_line(tmp_path: Path) -> None:
    process = command_line("init.gain=0.5,2", *words(), "hydra.sweep.dir=typed", folder=tmp_path)
    assert process.returncode == 0, process.stderr
    runs = gradlab.sweep(folder="called", **{"init.gain": [0.5, 2.0]}, **TINY)
    pd.testing.assert_frame_equal(
        without_time(runs).drop(columns=["sweep", "path"]),
        without_time(gradlab.load_runs("typed")).drop(columns=["sweep", "path"]),
    )
    assert [p["identity"] for p in load_sweep(Path("called"))] == [
        p["identity"] for p in load_sweep(Path("typed"))
    ]
    for called, typed in zip(runs["path"], gradlab.load_runs("typed")["path"], strict=True):
        assert gradlab.load_gradients(called).identical(gradlab.load_gradients(typed))
        rows = [without_time(gradlab.load_metrics(path)) for path in (called, typed)]
        pd.testing.assert_frame_equal(*rows)
        configs = [Path(path, ".hydra", "config.yaml").read_text() for path in (called, typed)]
        assert configs[0] == configs[1]


def without_time(table: pd.DataFrame) -> pd.DataFrame:
    return table[[name for name in table if not str(name).startswith("time/")]]


def test_an_experiment_and_a_config_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nname: mine\nhydra: {sweeper: {params: {seed: 'range(2)'}}}\n"
    )
    runs = gradlab.sweep(experiment="mine", config_dir=tmp_path / "conf", **TINY)
    assert list(runs["seed"]) == [0, 1]
    assert Path(runs["path"][0]).parts[:2] == ("runs", "mine")


def test_a_plan_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gradlab.sweep("--dry", seed=range(3), **TINY).empty
    assert "3 points to run as 1 program" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_point_that_fails_is_a_row_and_a_warning(tmp_path: Path) -> None:
    module = types.ModuleType("broken_rules")

    def broken(threshold: float) -> None:
        raise RuntimeError("no such rule")

    module.broken = broken  # type: ignore[attr-defined]
    sys.modules["broken_rules"] = module
    with pytest.warns(UserWarning, match="1 of 2 points failed"):
        runs = gradlab.sweep("clip._target_=gradlab.clipping.value,broken_rules.broken",
                             **{"clip.threshold": 1.0}, **(TINY | {"clip": "value"}))  # fmt: skip
    assert list(runs["status"]) == ["done", "failed"]
    assert "no such rule" in runs["reason"][1]


# Values


@given(
    value=st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False),
        st.text(st.characters(exclude_categories=["C"])),
    )
)  # fmt: skip
def test_a_python_value_arrives_as_what_it_is(value: Any) -> None:
    (word,) = words_of({"some.key": value}, [CONF])
    (override,) = OverridesParser.create().parse_overrides([word])
    read = override.value()
    assert not override.is_sweep_override()
    text = read.text if hasattr(read, "text") else read
    expected = value.replace("${", "\\${") if isinstance(value, str) else value
    assert text == expected
    assert isinstance(text, bool) == isinstance(value, bool)


@pytest.mark.parametrize(
    ("settings", "typed"),
    [
        ({"init.gain": [0.5, 1, math.inf]}, ["init.gain=0.5,1,inf"]),
        ({"seed": range(3)}, ["seed=0,1,2"]),
        ({"seed": np.arange(2), "init.gain": np.float32(0.5)}, ["seed=0,1", "init.gain=0.5"]),
        ({"probe": ("spectral", "lyapunov")}, ["probe=[spectral,lyapunov]"]),
        ({"tbptt": {"window": [None, 5]}}, ["tbptt.window=null,5"]),
        ({"experiment": "quickstart", "model": "lstm"}, ["+experiment=quickstart", "model=lstm"]),
        ({"probe": {"certify": np.bool_(True)}}, ["probe.certify=true"]),
        ({"model": {"cell": OverridesParser}},
         ["model.cell._target_=hydra.core.override_parser.overrides_parser.OverridesParser"]),
        ({"clip": [None, "value"], "clip.threshold": None},
         ["clip=none,value", "clip.threshold=null"]),
        ({"task": math.hypot}, ["~task", "+task._target_=math.hypot"]),
        ({"init": {"_target_": math.hypot, "gain": [1, 2]}},
         ["~init", "+init._target_=math.hypot", "+init.gain=1,2"]),
        ({"task": "echo", "clip": {"_target_": math.hypot}},
         ["~clip", "task=echo", "+clip._target_=math.hypot"]),
        ({"probe": ("spectral", math.hypot)},
         ["+probe.hypot._target_=math.hypot", "probe=[spectral]"]),
    ],
)  # fmt: skip
def test_settings_are_the_words_of_the_command_line(
    settings: dict[str, Any], typed: list[str]
) -> None:
    assert words(settings) == typed


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"task": "echoo"}, "task must be one of adding, .*; got 'echoo'"),
        ({"modl": "rnn"}, "modl is unknown: .* Did you mean model"),
        ({"experiment": "nope"}, "experiment must be one of .*; got 'nope'"),
        ({"seed": -1}, "seed must be greater than or equal to 0; got -1"),
        ({"seed": []}, "seed has no value"),
        ({"clip": object()}, "clip must be a number, a text, None"),
        ({"config_dir": "nope"}, "config_dir must be a folder; got 'nope'"),
        ({"folder": 3}, "folder must be the path of a folder; got 3"),
        ({"task": lambda: None}, "Define it outside any function, and not as a lambda"),
        ({"model": [OverridesParser, OmegaConf]}, "several cells, which would have one name: run"),
        ({"seed": (0, 1)}, r"give a list, \[0, 1\]"),
        ({"gain": 2}, "Did you mean init.gain"),
        ({"probe": ("spectral", "gates")}, "probe has no 'gates': python -m gradlab --help"),
    ],
)
def test_what_is_wrong_is_raised_in_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        gradlab.sweep(**settings)
    assert list(Path().iterdir()) == []


def test_the_sentence_is_that_of_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        gradlab.sweep("init.gian=2")
    assert command_line("init.gian=2", folder=tmp_path).stderr == f"gradlab: {raised.value}\n"


@pytest.mark.parametrize("word", ["--cfg", "-m", "task"])
def test_options_of_the_command_line_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=f"'{word}' is"):
        gradlab.sweep(word)


# Parts of a notebook's own


def test_a_cell_a_task_and_a_probe_of_ones_own_are_values(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("own_parts")

    class Halved(nnx.SimpleCell):
        def __call__(self, carry: Any, inputs: Any) -> Any:
            return (0.5 * carry,) * 2

    def longer(length: int = 9) -> Any:
        return echo(length=length, delay=2)

    def one(probed: Any, *, name: str) -> Measurement:
        return Measurement({f"{name}/number": 1.0}, {})

    for part in (Halved, longer, one):
        part.__module__, part.__qualname__ = module.__name__, part.__name__
        setattr(module, part.__name__, part)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    rest = {key: value for key, value in TINY.items() if not key.startswith(("task", "probe"))}
    runs = gradlab.sweep(
        "task.length=9,10", task=longer, model={"cell": Halved}, probe=("spectral", one), **rest
    )
    assert list(runs["model.name"]) == ["Halved", "Halved"]  # else the default's, "rnn"
    assert list(runs["task.length"]) == [9, 10]
    assert list(runs["one/number"]) == [1, 1]
    np.testing.assert_allclose(runs["jacobian/decay_rate"], math.log(0.5), rtol=1e-5)


def test_a_folder_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    runs = gradlab.sweep(folder="~/swept", **TINY)
    assert Path(runs["path"][0]) == tmp_path / "home" / "swept" / "0"
    assert not Path("~").exists()


# Again and again


@pytest.fixture
def compilations() -> Iterator[Callable[[], int]]:
    """Return how many programs XLA has compiled since the last call."""
    counted = [0]

    def count(name: str, seconds: float, **_: Any) -> None:
        counted[0] += name == "/jax/core/compile/backend_compile_duration"

    def since() -> int:
        number, counted[0] = counted[0], 0
        return number

    jax.monitoring.register_event_duration_secs_listener(count)
    yield since
    jax.monitoring.unregister_event_duration_listener(count)


def test_a_second_sweep_compiles_nothing(compilations: Callable[[], int]) -> None:
    sizes = TINY | {"model.hidden_size": 7}
    first = gradlab.sweep(**sizes)
    assert compilations() > 0
    second = gradlab.sweep(seed=3, **{"init.gain": 2.0}, **sizes)
    assert compilations() == 0
    assert first["path"][0] != second["path"][0]
    assert first["eval/loss"][0] != second["eval/loss"][0]


def test_a_cell_that_was_written_anew_is_compiled_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    losses = []
    for slope in (1.0, 0.5, 1.0):
        (tmp_path / "leaky_cells.py").write_text(
            "from flax import nnx\n"
            "class Leaky(nnx.SimpleCell):\n"
            "    def __call__(self, carry, inputs):\n"
            "        new, _ = super().__call__(carry, inputs)\n"
            f"        return {slope} * new, {slope} * new\n"
        )
        if "leaky_cells" in sys.modules:
            importlib.reload(sys.modules["leaky_cells"])
        cell = {"model": {"name": "leaky", "cell": {"_target_": "leaky_cells.Leaky"}}}
        losses.append(gradlab.sweep(**cell, **TINY)["eval/loss"][0])
    assert losses[0] == losses[2] != losses[1]


# The process


def test_the_process_is_left_as_it_was() -> None:
    state = (
        sys.argv[:],
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        logging.root.handlers[:],
        logging.root.level,
    )
    OmegaConf.register_new_resolver("first", lambda *_: "the caller's own", replace=True)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        own = GlobalHydra.instance().hydra
        HydraConfig.instance().set_config(compose("config", return_hydra_config=True))
        config = HydraConfig.instance().cfg
        runs = gradlab.sweep("hydra/job_logging=default", **TINY)
        assert GlobalHydra.instance().hydra is own
        assert HydraConfig.instance().cfg is config
    assert list(runs["status"]) == ["done"]
    assert OmegaConf.create({"a": "${first:1}"}).a == "the caller's own"
    assert state == (
        sys.argv[:],
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        logging.root.handlers[:],
        logging.root.level,
    )


def test_it_runs_in_a_thread_and_below_an_event_loop() -> None:
    found: list[pd.DataFrame] = []
    thread = threading.Thread(target=lambda: found.append(gradlab.sweep(**TINY)))
    thread.start()
    thread.join()

    async def cell() -> pd.DataFrame:
        return gradlab.sweep(**TINY)

    found.append(asyncio.run(cell()))
    assert [list(runs["status"]) for runs in found] == [["done"], ["done"]]


def test_asked_twice_to_stop_a_sweep_raises_and_ends_nothing() -> None:
    with as_guest(), stopping() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_sweep_says_how_to_go_on() -> None:
    def interrupt() -> None:
        while not Path("s", "0", "status.json").is_file():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    long = TINY | {"train": {"steps": 10**7, "log_every": 1}}
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt, match=r"go on from their checkpoints with sweep.resume"):
        gradlab.sweep(folder="s", **long)
    assert list(gradlab.load_runs("s")["status"]) == ["interrupted"]


def test_a_notebooks_line_is_replaced_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    class Handle:
        def update(self, data: Any, raw: bool) -> None:
            shown[-1] = data

    def display(data: Any, raw: bool, display_id: bool) -> Handle:
        shown.append(data)
        return Handle()

    module = types.ModuleType("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    line = NotebookLine()
    line.show("1/2 points")
    line.show("2/2 points")
    assert shown == [{"text/plain": "2/2 points"}]


def test_a_notebook_cuts_long_lines_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("rich.jupyter.display", lambda segments, text: shown.append(text))
    path = "runs/" + 20 * "deep/"
    show(Console(force_jupyter=True, width=40, color_system=None), "advice   " + 9 * "word " + path)
    (text,) = shown
    *lines, last = text.strip().splitlines()
    assert max(map(len, lines)) <= 40
    assert last == path


@pytest.mark.slow
def test_a_notebook_shows_the_progress_in_place(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebooks = importlib.import_module("nbformat.v4")
    code = f"import gradlab\nruns = gradlab.sweep(seed=[0, 1], **{TINY!r})\nlen(runs)"
    notebook = notebooks.new_notebook(cells=[notebooks.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=300).execute(cwd=str(tmp_path))
    outputs = [x["data"]["text/plain"] for x in notebook.cells[0].outputs if "data" in x]
    assert [text for text in outputs if "points" in text and "passed" in text] == [
        outputs[0]
    ]  # one line, in its last state
    assert outputs[0].startswith("2/2 points")
    assert outputs[-1] == "2"


def test_importing_gradlab_imports_no_jax() -> None:
    program = (
        "import sys, gradlab; print({'jax', 'pandas', 'matplotlib', 'hydra'} & {*sys.modules})"
    )
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert printed == "set()\n"
