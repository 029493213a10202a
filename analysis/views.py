"""Lay one run's decay, Lyapunov spectrum and theory side by side: analysis/views.py RUN_FOLDER."""

import argparse
import sys
from pathlib import Path

from gradlab import load_gradients, load_runs
from gradlab.figures import save, views_figure


def main() -> None:
    """Read the run, draw, save, and say where the figure is."""
    parser = argparse.ArgumentParser(
        description="Decay over lag, Lyapunov spectrum and theory of one run."
    )
    parser.add_argument("run", type=Path, help="the folder of a point, as runs/NAME/DATE/0")
    parser.add_argument("--out", type=Path, help="png, pdf or svg (default: RUN/views.png)")
    arguments = parser.parse_args()
    try:
        (verdict,) = load_runs(arguments.run)["reason"].str.partition(";")[0]
        figure = views_figure(load_gradients(arguments.run), verdict)
        print(save(figure, arguments.out or arguments.run / "views.png"))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
