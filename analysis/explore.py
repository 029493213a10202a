"""A sweep as an interactive page of its maps over training: analysis/explore.py --runs FOLDER."""

from gradlab.figures import command

if __name__ == "__main__":
    command.script("explore")
