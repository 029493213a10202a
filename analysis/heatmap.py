"""Draw a sweep's Jacobian maps: python analysis/heatmap.py RUNS_FOLDER --out heatmap.png."""

import argparse
import sys
from pathlib import Path

from gradlab import load_runs
from gradlab.figures import heatmap_figure, save

MOMENTS = {"first": ("before",), "last": ("after",), "both": ("before", "after")}


def main() -> None:
    """Read the runs, draw, save, and say where the figure is."""
    parser = argparse.ArgumentParser(description="Log norms of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ for every pair (t, k).")
    parser.add_argument("runs", type=Path, help="the folder of a sweep")
    parser.add_argument("--out", type=Path, help="png, pdf or svg (default: RUNS/heatmap.png)")
    parser.add_argument(
        "--step",
        choices=MOMENTS,
        default="both",
        help="measured at the first step (before training), the last, or both (default)",
    )
    arguments = parser.parse_args()
    try:
        figure = heatmap_figure(load_runs(arguments.runs), MOMENTS[arguments.step])
        print(save(figure, arguments.out or arguments.runs / "heatmap.png"))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
