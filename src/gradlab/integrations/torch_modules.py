"""The recurrent modules in a model of PyTorch, with their tensors as a forward pass reads them."""

import sys
from typing import Any

from gradlab.integrations.torch_layers import PARTS, Layers
from gradlab.integrations.undisturbed import call_undisturbed

CLASSES = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")
COMPILED = "_orig_mod"  # the attribute that torch.compile keeps a module as


def recurrent_modules(model: Any) -> dict[str, Any]:
    """Return the recurrent modules of a torch model by name, a module itself under the name "".

    Args:
        model: a torch.nn.Module.

    Returns:
        The torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell and GRUCell in it; empty if there are none.
        What torch.compile and data parallelism put before their names is left out.

    Raises:
        TypeError: the model is no torch module.

    Example:
        >>> import torch
        >>> from gradlab.integrations.torch import recurrent_modules
        >>> parts = {"encoder": torch.nn.LSTM(8, 64), "head": torch.nn.Linear(64, 2)}
        >>> recurrent_modules(torch.nn.ModuleDict(parts))
        {'encoder': LSTM(8, 64)}
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"module must be a torch.nn.{', '.join(CLASSES[:-1])} or {CLASSES[-1]}, a model that "
            "holds one, a mapping of their tensors with kind=, or the path of a safetensors file "
            f"with kind=; got {type(model).__name__}."
        )
    classes = tuple(getattr(torch.nn, name) for name in CLASSES)
    modules = _without_wrappers(model).named_modules()
    return {
        ".".join(part for part in name.split(".") if part != COMPILED): module
        for name, module in modules
        if isinstance(module, classes)
    }


def _without_wrappers(model: Any) -> Any:
    """Return a model as it was before torch.compile and data parallelism wrapped it."""
    parallel = sys.modules["torch"].nn.parallel
    while True:
        if isinstance(model, parallel.DataParallel | parallel.DistributedDataParallel):
            model = model.module
        elif COMPILED in model._modules:
            model = model._modules[COMPILED]
        else:
            return model


def only_recurrent(model: Any) -> Any:
    """Return the one recurrent module of a torch model.

    Raises:
        TypeError: it is no torch module.
        ValueError: it holds none, or several.
    """
    modules = recurrent_modules(model)
    if not modules:
        raise ValueError(
            f"{type(model).__name__} holds no torch.nn.{', '.join(CLASSES[:-1])} or {CLASSES[-1]}."
        )
    if len(modules) > 1:
        calls = ", ".join(f"from_torch(model.{name})" for name in modules)
        raise ValueError(
            f"{type(model).__name__} holds {len(modules)} recurrent modules: pass one of them, "
            f"{calls}."
        )
    return next(iter(modules.values()))


def layers_of_module(module: Any) -> Layers:
    """Return the tensors of a recurrent module, as its forward pass reads them.

    They are read as attributes, which weight norm, pruning and other parametrisations keep, in
    evaluation mode.

    Raises:
        TypeError: the module is of a subclass whose forward pass is another.
    """
    torch = sys.modules["torch"]
    own_class = next(c for name in CLASSES if isinstance(module, c := getattr(torch.nn, name)))
    if type(module).forward is not own_class.forward:
        raise TypeError(
            f"{type(module).__name__} has a forward of its own, which may compute something else "
            f"than torch.nn.{own_class.__name__}: if its steps are the same, pass its tensors, "
            "from_torch(module.state_dict(), kind=…)."
        )
    kind: Any = own_class.__name__.removesuffix("Cell").lower()
    if kind == "rnn":
        kind = f"rnn_{module.nonlinearity}"
    suffixes = [""]
    if hasattr(module, "num_layers"):
        directions = ("", "_reverse") if module.bidirectional else ("",)
        suffixes = [f"_l{i}{way}" for i in range(module.num_layers) for way in directions]
    names = [part + suffix for suffix in suffixes for part in PARTS]

    def tensors(module: Any) -> dict[str, Any]:  # reading a spectral norm in training changes it
        of_pass = {name: getattr(module, name) for name in names if hasattr(module, name)}
        return of_pass | _of_hooks(module)

    return Layers(kind, call_undisturbed(tensors, module))


def _of_hooks(module: Any) -> dict[str, Any]:
    """Return the tensors that the next forward pass computes first, by `torch.nn.utils`' hooks.

    Those of weight_norm, spectral_norm and prune leave them as attributes, which an update of the
    weights that they are computed from makes old.
    """
    tensors = {}
    for hook in module._forward_pre_hooks.values():
        if hasattr(hook, "apply_mask"):  # of prune
            tensors[hook._tensor_name] = hook.apply_mask(module)
        elif hasattr(hook, "n_power_iterations"):  # of spectral_norm
            tensors[hook.name] = hook.compute_weight(module, do_power_iteration=False)
        elif hasattr(hook, "compute_weight"):  # of weight_norm
            tensors[hook.name] = hook.compute_weight(module)
    return tensors
