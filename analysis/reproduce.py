"""Run a paper study, draw its figure, check its claims: python analysis/reproduce.py STUDY."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from gradlab.claims.expressions import ClaimError
from gradlab.claims.report import tally, terminal_table, write_page, write_summary
from gradlab.claims.reproduce import Conclusion, compute, conclude
from gradlab.claims.results import bundled_scales
from gradlab.claims.study import load_study, study_names

ROOT = Path(__file__).resolve().parent.parent
SUMMARY = ROOT / "experiments" / "README.md"


def main() -> None:
    """Reproduce one study or all of them, and write the verdicts into their pages."""
    arguments = _parser().parse_args()
    if bool(arguments.study) == arguments.all:
        sys.exit("name a study, or give --all; --help lists the studies.")
    try:
        names = study_names(ROOT) if arguments.all else [arguments.study]
        conclusions = [_reproduce(name, arguments) for name in names]
    except (ClaimError, ValueError) as error:
        sys.exit(f"reproduce: {error}")
    if arguments.all:
        print(tally(conclusions), write_summary(conclusions, SUMMARY), sep="\n")


def _reproduce(name: str, arguments: argparse.Namespace) -> Conclusion:
    study = load_study(ROOT, name)
    if not arguments.figures_only:
        compute(study, arguments.scale or "small", arguments.resume)
    scales = [arguments.scale] if arguments.scale else bundled_scales(study)
    for scale in scales:
        conclusion = conclude(study, scale)
        console = Console()
        if not console.is_terminal:  # a file has no width to keep to
            console.width = 200
        console.print(terminal_table(conclusion))
        print(f"figure   {conclusion.figure}\npage     {write_page(conclusion)}")
    return conclusion


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {name:<22}{load_study(ROOT, name).question}" for name in study_names(ROOT)]
    parser = argparse.ArgumentParser(
        description="Run a study of a paper, draw its figure, and check each claim against it.",
        epilog="\n".join(["studies:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", nargs="?", help="one of those below")
    parser.add_argument("--all", action="store_true", help="every study, and one page for them")
    parser.add_argument(
        "--scale", choices=("small", "full"), help="how much is run (default: small)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with its last sweep, where that was cut off"
    )
    parser.add_argument(
        "--figures-only", action="store_true", help="redraw and judge the bundled results"
    )
    return parser


if __name__ == "__main__":
    main()
