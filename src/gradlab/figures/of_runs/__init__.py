"""The figures of runs, one a file: a function that computes a tidy table, and one that draws it."""
