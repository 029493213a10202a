"""Gates and states of the cells over time: python analysis/gates.py --runs FOLDER.

The runs must be measured with probe=[spectral,statistics].
"""

from gradlab.figures import command, gates_figure

if __name__ == "__main__":
    command.draw_moments(__doc__, gates_figure)
