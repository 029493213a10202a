"""Singular values of ∂h⁽ᵀ⁾/∂h⁽ᵏ⁾: python analysis/singular_values.py --runs FOLDER.

The runs must be measured with probe=[spectral,singular_values].
"""

from gradlab.figures import command

if __name__ == "__main__":
    command.script("singular_values")
