"""Lyapunov spectrum of every run: python analysis/lyapunov.py --runs FOLDER.

The runs must be measured with probe=[spectral,lyapunov].
"""

from gradlab.figures import command, lyapunov_figure

if __name__ == "__main__":
    command.draw_moments(__doc__, lyapunov_figure)
