"""Draw a sweep's decay with lag: python analysis/decay.py RUNS_FOLDER --out decay.png."""

import argparse
import sys
from pathlib import Path

from gradlab import load_runs
from gradlab.figures import decay_figure, save


def main() -> None:
    """Read the runs, draw, save, and say where the figure is."""
    parser = argparse.ArgumentParser(description="Mean log norm of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ against t − k.")
    parser.add_argument("runs", type=Path, help="the folder of a sweep")
    parser.add_argument("--out", type=Path, help="png, pdf or svg (default: RUNS/decay.png)")
    arguments = parser.parse_args()
    try:
        figure = decay_figure(load_runs(arguments.runs))
        print(save(figure, arguments.out or arguments.runs / "decay.png"))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
