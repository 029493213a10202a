"""Maps before and after training, decay by lag, as at a sweep's end: analysis/overview.py …"""

from gradlab.figures import command

if __name__ == "__main__":
    command.script("overview")
