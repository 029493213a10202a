"""`gradlab figure NAME`: every figure of the table, and figures of one's own, from any folder."""

import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import gradlab
from synthetic_sweeps import all_probes, metrics_with, write_point

from gradlab import __main__ as command
from gradlab.figures.catalogue import FIGURES

ANALYSIS = Path(__file__).parents[2] / "analysis"
OWN = """
from matplotlib.figure import Figure
from gradlab.figures.style import Drawn

def bare(runs):
    figure = Figure()
    figure.add_subplot().plot(runs["seed"], runs["init.gain"])
    return figure

def with_table(runs):
    return Drawn(bare(runs), runs[["seed", "init.gain"]].assign(point=runs.index))

def none(runs):
    return runs

def wrong(runs):
    return runs["nosuch"]

def two(runs, threshold):
    return bare(runs)

number = 3
"""


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["gradlab", "figure", *map(str, words)])
    command.main()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    rows = metrics_with([3.0, 2.0]).assign(**{"eval/accuracy": [0.1, 0.9]})
    summary = rows.iloc[-1].to_dict() | {"jacobian/horizon": 3.0}
    for seed in range(2):
        write_point(folder / str(seed), all_probes(), seed=seed, summary=summary, metrics=rows)
    return folder


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_says_the_command_that_draws_it(
    name: str, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = FIGURES[name]
    words = ["--runs", sweep] if entry.has_runs else ["--updates", 3]
    words += ["--point", 1] if name == "views" else []
    out = Path(f"a.{entry.formats[0]}")
    run(monkeypatch, name, *words, "--out", out)
    drawn, csv = out.read_bytes(), out.with_name(f"{out.name}.csv")
    assert csv.exists() == (name != "explore")
    if csv.exists():
        first, _, nats = csv.read_text().splitlines()[0].partition("  # in nats: ")
        typed = first.removeprefix("# python -m gradlab figure ").split()
        assert typed == [name, *map(str, words), "--out", str(out)]
        columns = pd.read_csv(csv, skiprows=1).columns
        assert set(nats.split(", ")) - {""} <= set(columns)
        assert bool(nats) == any(re.search("log_|decay_rate|^rate$|exponent", x) for x in columns)
        if name == "decay":
            out.unlink()
            run(monkeypatch, *typed)
            assert out.read_bytes() == drawn


def test_the_scripts_of_analysis_are_the_figures_of_the_table() -> None:
    scripts = {path.stem for path in ANALYSIS.glob("*.py")} - {"reproduce"}
    assert scripts == set(FIGURES)
    for name in scripts:
        text = (ANALYSIS / f"{name}.py").read_text()
        assert text.startswith(f'"""{FIGURES[name].summary}: ')
        assert f'command.script("{name}")' in text


def test_the_list_and_the_help_name_every_figure_and_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ((), ("--help",)):
        run(monkeypatch, *words)
        lines = capsys.readouterr().out.splitlines()
        for name, entry in FIGURES.items():
            assert sum(line.split() == [name, *entry.summary.split()] for line in lines) == 1
    for name, entry in FIGURES.items():
        with pytest.raises(SystemExit) as done:
            run(monkeypatch, name, "--help")
        text = " ".join(capsys.readouterr().out.split())
        assert done.value.code == 0
        assert f"usage: gradlab figure {name} " in text
        assert entry.needs in text
        assert all(option.flag in text for option in entry.options)


def test_options_reach_the_function(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(*words: object) -> list[str]:
        run(monkeypatch, *words, "--runs", sweep, "--out", tmp_path / "a.png")
        return (tmp_path / "a.png.csv").read_text().splitlines()[1:]

    both, first = rows("decay"), rows("decay", "--step", "first")
    assert (sum("before" in x for x in both), sum("after" in x for x in first)) == (
        len(first) - 1,
        0,
    )
    assert any("after" in x for x in both)
    by_seed = rows("decay", "--where", "model.name=RNN", "seed=1", "--step", "last")
    assert 1 < len(by_seed) < len(both) / 2
    assert "horizon" in rows("phase", "--y", "seed", "--value", "horizon")[0].split(",")


WRONG = {
    ("dekay",): r"a figure is one of overview, .*got 'dekay'. Did you mean decay\?",
    ("--runs", "x"): "got '--runs'",
    ("decay", "--runs", "nowhere"): "nowhere",
    ("decay", "--runs", ".", "--out", "a.gif"): r"--out must end in \.png",
    ("explore", "--runs", ".", "--out", "a.png"): r"--out must end in \.html",
    ("mine.nosuch", "--runs", "SWEEP"): "mine.nosuch cannot be imported: mine has no nosuch",
    ("nosuch.figure", "--runs", "SWEEP"): "nosuch.figure .*: there is no module 'nosuch'; the work",
    ("broken.figure", "--runs", "SWEEP"): "imported: No module named 'no_such_package'",
    ("mine.two", "--runs", "SWEEP"): r"of the runs alone, mine.two\(runs\): two\(\) missing 1",
    ("mine.number", "--runs", "SWEEP"): "mine.number must be a function that draws runs; it is 3",
    ("mine.none", "--runs", "SWEEP"): "mine.none must return a matplotlib Figure, .* a DataFrame",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with figures of one's own."""
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_drawn_is_told_in_a_sentence(
    words: tuple[str, ...], own: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [str(sweep) if word == "SWEEP" else word for word in words]
    with pytest.raises(SystemExit, match=WRONG[words]) as stopped:
        run(monkeypatch, *given)
    assert "\n" not in str(stopped.value)
    assert {path.name for path in own.iterdir()} - {"__pycache__"} == {"mine.py", "broken.py"}


def test_figures_of_ones_own(
    own: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "mine.bare", "--runs", sweep, "--format", "svg")
    run(monkeypatch, "mine.with_table", "--runs", sweep, "--out", "b.png", "--style", "talk")
    assert capsys.readouterr().out.split() == [str(sweep / "bare.svg"), "b.png"]
    assert (sweep / "bare.svg").exists() > (sweep / "bare.svg.csv").exists()
    first, header, *rows = (own / "b.png.csv").read_text().splitlines()
    assert first.startswith(f"# python -m gradlab figure mine.with_table --runs {sweep}")
    assert (header, len(rows)) == ("seed,init.gain", 2)
    with pytest.raises(KeyError, match="nosuch"):  # with its traceback, to find it
        run(monkeypatch, "mine.wrong", "--runs", sweep)


def test_a_module_of_the_working_folder_takes_no_librarys_place(own: Path, sweep: Path) -> None:
    (own / "pandas.py").write_text("raise SystemExit('imported')")
    done = gradlab("figure", "mine.bare", "--runs", str(sweep), "--out", "a.png", folder=own)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a.png\n", "")


def test_the_help_names_it_without_importing_a_figure(tmp_path: Path) -> None:
    assert "python -m gradlab figure NAME" in gradlab("--help", folder=tmp_path).stdout
