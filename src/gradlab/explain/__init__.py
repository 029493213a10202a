"""The command line, explained: its words, its help, and what is wrong in one sentence."""
