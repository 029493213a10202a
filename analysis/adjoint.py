"""Norm of ∂L/∂h⁽ᵏ⁾ at every step k, before and after training: python analysis/adjoint.py --runs FOLDER."""

from gradlab.figures import adjoint_figure, command


def main() -> None:
    """Draw the profiles of a sweep measured with probe=[spectral,adjoint]."""
    options = command.parser(__doc__)
    command.add_step(options)
    command.run(options, lambda sweep, given: adjoint_figure(sweep, command.MOMENTS[given.step]))


if __name__ == "__main__":
    main()
