"""Verdicts as text, and the script that writes them into pages."""

import io
import runpy
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from written_studies import claim

from gradlab.claims import results
from gradlab.claims.pages import write_summary
from gradlab.claims.report import (
    outcome_text,
    published_sentence,
    terminal_table,
    value_text,
    verdict_table,
)
from gradlab.claims.reproduce import Conclusion, of_largest_scales
from gradlab.claims.statistics import Estimate
from gradlab.claims.study import Change, Study, load_study, study_names
from gradlab.claims.verdicts import Outcome, Verdict, judge

ROOT = Path(__file__).parents[2]


def test_a_reader_writes_below_runs_and_a_maintainer_bundles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, root = "error_surface", tmp_path / "checkout"
    shutil.copytree(ROOT / "experiments" / name, root / "experiments" / name)
    for path in (f"conf/experiment/{name}.yaml", "analysis/reproduce.py"):
        (root / path).parent.mkdir(parents=True)
        shutil.copy(ROOT / path, root / path)
    (root / "src").symlink_to(ROOT / "src")  # pages link to it

    def reproduce(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *words])
        runpy.run_path(str(root / "analysis" / "reproduce.py"), run_name="__main__")
        return capsys.readouterr().out

    tracked = {path: path.read_bytes() for path in root.glob("experiments/**/*.*")}
    page = root / "runs" / name / "README.md"
    assert f"page     {page}" in reproduce(name, "--figures-only")
    reproduce("--all", "--figures-only")
    assert {path: path.read_bytes() for path in tracked} == tracked
    written = {path.relative_to(root / "runs").as_posix() for path in root.glob("runs/**/*.*")}
    drawn = {f"{name}/small.png", f"{name}/small.svg"}
    assert written == {"README.md", f"{name}/README.md", *drawn}
    for own in (root / "runs" / name / "small.svg", root / "runs" / "README.md"):
        drawn = own.read_bytes()
        own.write_text("mine")
        with pytest.raises(SystemExit, match=rf"{own.name}' is there, .*: move it\."):
            reproduce("--all", "--figures-only")
        assert own.read_text() == "mine"
        own.write_bytes(drawn)
    bundled = root / "experiments" / name
    assert f"page     {bundled / 'README.md'}" in reproduce(name, "--figures-only", "--bundle")
    for again in ("README.md", "small.svg"):
        assert (bundled / again).read_bytes() == tracked[bundled / again]
    manifest = bundled / "results" / "small.json"
    for damaged in ("{", '{"sha256": "0"}', "[]"):
        manifest.write_text(damaged)
        with pytest.raises(SystemExit, match=r"small\.json is damaged"):
            reproduce(name, "--figures-only")
    with pytest.raises(SystemExit, match=r"there is no study '\.\./error_surface'"):
        reproduce("../error_surface", "--figures-only")


def printed(conclusion: Conclusion, width: int) -> str:
    """Return the table that a terminal shows."""
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(terminal_table(conclusion))
    return console.export_text()


def test_names_are_text_and_no_markup() -> None:
    text = "[/data/run] [red]x[/]"
    verdict = Verdict(claim("1 < 2", claim=text), "reproduced", {"slope [a/b]": 1.5})
    study = SimpleNamespace(title=text)
    conclusion = Conclusion(study, "small", [verdict], Path(), {})  # type: ignore[arg-type]
    shown = printed(conclusion, 200)
    assert shown.count(text) == 2
    assert "slope [a/b] 1.5" in shown


@cache
def bundled_conclusions() -> list[list[Conclusion]]:
    """Judge every study on its bundled tables, without drawing: its scales, the largest last."""
    of_studies = []
    for name in study_names(ROOT):
        study, conclusions = load_study(ROOT, name), []
        for scale in results.scales_of(study, study.folder):
            table, manifest = results.load_results(study, scale, study.folder)
            verdicts = [judge(entry, table) for entry in study.claims]
            picture = study.folder / f"{scale}.png"
            conclusions.append(Conclusion(study, scale, verdicts, picture, manifest))
        of_studies.append(conclusions)
    return of_studies


def test_pages_and_summary_show_what_the_bundled_tables_are_judged_to_be() -> None:
    summary = (ROOT / "experiments" / "README.md").read_text()
    for conclusions in bundled_conclusions():
        page = (conclusions[-1].study.folder / "README.md").read_text()
        assert all(verdict_table(conclusion.verdicts) in page for conclusion in conclusions)
        assert verdict_table(of_largest_scales(conclusions).verdicts) in summary


