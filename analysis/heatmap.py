"""Log norms of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ for every pair (t, k): python analysis/heatmap.py --runs FOLDER."""

from gradlab.figures import command

if __name__ == "__main__":
    command.script("heatmap")
