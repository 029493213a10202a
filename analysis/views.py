"""Decay, Lyapunov spectrum and theory of one run: python analysis/views.py --runs RUN_FOLDER."""

from gradlab.figures import command, views_figure


def main() -> None:
    """Draw the views of a run measured with probe=[spectral,lyapunov,theory]."""
    options = command.parser(__doc__)
    options.add_argument("--point", type=int, help="which of several runs, from 0")
    command.run(
        options,
        lambda runs, given: views_figure(
            runs if given.point is None else runs.iloc[given.point : given.point + 1]
        ),
    )


if __name__ == "__main__":
    main()
