"""Decay rate, success, … over gain × length, or two other axes: python analysis/phase.py …"""

from gradlab.figures import command, outcome, phase_figure

if __name__ == "__main__":
    parser = command.runs_parser(__doc__)
    command.add_success(parser)
    parser.add_argument("--value", choices=outcome.OUTCOMES, default="decay_rate")
    parser.add_argument("--x", default="init.gain", help="a config key (%(default)s)")
    parser.add_argument("--y", default="task.length", help="a config key (%(default)s)")
    command.run(
        parser,
        lambda runs, arguments: phase_figure(
            runs,
            arguments.value,
            arguments.x,
            arguments.y,
            error=arguments.success_error,
            accuracy=arguments.success_accuracy,
        ),
    )
