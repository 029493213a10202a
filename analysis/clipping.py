"""Success, loss and clip fraction by threshold and learning rate: python analysis/clipping.py …

The runs are those of a sweep over clip.threshold and optim.learning_rate.
"""

from gradlab.figures import command

if __name__ == "__main__":
    command.script("clipping")
