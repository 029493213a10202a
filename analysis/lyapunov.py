"""Lyapunov spectrum of every run: python analysis/lyapunov.py --runs FOLDER."""

from gradlab.figures import command, lyapunov_figure


def main() -> None:
    """Draw the spectra of a sweep measured with probe=[spectral,lyapunov]."""
    options = command.parser(__doc__)
    command.add_step(options)
    command.run(options, lambda runs, given: lyapunov_figure(runs, command.MOMENTS[given.step]))


if __name__ == "__main__":
    main()
