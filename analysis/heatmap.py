"""Log norms of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ for every pair (t, k): python analysis/heatmap.py --runs FOLDER."""

from gradlab.figures import command, heatmap_figure


def main() -> None:
    """Draw the maps of a sweep."""
    options = command.parser(__doc__)
    command.add_step(options)
    command.run(options, lambda runs, given: heatmap_figure(runs, command.MOMENTS[given.step]))


if __name__ == "__main__":
    main()
