"""Gradient by lag, and what truncation loses: python analysis/contributions.py --runs FOLDER.

The runs must be measured with probe=[spectral,contribution].
"""

from gradlab.figures import command

if __name__ == "__main__":
    command.script("contributions")
