"""Weights & Biases: a point's run, uploads beside a sweep, restoring points, a project's page."""
