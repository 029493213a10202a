"""Reproducing a study: run it, save its table, draw its figure, judge its claims."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gradlab.claims.expressions import ClaimError
from gradlab.claims.results import RESULTS, bundle, load_results
from gradlab.claims.study import Scale, Study, function_of
from gradlab.claims.verdicts import Verdict, judge
from gradlab.figures import save
from gradlab.records import SWEEP

FIGURES = ("png", "svg")  # one drawing in each format, shown on the page by the first


class Conclusion(NamedTuple):
    """The verdicts and the figure of a study at one scale."""

    study: Study
    scale: Scale
    verdicts: list[Verdict]
    figure: Path
    manifest: dict[str, Any]


def compute(study: Study, scale: Scale, folder: Path, resume: bool = False) -> None:
    """Run a study by the command on its page, and save its table among a folder's results.

    Args:
        study: the study.
        scale: the scale of the run.
        folder: the study's (`Study.folder`), or the reader's (`Study.runs`).
        resume: continue the study's last sweep; only its missing points are run.

    Raises:
        ClaimError: the study has no such scale or no sweep to continue, or its run failed.
    """
    if scale not in study.scales():
        raise ClaimError(f"{study.name} has no scale {scale}; it has {', '.join(study.scales())}.")
    before = set(_run_folders(study))
    arguments = command(study, scale)
    if resume:
        last = _last_sweep(study)
        arguments.append(f"sweep.resume={last.relative_to(study.root)}")
    arguments.append(f"--config-dir={study.root / 'conf'}")
    process = subprocess.run([sys.executable, *arguments], cwd=study.root, check=False)
    new = {last} if resume else set(_run_folders(study)) - before
    if process.returncode or not new:
        raise ClaimError(f"{study.name} failed: see above.")
    bundle(study, scale, max(new), folder)


def command(study: Study, scale: Scale) -> list[str]:
    """Return the arguments of `python` that run a study."""
    return ["-m", "gradlab", f"+experiment={study.experiment(scale).stem}", "wandb=disabled"]


def conclude(study: Study, scale: Scale, results: Path, page: Path) -> Conclusion:
    """Judge a study's claims on its results, and draw them.

    Args:
        study: the study.
        scale: the scale of the results.
        results: the folder that has them.
        page: the folder into which the figure is written.

    Raises:
        ClaimError: there are no results, or a claim does not fit them.
    """
    table, manifest = load_results(study, scale, results)
    drawn = function_of(study.figure, "Figure")(table)
    figure, _ = (save(drawn, page / f"{scale}.{suffix}") for suffix in FIGURES)
    return Conclusion(study, scale, [judge(x, table) for x in study.claims], figure, manifest)


def of_largest_scales(conclusions: Sequence[Conclusion]) -> Conclusion:
    """Return a study's last conclusion, with each claim's verdict at the largest scale that ran it.

    Args:
        conclusions: of one study, the largest scale last.
    """
    verdicts = [
        next(
            (verdict for verdict in reversed(of_claim) if verdict.outcome != "not run"),
            of_claim[-1],
        )
        for of_claim in zip(*(conclusion.verdicts for conclusion in conclusions), strict=True)
    ]
    return conclusions[-1]._replace(verdicts=verdicts)


def _last_sweep(study: Study) -> Path:
    sweeps = [folder for folder in _run_folders(study) if (folder / SWEEP).exists()]
    if not sweeps:
        raise ClaimError(f"{study.name} has no sweep to go on with: leave --resume out.")
    return max(sweeps)


def _run_folders(study: Study) -> list[Path]:
    return [path for path in study.runs.glob("*") if path.is_dir() and path.name != RESULTS]
