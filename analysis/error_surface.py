"""Error surface of one unit, with clipped and unclipped descent: analysis/error_surface.py."""

from gradlab.figures import command

if __name__ == "__main__":
    command.script("error_surface")
