"""The tensors of a recurrent module of PyTorch, by PyTorch's names, as Flax cells."""

import os
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from flax import nnx
from jaxtyping import Array

from gradlab.cells.elman import ACTIVATIONS
from gradlab.integrations.weights import ProjectedLSTM, as_array, cell_of, set_weights
from gradlab.jacobian.arguments import check_choice

Kind = Literal["rnn_tanh", "rnn_relu", "lstm", "gru"]
BLOCKS: dict[Kind, int] = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
NAME = re.compile(rf"(|.*\.)(({'|'.join(PARTS)})(_l\d+)?(_reverse)?)")  # prefix, name


class Layers(NamedTuple):
    """The tensors of one recurrent module.

    Attributes:
        kind: of all its layers.
        tensors: by PyTorch's names, "weight_hh_l0_reverse"; those of a single step's cell have no
            "_l0".
    """

    kind: Kind
    tensors: Mapping[str, Any]

    @property
    def num_layers(self) -> int:
        """The number of layers, also where tensors of some are missing."""
        numbers = (re.search(r"_l(\d+)", name) for name in self.tensors)
        return 1 + max((int(number[1]) for number in numbers if number), default=0)

    @property
    def directions(self) -> tuple[bool, ...]:
        """The values that `reverse` may have."""
        return (False, True) if any(x.endswith("_reverse") for x in self.tensors) else (False,)

    def cell(self, layer: int, reverse: bool = False) -> nnx.RNNCellBase:
        """Return one direction of one layer as a Flax cell.

        Raises:
            ValueError: tensors are missing, or have other shapes than such a layer's.
        """
        suffix = "" if "weight_hh" in self.tensors else f"_l{layer}"
        suffix += "_reverse" if reverse else ""
        found = {part: self.tensors.get(part + suffix) for part in PARTS}
        arrays = {part: as_array(tensor) for part, tensor in found.items() if tensor is not None}
        needed = PARTS[:4] if arrays.keys() & set(PARTS[2:4]) else PARTS[:2]
        if missing := [part + suffix for part in needed if part not in arrays]:
            raise ValueError(f"the tensors lack {', '.join(missing)}: pass all of the module's.")
        _check_shapes(self.kind, arrays, suffix)
        return _flax_cell(self.kind, arrays)

    def cells(self) -> list[nnx.RNNCellBase]:
        """Return all layers of a module that runs forwards only.

        Raises:
            ValueError: as in `cell`, or a layer reads other than the one below it gives.
        """
        cells = [self.cell(layer) for layer in range(self.num_layers)]
        for i in range(1, len(cells)):
            read = self.tensors[f"weight_ih_l{i}"].shape[1]
            given = self.tensors[f"weight_hh_l{i - 1}"].shape[1]
            if read != given:
                raise ValueError(
                    f"weight_ih_l{i} reads {read} features, and the layer below gives {given}: if "
                    "the module is bidirectional, pass those that end in _reverse too."
                )
        return cells


def layers_of_tensors(
    tensors: Mapping[str, Any], kind: str | None, prefix: str | None = None
) -> Layers:
    """Return the layers of one module among tensors by name.

    Args:
        tensors: as a state_dict has them, also those of a whole model.
        kind: of the module.
        prefix: of its names, as "encoder.lstm"; None: it is the only one.

    Raises:
        ValueError: the kind is none, or there is no such module, or there are several.
    """
    check_choice("kind", kind, tuple(BLOCKS))
    modules: dict[str, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if match := NAME.fullmatch(str(key)):
            modules.setdefault(match[1].removesuffix("."), {})[match[2]] = tensor
    listed = ", ".join(map(repr, modules))
    if not modules:
        within = [name for name, value in tensors.items() if isinstance(value, Mapping)]
        hint = f" If it is a checkpoint, pass what it has at {within[0]!r}." if within else ""
        raise ValueError(
            "no tensor is called weight_hh_l0 or weight_hh, as those of recurrent modules of "
            f"PyTorch are; got {', '.join(map(str, list(tensors)[:8])) or 'none'}.{hint}"
        )
    if prefix is None and len(modules) > 1:
        raise ValueError(f"these are tensors of several modules: pass one of prefix={listed}.")
    name = next(iter(modules)) if prefix is None else prefix.removesuffix(".")
    if name not in modules:
        raise ValueError(f"prefix must be one of {listed}; got {prefix!r}.")
    return Layers(kind, modules[name])  # type: ignore[arg-type]  # checked above


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the recurrent modules' tensors in a safetensors file, by name.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: the file is of another format, or a folder.
    """
    if os.path.isdir(path):
        raise ValueError(f"{os.fspath(path)} is a folder: give a safetensors file in it.")
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError(
            "reading a safetensors file needs its package: pip install safetensors."
        ) from error
    try:
        with safe_open(path, framework="numpy") as file:
            names = filter(NAME.fullmatch, file.keys())
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(
            f"{os.fspath(path)} is no safetensors file ({error}); of a file of torch.save pass "
            "torch.load(path, weights_only=True)."
        ) from error


def _check_shapes(kind: Kind, arrays: Mapping[str, Array], suffix: str) -> None:
    """Check that a layer's arrays fit each other.

    Raises:
        ValueError: they do not; the message names the first that does not.
    """
    rows, features = (*arrays["weight_ih"].shape, 0)[:2]
    n = rows // BLOCKS[kind]
    outputs = arrays["weight_hr"].shape[0] if "weight_hr" in arrays else n
    needed = {
        "weight_ih": (BLOCKS[kind] * n, features),
        "weight_hh": (rows, outputs),
        "bias_ih": (rows,),
        "bias_hh": (rows,),
        "weight_hr": (outputs, n) if kind == "lstm" else None,
    }
    for part, array in arrays.items():
        if array.shape != needed[part]:
            raise ValueError(
                f"{part}{suffix} has shape {array.shape}, which does not fit kind={kind!r} beside "
                f"weight_ih{suffix} of shape {arrays['weight_ih'].shape}: such a layer has "
                f"{BLOCKS[kind]} n rows in both, for a state of n numbers."
            )


def _flax_cell(kind: Kind, arrays: Mapping[str, Array]) -> nnx.RNNCellBase:
    """Return a layer as a Flax cell. Both libraries order the gates alike."""
    kernel, recurrent_kernel = arrays["weight_ih"].T, arrays["weight_hh"].T
    weights: dict[str, Any] = {
        "kernel": kernel,
        "recurrent_kernel": recurrent_kernel,
        "hidden_features": kernel.shape[1] // BLOCKS[kind],
    }
    on_x, on_h = arrays.get("bias_ih"), arrays.get("bias_hh")
    if kind == "gru":  # the reset gate multiplies the part of on_h that the candidate has
        return cell_of(nnx.GRUCell, **weights, bias=on_x, recurrent_bias=on_h)
    bias = None if on_x is None or on_h is None else on_x + on_h
    if kind != "lstm":
        activation = ACTIVATIONS[kind.removeprefix("rnn_")]
        return cell_of(nnx.SimpleCell, **weights, bias=bias, activation_fn=activation)
    if "weight_hr" not in arrays:
        return cell_of(nnx.OptimizedLSTMCell, **weights, recurrent_bias=bias)
    outputs = recurrent_kernel.shape[0]
    cell = cell_of(ProjectedLSTM, **weights, recurrent_bias=bias, output_features=outputs)
    set_weights(cell.project, arrays["weight_hr"].T, None)
    return cell
