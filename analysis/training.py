"""Loss, accuracy and gradient norm over training: python analysis/training.py --runs FOLDER."""

from gradlab.figures import command, training_figure

if __name__ == "__main__":
    command.draw(__doc__, training_figure)
