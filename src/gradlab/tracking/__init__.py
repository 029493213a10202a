"""Weights & Biases: log points as runs, upload runs, read points back, publish a dashboard."""
