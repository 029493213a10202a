"""A study from its command to its verdicts: run, bundle, draw, judge, write."""

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
    """What a study came to at one scale."""

    study: Study
    scale: Scale
    verdicts: list[Verdict]
    figure: Path
    manifest: dict[str, Any]


def compute(study: Study, scale: Scale, resume: bool = False) -> None:
    """Run a study by the command that its page names, and bundle its table.

    Args:
        study: the study.
        scale: how much is run.
        resume: go on with the study's last sweep, of which only what is missing is run.

    Raises:
        ClaimError: it has no such scale or no sweep to go on with, or its run failed.
    """
    if scale not in study.scales():
        raise ClaimError(f"{study.name} has no scale {scale}; it has {', '.join(study.scales())}.")
    before = set(_run_folders(study))
    words = command(study, scale)
    if resume:
        last = _last_sweep(study)
        words.append(f"sweep.resume={last.relative_to(study.root)}")
    words.append(f"--config-dir={study.root / 'conf'}")
    done = subprocess.run([sys.executable, *words], cwd=study.root, check=False)
    new = {last} if resume else set(_run_folders(study)) - before
    if done.returncode or not new:
        raise ClaimError(f"{study.name} failed: see above.")
    bundle(study, scale, max(new))


def command(study: Study, scale: Scale) -> list[str]:
    """What runs a study, after `python`."""
    return ["-m", "gradlab", f"+experiment={study.experiment(scale).stem}", "wandb=disabled"]


def conclude(study: Study, scale: Scale) -> Conclusion:
    """Draw and judge the bundled results.

    Raises:
        ClaimError: there are none, or a claim does not fit them.
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
