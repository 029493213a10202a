"""Decay, Lyapunov spectrum and theory of one run: python analysis/views.py --runs RUN_FOLDER.

The run must be measured with probe=[spectral,lyapunov,theory].
"""

from gradlab.figures import command

if __name__ == "__main__":
    command.script("views")
