"""Singular values of ∂h⁽ᵀ⁾/∂h⁽ᵏ⁾: python analysis/singular_values.py --runs FOLDER."""

from gradlab.figures import command, singular_values_figure


def main() -> None:
    """Draw the singular values of a sweep measured with probe=[spectral,singular_values]."""
    options = command.parser(__doc__)
    command.add_step(options)
    command.run(
        options, lambda runs, given: singular_values_figure(runs, command.MOMENTS[given.step])
    )


if __name__ == "__main__":
    main()
