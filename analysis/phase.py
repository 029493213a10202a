"""Decay rate, success, … over gain × length, or two other axes: python analysis/phase.py …"""

from gradlab.figures import command

if __name__ == "__main__":
    command.script("phase")
