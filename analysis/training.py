"""Loss, accuracy and gradient norm over training: python analysis/training.py --runs FOLDER."""

from gradlab.figures import command

if __name__ == "__main__":
    command.script("training")
