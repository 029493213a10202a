"""The scripts of analysis/ write a figure and its data, and report bad input in one sentence."""

import csv
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from synthetic_sweeps import all_probes, metrics_with, write_point

from gradlab import load_runs, records
from gradlab.figures import command, style, units
from gradlab.figures.catalogue import FIGURES
from gradlab.figures.of_runs.decay import decay_table
from gradlab.figures.places import FORMATS
from gradlab.tracking.runs import track

ANALYSIS = Path(__file__).parents[2] / "analysis"
NO_RUNS = {"error_surface.py", "reproduce.py"}
RUN_SCRIPTS = sorted(path.name for path in ANALYSIS.glob("*.py") if path.name not in NO_RUNS)
FIGURE_SCRIPTS = [script for script in RUN_SCRIPTS if script != "explore.py"]


def call(script: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"analysis/{script}", *map(str, arguments)])
    runpy.run_path(str(ANALYSIS / script), run_name="__main__")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two points that all probes measured, to disk and as offline runs of W&B."""
    folder = tmp_path_factory.mktemp("runs") / "reach" / "today"
    for seed in range(2):
        rows = metrics_with([3.0, 2.0, 1.0 + seed]).assign(
            **{"eval/accuracy": [0.1, 0.5, 0.95], "jacobian/decay_rate": [-0.5, np.nan, -0.1]}
        )
        point, summary = folder / str(seed), rows.iloc[-1].to_dict() | {"verdict": "stable"}
        write_point(point, all_probes(), seed=seed, summary=summary, metrics=rows)
        config = OmegaConf.to_container(OmegaConf.load(point / records.CONFIG))
        config["wandb"] = {"mode": "offline", "project": "reach", "entity": None, "tags": []}
        status = records.load_status(point) | {"reason": "so", "summary": summary}
        with track(point, config, group="reach/today", name=str(seed)) as tracker:
            for row in rows.to_dict("records"):
                tracker.log(row)
            tracker.finish(status, all_probes())
    return folder


@pytest.mark.parametrize("script", FIGURE_SCRIPTS)
def test_a_figure_from_disk_and_from_wandb_shows_the_same_data(
    script: str, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--point", 0] if script == "views.py" else []
    sources = {"disk": ("--runs", sweep), "wandb": ("--wandb", sweep / "wandb")}
    tables = {}
    for name, source in sources.items():
        out = tmp_path / f"{name}.svg"
        call(script, *source, "--out", out, "--style", "paper", *options, monkeypatch=monkeypatch)
        assert "<svg" in out.read_text()
        command_line, _, data = out.with_name(f"{out.name}.csv").read_text().partition("\n")
        assert f"analysis/{script} --{name.replace('disk', 'runs')} " in command_line
        tables[name] = data
    assert tables["disk"].count("\n") > 1
    assert tables["disk"] == tables["wandb"]


@pytest.mark.parametrize("script", RUN_SCRIPTS)
def test_bad_input_ends_in_one_sentence(
    script: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_:
        call(script, "--runs", tmp_path / "nowhere", monkeypatch=monkeypatch)
    assert "nowhere" in str(exit_.value)
    with pytest.raises(SystemExit) as exit_:
        call(script, monkeypatch=monkeypatch)
    assert exit_.value.code == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "one of the arguments --runs --wandb is required" in sentence


def test_every_script_has_a_line_of_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for script in [*RUN_SCRIPTS, "error_surface.py"]:
        with pytest.raises(SystemExit) as exit_:
            call(script, "--help", monkeypatch=monkeypatch)
        assert exit_.value.code == 0
        assert "--out" in capsys.readouterr().out


def test_the_format_is_that_of_the_file_or_asked_for(
    tmp_path: Path,
) -> None:
    parser, _ = command.figure_parser(FIGURES["decay"], "decay")

    def out(*arguments: str) -> Path:
        parsed = parser.parse_args(["--runs", "sweep", *arguments])
        return command.output_path(parsed, "decay", FORMATS)

    assert out() == Path("sweep/decay.png")
    assert out("--format", "pdf") == Path("sweep/decay.pdf")
    assert out("--out", "a/b.svg") == Path("a/b.svg")
    with pytest.raises(ValueError, match="give one"):
        out("--out", "b.svg", "--format", "pdf")
    with pytest.raises(ValueError, match=r"must end in \.png, \.svg, \.pdf; got 'b\.gif'"):
        out("--out", "b.gif")


def test_data_beside_a_figure_name_points_by_the_config_that_varies(tmp_path: Path) -> None:
    for i, gain in enumerate((2.0, 1.0)):
        write_point(tmp_path / str(i), all_probes(), gain=gain)
    runs = load_runs(tmp_path)
    table = command.name_points(decay_table(runs), runs)
    assert list(table.columns[:2]) == ["init.gain", "when"]
    assert table["init.gain"].is_monotonic_increasing
    assert "point" not in table


def test_styles_change_size_and_text_and_end_with_their_block() -> None:
    sizes = {}
    for name in style.STYLES:
        with style.theme(name), style.theme():
            sizes[name] = style.current_style().text
    assert sizes["paper"] < sizes["notebook"] < sizes["talk"]
    assert style.current_style() is style.STYLES[style.DEFAULT]


def test_norms_are_labelled_at_round_numbers() -> None:
    figure = style.Figure()
    axes = figure.add_subplot()

    def labels(low: float, high: float) -> list[str]:
        axes.set_ylim(low, high)
        units.norm_axis(axes.yaxis)
        ticks = axes.yaxis.get_major_locator()()
        inside = [tick for tick in ticks if low <= tick <= high]
        return [axes.yaxis.get_major_formatter()(tick, 0) for tick in inside]

    powers = [f"$10^{{{power}}}$" for power in (-8, -6, -4, -2)]
    assert labels(np.log(1e-9), np.log(2)) == [*powers, "$1$"]
    assert labels(np.log(0.04), np.log(1.5)) == ["0.05", "0.1", "0.2", "0.5", "1"]
    assert labels(np.log(0.89), np.log(1.31)) == ["0.9", "1", "1.1", "1.2", "1.3"]
    assert len(labels(-900, 5)) >= 3


def test_no_text_in_a_csv_is_a_formula(tmp_path: Path) -> None:
    texts = ["=1+1", "+a", "-a", "@a", "\t=1", "\r=1", "a\r=1", "a,b\n=1", "-1.5", "rnn"]
    table = pd.DataFrame({"=name": texts, "value": [-1.5, np.inf, -np.inf] + [2.0] * 7})
    typed = ["python", "analysis/decay.py", "--runs", "two\nlines,=1+1"]
    outside = tmp_path / "outside.csv"
    outside.write_text("mine")
    (tmp_path / "a.png.csv").symlink_to(outside)
    command.write(Figure(), table, tmp_path / "a.png", typed)
    assert outside.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.png.csv", "outside.csv"]
    with (tmp_path / "a.png.csv").open(encoding="utf-8", newline="") as file:
        first, *rows = csv.reader(file)
    assert first == ["# python analysis/decay.py --runs 'two\\nlines", "''=1+1'"]
    assert shlex.split(",".join(first))[-1] == "two\\nlines,=1+1"
    assert rows[0] == ["'=name", "value"]
    shown = [
        "'=1+1",
        "'+a",
        "'-a",
        "'@a",
        "'\t'=1",
        "'\\r'=1",
        "a\\r'=1",
        "a,b\n'=1",
        "-1.5",
        "rnn",
    ]
    assert [row[0] for row in rows[1:]] == shown
    assert [row[1] for row in rows[1:4]] == ["-1.5", "inf", "-inf"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_no_cell_is_a_formula_whatever_the_separator(separator: str, tmp_path: Path) -> None:
    begins = ("=1;y", '"=1"', "' @a", "-2", "+a")
    texts = [f"x{mark}{text}" for mark in ",;|\t\n" for text in begins]
    table = pd.DataFrame({"n;=1": [*texts, ["x", f"y{separator}=1"]], "b": "x"})
    command.write(Figure(), table, tmp_path / "a.png", ["python", "analysis/decay.py", *texts])
    with (tmp_path / "a.png.csv").open(encoding="utf-8", newline="") as file:
        line = file.readline()
        cells = [cell for row in csv.reader([line, *file], delimiter=separator) for cell in row]
    assert not [cell for cell in cells if re.match(r"[\s\"]*[=+\-@]", cell)]
    typed = [text.replace("\t", "\\t").replace("\n", "\\n") for text in texts]
    assert shlex.split(line.removeprefix("# python"))[1:] == typed


@pytest.mark.parametrize("name", ["decay.png", "decay.svg", "decay.pdf", "explore.html"])
def test_a_default_place_is_free_or_holds_ours(
    name: str, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place, script = Path(name), name.partition(".")[0]
    words = ["--wandb", sweep / "wandb"]
    words += ["--format", name.partition(".")[2]] if script == "decay" else []
    for _ in range(2):
        call(f"{script}.py", *words, monkeypatch=monkeypatch)
    drawn = place.read_bytes()
    Path("own").write_text("mine")
    for put in (place.write_text, place.symlink_to):
        place.unlink()
        put("own")
        with pytest.raises(SystemExit, match=f"{name}' is there, .*: move it, or give --out anot"):
            call(f"{script}.py", *words, monkeypatch=monkeypatch)
    assert place.is_symlink()
    assert Path("own").read_text() == "mine"
    for out in ("0/gradients.nc", "sweep.json"):
        with pytest.raises(SystemExit, match="--out must end in"):
            call(f"{script}.py", *words[:2], "--out", out, monkeypatch=monkeypatch)
    call(f"{script}.py", *words, "--out", name, monkeypatch=monkeypatch)
    assert (len(place.read_bytes()), place.is_symlink()) == (len(drawn), False)


def test_a_table_of_someone_elses_is_not_replaced(tmp_path: Path) -> None:
    typed = ["python", "analysis/decay.py", "a,=b"]
    table, data = pd.DataFrame({"a": [1.0]}), tmp_path / "a.png.csv"
    data.write_text("mine")
    with pytest.raises(ValueError, match=r"a\.png\.csv', where the figure's data goes, is a file"):
        command.write(Figure(), table, tmp_path / "a.png", typed)
    assert (data.read_text(), len(list(tmp_path.iterdir()))) == ("mine", 1)
    for text in ('"# python x, kept by a spreadsheet"', "# python x\n1"):
        data.write_text(text)
        command.write(Figure(), table, tmp_path / "a.png", typed)
        assert data.read_text().startswith("# python analysis/decay.py")
