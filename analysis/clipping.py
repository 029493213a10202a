"""Success, loss and clip fraction by threshold and learning rate: python analysis/clipping.py …"""

from gradlab.figures import clipping_figure, command


def main() -> None:
    """Draw what clipping changed in a sweep over clip.threshold and optim.learning_rate."""
    options = command.parser(__doc__)
    command.add_success(options)
    command.run(
        options,
        lambda runs, given: clipping_figure(runs, given.success_error, given.success_accuracy),
    )


if __name__ == "__main__":
    main()
