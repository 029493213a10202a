"""Loss, accuracy and gradient norm over training: python analysis/training.py --runs FOLDER."""

from gradlab.figures import command, training_figure


def main() -> None:
    """Draw the curves of a sweep."""
    command.run(command.parser(__doc__), lambda runs, _: training_figure(runs))


if __name__ == "__main__":
    main()
