"""Calling somebody's function of their model without a trace in the model or its random numbers."""

import sys
from collections.abc import Callable
from typing import Any

from flax import nnx


def call_undisturbed(function: Callable[[Any], Any], model: Any) -> Any:
    """Return function(model), the model as in evaluation, and leave everything as it was.

    Dropout passes everything on, and batch norms neither take their statistics from held-out
    sequences nor learn from them. A Flax NNX model is copied for the call; a torch module is put
    in evaluation mode and back, without gradients; a function of weights is called as it is.
    """
    if isinstance(model, nnx.Module):
        copy = nnx.clone(model)
        copy.eval()
        return function(copy)
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        return function(model)
    modes = {module: module.training for module in model.modules()}
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices):
            return function(model)
    finally:
        for module, mode in modes.items():
            module.training = mode
