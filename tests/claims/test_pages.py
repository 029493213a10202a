"""Verdicts as text, and the script that writes them into pages."""

import io
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from written_studies import claim

from gradlab.claims.report import terminal_table
from gradlab.claims.reproduce import Conclusion
from gradlab.claims.study import load_study, study_names
from gradlab.claims.verdicts import Verdict

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
    assert written == {"README.md", f"{name}/README.md", f"{name}/small.png"}
    for own in (root / "runs" / name / "small.png", root / "runs" / "README.md"):
        drawn = own.read_bytes()
        own.write_text("mine")
        with pytest.raises(SystemExit, match=rf"{own.name}' is there, .*: move it\."):
            reproduce("--all", "--figures-only")
        assert own.read_text() == "mine"
        own.write_bytes(drawn)
    bundled = root / "experiments" / name
    assert f"page     {bundled / 'README.md'}" in reproduce(name, "--figures-only", "--bundle")
    assert (bundled / "README.md").read_bytes() == tracked[bundled / "README.md"]
    manifest = bundled / "results" / "small.json"
    for damaged in ("{", '{"sha256": "0"}', "[]"):
        manifest.write_text(damaged)
        with pytest.raises(SystemExit, match=r"small\.json is damaged"):
            reproduce(name, "--figures-only")
    with pytest.raises(SystemExit, match=r"there is no study '\.\./error_surface'"):
        reproduce("../error_surface", "--figures-only")


def test_names_are_text_and_no_markup() -> None:
    text = "[/data/run] [red]x[/]"
    verdict = Verdict(claim("1 < 2", claim=text), "reproduced", {"slope [a/b]": 1.5})
    study = SimpleNamespace(title=text)
    conclusion = Conclusion(study, "small", [verdict], Path(), {})  # type: ignore[arg-type]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(terminal_table(conclusion))
    printed = console.export_text()
    assert printed.count(text) == 2
    assert "slope [a/b] 1.5" in printed


def test_the_script_lists_the_studies() -> None:
    script = [sys.executable, str(ROOT / "analysis" / "reproduce.py")]
    listed = subprocess.run([*script, "--help"], capture_output=True, text=True, check=True).stdout
    for name in study_names(ROOT):
        assert load_study(ROOT, name).question in listed
    process = subprocess.run([*script, "nosuch"], capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "there is no study 'nosuch'" in process.stderr
