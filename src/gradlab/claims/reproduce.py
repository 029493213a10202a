"""Reproducing a study: run it, bundle its table, draw its figure, judge its claims."""

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from hydra.utils import get_object

from gradlab.claims.expressions import ClaimError
from gradlab.claims.results import bundle, load_results
from gradlab.claims.study import Scale, Study
from gradlab.claims.verdicts import Verdict, judge
from gradlab.figures import save
from gradlab.records import SWEEP


class Conclusion(NamedTuple):
    """The verdicts and the figure of a study at one scale."""

    study: Study
    scale: Scale
    verdicts: list[Verdict]
    figure: Path
    manifest: dict[str, Any]


def compute(study: Study, scale: Scale, resume: bool = False) -> None:
    """Run a study by the command on its page, and bundle its table.

    Args:
        study: the study.
        scale: the scale of the run.
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
    bundle(study, scale, max(new))


def command(study: Study, scale: Scale) -> list[str]:
    """Return the arguments of `python` that run a study."""
    return ["-m", "gradlab", f"+experiment={study.experiment(scale).stem}", "wandb=disabled"]


def conclude(study: Study, scale: Scale) -> Conclusion:
    """Draw the bundled results and judge the study's claims on them.

    Raises:
        ClaimError: there are no results, or a claim does not fit them.
    """
    table, manifest = load_results(study, scale)
    arguments = {k: v for k, v in study.figure.items() if k != "_target_"}
    drawn = get_object(study.figure["_target_"])(table, **arguments)
    figure = save(drawn, study.folder / f"{scale}.png")
    return Conclusion(study, scale, [judge(x, table) for x in study.claims], figure, manifest)


def _last_sweep(study: Study) -> Path:
    sweeps = [folder for folder in _run_folders(study) if (folder / SWEEP).exists()]
    if not sweeps:
        raise ClaimError(f"{study.name} has no sweep to go on with: leave --resume out.")
    return max(sweeps)


def _run_folders(study: Study) -> list[Path]:
    return [path for path in (study.root / "runs" / study.name).glob("*") if path.is_dir()]
