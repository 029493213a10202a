"""Norm of ∂L/∂h⁽ᵏ⁾ at every step k: python analysis/adjoint.py --runs FOLDER."""

from gradlab.figures import adjoint_figure, command


def main() -> None:
    """Draw the profiles of a sweep measured with probe=[spectral,adjoint]."""
    options = command.parser(__doc__)
    command.add_step(options)
    command.run(options, lambda runs, given: adjoint_figure(runs, command.MOMENTS[given.step]))


if __name__ == "__main__":
    main()
