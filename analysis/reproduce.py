"""Run a paper study, draw its figure, check its claims: python analysis/reproduce.py STUDY."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gradlab.claims.expressions import ClaimError
from gradlab.claims.pages import write_page, write_summary
from gradlab.claims.report import tally, terminal_table
from gradlab.claims.reproduce import FIGURES, Conclusion, compute, conclude, of_largest_scales
from gradlab.claims.results import scales_of
from gradlab.claims.skeleton import write_skeleton
from gradlab.claims.study import load_study, study_names
from gradlab.explain.errors import sentence
from gradlab.figures.places import check_place
from gradlab.printable import escape_what_cannot_be_printed

ROOT = Path(__file__).resolve().parent.parent
SUMMARY = "README.md"
WIDTH = 100  # columns, where the output is no terminal


def main() -> None:
    """Reproduce one study or all of them, and write the verdicts into their pages."""
    escape_what_cannot_be_printed()
    arguments = _parser().parse_args()
    if [bool(arguments.study), arguments.all, bool(arguments.new)].count(True) != 1:
        sys.exit("name a study, or give --all or --new NAME; --help lists the studies.")
    try:
        if arguments.new:
            _begin(arguments.new)
            return
        names = study_names(ROOT) if arguments.all else [arguments.study]
        if not arguments.bundle:
            _check_places(names, arguments)
        conclusions = [_reproduce(name, arguments) for name in names]
        if arguments.all:
            folder = ROOT / ("experiments" if arguments.bundle else "runs")
            verdicts = [verdict for conclusion in conclusions for verdict in conclusion.verdicts]
            print(tally(verdicts), write_summary(conclusions, folder / SUMMARY), sep="\n")
    except (ValueError, OSError) as error:
        sys.exit(f"reproduce: {sentence(error)}")


def _check_places(names: Sequence[str], arguments: argparse.Namespace) -> None:
    """Check, before anything is computed, that no file of the reader's will be replaced."""
    places = [ROOT / "runs" / SUMMARY] if arguments.all else []
    for study in [load_study(ROOT, name) for name in names]:
        scales = [arguments.scale] if arguments.scale else study.scales()
        places += [study.runs / f"{scale}.{suffix}" for scale in scales for suffix in FIGURES]
    for place in places:
        check_place(place, remedy="move it")


def _reproduce(name: str, arguments: argparse.Namespace) -> Conclusion:
    study = load_study(ROOT, name)
    own = study.folder if arguments.bundle else study.runs
    results = study.folder if arguments.figures_only else own
    if not arguments.figures_only:
        compute(study, arguments.scale or "small", own, arguments.resume)
    scales = [arguments.scale] if arguments.scale else scales_of(study, results)
    if not scales:
        raise ClaimError(f"{name} has no bundled results: leave --figures-only out to run it.")
    conclusions = [conclude(study, scale, results, own) for scale in scales]
    for conclusion in conclusions:
        console = Console()
        if not console.is_terminal:
            console.width = WIDTH
        console.print(terminal_table(conclusion))
        print(f"figure   {conclusion.figure}\npage     {write_page(conclusion)}")
    return of_largest_scales(conclusions)


def _begin(name: str) -> None:
    for path in write_skeleton(ROOT, name):
        print(f"written  {path}")
    print(f"Edit them, then: python analysis/reproduce.py {name} --bundle")


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {name:<22}{load_study(ROOT, name).question}" for name in study_names(ROOT)]
    parser = argparse.ArgumentParser(
        description="Run a study of a paper, draw its figure, and check each claim against it. "
        "All that is written is below runs/.",
        epilog="\n".join(["studies:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", nargs="?", help="one of those below")
    parser.add_argument("--all", action="store_true", help="every study, and one page for them")
    parser.add_argument("--new", metavar="NAME", help="write the skeleton of a study of yours")
    parser.add_argument(
        "--scale", choices=("small", "full"), help="how much is run (default: small)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with its last sweep, where that was cut off"
    )
    parser.add_argument(
        "--figures-only", action="store_true", help="draw and judge the bundled results"
    )
    parser.add_argument(
        "--bundle", action="store_true", help="write into experiments/, which git tracks"
    )
    return parser


if __name__ == "__main__":
    main()
