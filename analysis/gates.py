"""Gates and states of the cells over time: python analysis/gates.py --runs FOLDER."""

from gradlab.figures import command, gates_figure


def main() -> None:
    """Draw the gates of a sweep measured with probe=[spectral,statistics]."""
    options = command.parser(__doc__)
    command.add_step(options)
    command.run(options, lambda runs, given: gates_figure(runs, command.MOMENTS[given.step]))


if __name__ == "__main__":
    main()
