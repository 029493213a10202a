"""Gradient by lag, and what truncation loses: python analysis/contributions.py --runs FOLDER."""

from gradlab.figures import command, contributions_figure


def main() -> None:
    """Draw the shares and errors of a sweep measured with probe=[spectral,contribution]."""
    options = command.parser(__doc__)
    command.add_step(options)
    command.run(
        options, lambda runs, given: contributions_figure(runs, command.MOMENTS[given.step])
    )


if __name__ == "__main__":
    main()
