"""Mean norm of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ against t − k, beside theory: python analysis/decay.py --runs FOLDER."""

from gradlab.figures import command

if __name__ == "__main__":
    command.script("decay")
