"""Success, loss and clip fraction by threshold and learning rate: python analysis/clipping.py …

The runs are those of a sweep over clip.threshold and optim.learning_rate.
"""

from gradlab.figures import clipping_figure, command

if __name__ == "__main__":
    parser = command.runs_parser(__doc__)
    command.add_success(parser)
    command.run(
        parser,
        lambda runs, arguments: clipping_figure(
            runs, arguments.success_error, arguments.success_accuracy
        ),
    )
