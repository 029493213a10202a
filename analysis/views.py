"""Decay, Lyapunov spectrum and theory of one run: python analysis/views.py --runs RUN_FOLDER.

The run must be measured with probe=[spectral,lyapunov,theory].
"""

from gradlab.figures import command, views_figure

if __name__ == "__main__":
    parser = command.runs_parser(__doc__)
    parser.add_argument("--point", type=int, help="which of several runs, from 0")
    command.run(
        parser,
        lambda runs, arguments: views_figure(
            runs if arguments.point is None else runs.iloc[arguments.point : arguments.point + 1]
        ),
    )
