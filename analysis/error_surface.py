"""Error surface of one unit, with clipped and unclipped descent: analysis/error_surface.py."""

from gradlab.figures import command
from gradlab.studies.error_surface import error_surface_figure, error_surface_table


def main() -> None:
    """Compute the surface and both paths, and draw them."""
    parser = command.figure_parser(__doc__)
    parser.add_argument("--start", nargs=2, type=float, metavar=("W", "B"), default=(5.0, -2.45))
    parser.add_argument("--learning-rate", type=command.positive, default=0.01)
    parser.add_argument("--threshold", type=command.positive, default=1.0)
    parser.add_argument("--updates", type=int, default=3000)
    arguments = parser.parse_args()
    table = error_surface_table(
        tuple(arguments.start),
        learning_rate=arguments.learning_rate,
        threshold=arguments.threshold,
        updates=arguments.updates,
    )
    command.write_figure(arguments, lambda: error_surface_figure(table))


if __name__ == "__main__":
    main()
