"""Norm of ∂L/∂h⁽ᵏ⁾ at every step k: python analysis/adjoint.py --runs FOLDER.

The runs must be measured with probe=[spectral,adjoint].
"""

from gradlab.figures import command

if __name__ == "__main__":
    command.script("adjoint")
