"""Gates and states of the cells over time: python analysis/gates.py --runs FOLDER.

The runs must be measured with probe=[spectral,statistics].
"""

from gradlab.figures import command

if __name__ == "__main__":
    command.script("gates")
