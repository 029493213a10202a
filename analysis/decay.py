"""Mean norm of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ against t − k, beside theory: python analysis/decay.py --runs FOLDER."""

from gradlab.figures import command, decay_figure


def main() -> None:
    """Draw the curves of a sweep."""
    options = command.parser(__doc__)
    command.add_step(options)
    command.run(options, lambda runs, given: decay_figure(runs, command.MOMENTS[given.step]))


if __name__ == "__main__":
    main()
