"""Lyapunov spectrum of every run: python analysis/lyapunov.py --runs FOLDER.

The runs must be measured with probe=[spectral,lyapunov].
"""

from gradlab.figures import command

if __name__ == "__main__":
    command.script("lyapunov")
