"""Training as pure functions: the compiled program, its gradients, its losses, what it reports."""