def test_a_terminal_of_100_columns_shows_every_table() -> None:
    for *_, conclusion in bundled_conclusions():
        lines = printed(conclusion, 100).splitlines()
        assert max(map(len, lines)) <= 100
        shown = " ".join(lines)
        for verdict in conclusion.verdicts:
            assert verdict.claim.id in shown


def claimed(provenance: str, outcome: Outcome, number: int) -> Verdict:
    """Return a verdict on a claim of a provenance."""
    changes = [Change(what=f"had threshold {number}", before="inconclusive")] * (number == 3)
    entry = claim("1 < 2", id=f"X.{number}", provenance=provenance, changed=changes)
    return Verdict(entry, outcome, {"x": 1})


def test_the_summary_counts_each_provenance_and_lists_what_was_changed(tmp_path: Path) -> None:
    outcomes: tuple[tuple[str, Outcome], ...] = (
        ("published-number", "reproduced"),
        ("published-number", "not reproduced"),
        ("published-number", "not run"),
        ("exact", "reproduced"),
        ("second-hand", "inconclusive"),
    )
    verdicts = [claimed(*pair, number) for number, pair in enumerate(outcomes)]
    changed = Change(what="batches of 20 for 32", before="diverged")
    written = Study(
        name="one",
        title="One",
        sources=[],
        figure={},
        claims=[x.claim for x in verdicts],
        changed=[changed],
        differs=["time is discrete"],
        root=ROOT,
    )
    study = written.model_copy(update={"name": "error_surface"})  # whose question is there
    conclusion = Conclusion(study, "small", verdicts, tmp_path / "one" / "small.png", {})
    text = write_summary([conclusion], tmp_path / "README.md").read_text()
    lines = text.splitlines()
    counts = [line for line in lines if line.startswith(("| published", "| exact", "| second"))]
    assert counts == [
        "| published-number | 3 | 1 | 1 | – | 1 | – |",
        "| published-order | – | – | – | – | – | – |",
        "| exact | 1 | 1 | – | – | – | – |",
        "| second-hand | 1 | – | – | 1 | – | – |",
    ]
    assert "1 of 2 judged claims of a published number hold (1 more not run)." in text
    link = "[error_surface](error_surface/README.md)"
    assert f"| {link} | – | batches of 20 for 32 | diverged |" in lines
    assert f"| {link} | X.3 | had threshold 3 | inconclusive |" in lines
    headings = ["| provenance", "## [One]", "## Changed after"]
    assert [text.index(x) for x in headings] == sorted(text.index(x) for x in headings)
    none = published_sentence(verdicts[2:])
    assert none == "No claim of a published number has been judged yet (1 not run)."


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        (Verdict(claim("1 < 2"), "inconclusive", {}, 57), "inconclusive; about 57 networks"),
        (Verdict(claim("1 < 2"), "inconclusive", {}), "inconclusive"),
        (Verdict(claim("1 < 2"), "reproduced", {}), "reproduced"),
    ],
)
def test_an_inconclusive_claim_names_the_networks(verdict: Verdict, text: str) -> None:
    assert outcome_text(verdict).startswith(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Estimate(0.5, 0.25, 0.75, 8), "x 0.5 [0.25, 0.75] (n = 8)"),
        (Estimate(0.02, 0.0, 0.02, 8, is_p=True), "x 0.02 (n = 8)"),
        ([Estimate(1, 0, 2, 8), Estimate(2, 1, 3, 4)], "x 1 [0, 2], 2 [1, 3] (n = 4)"),
        (None, "x undecided"),
        (True, "x yes"),
        (41, "x 41"),
    ],
)
def test_values_are_shown_with_their_intervals(value: object, text: str) -> None:
    assert value_text("x", value) == text


def test_the_script_lists_the_studies() -> None:
    script = [sys.executable, str(ROOT / "analysis" / "reproduce.py")]
    listed = subprocess.run([*script, "--help"], capture_output=True, text=True, check=True).stdout
    for name in study_names(ROOT):
        assert load_study(ROOT, name).question in listed
    process = subprocess.run([*script, "nosuch"], capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "there is no study 'nosuch'" in process.stderr
