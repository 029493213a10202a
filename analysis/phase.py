"""Decay rate, success, … over gain × length, or two other axes: python analysis/phase.py …"""

from gradlab.figures import command, outcome, phase_figure


def main() -> None:
    """Draw the phase diagram of a sweep."""
    options = command.parser(__doc__)
    command.add_success(options)
    options.add_argument("--value", choices=outcome.OUTCOMES, default="decay_rate")
    options.add_argument("--x", default="init.gain", help="a config key (%(default)s)")
    options.add_argument("--y", default="task.length", help="a config key (%(default)s)")
    command.run(
        options,
        lambda runs, given: phase_figure(
            runs,
            given.value,
            given.x,
            given.y,
            error=given.success_error,
            accuracy=given.success_accuracy,
        ),
    )


if __name__ == "__main__":
    main()
