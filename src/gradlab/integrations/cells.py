"""The recurrent cells in somebody's model, by name, each with the sequences that drive it."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from gradlab.integrations.lengths import check_padded, from_the_end, lengths_of
from gradlab.integrations.step_cell import Start, StepCell, check_start
from gradlab.integrations.undisturbed import call_undisturbed
from gradlab.jacobian.arguments import numbers
from gradlab.jacobian.carry import CarryForm
from gradlab.jacobian.flat_cell import flatten_cell

Inputs = Any  # sequences, a mapping from a cell's name to its sequences, or a function of the model


DEEPER = (
    "A cell that lies deeper in a network reads what lies below it: give inputs as a function of "
    "the model, such as lambda model: model.embed(tokens)."
)
STACKED = (
    "Its weights have an axis more than a cell's, as nnx.vmap stacks the layers of a network: give "
    "the watcher one layer i, graph, state = nnx.split(cell); "
    "nnx.merge(graph, jax.tree.map(lambda w: w[i], state)), and what that layer reads as inputs."
)


class Found(NamedTuple):
    """A recurrent cell of a model, or a step function.

    Attributes:
        cell: as it is now.
        reverse: whether it reads sequences from their ends.
        layer: the name of the layer that it is a direction of, else its own.
        time_first: the types of array that its module reads as (time, batch, features).
        below: returns what the cell reads from its module's inputs and their lengths, in their
            order; None: those inputs.
    """

    cell: Any
    reverse: bool
    layer: str
    time_first: tuple[type, ...] = ()
    below: Callable[[Array, Int[np.ndarray, "batch"]], Array] | None = None


class Driven(NamedTuple):
    """A cell and the sequences that drive it, in the order in which it reads them.

    Attributes:
        cell: as it is now.
        inputs: the sequences.
        targets: of each step's loss.
        lengths: the steps of each; the inputs after them are padding.
        has_h: whether a part of its carry is called h.
    """

    cell: nnx.RNNCellBase
    inputs: Float[Array, "batch T features"]
    targets: PyTree
    lengths: Int[np.ndarray, "batch"]
    has_h: bool


def find_cells(model: Any) -> dict[str, Found]:
    """Return the recurrent cells of a model by name: the path of its attributes.

    `nnx.RNN` stands for its cell; `nnx.Bidirectional` has two, `forward_rnn` and `backward_rnn`, as
    has a bidirectional torch module, `forward` and `backward`, or of several layers
    `layer0.forward`, …. A cell made of cells is one. A lone cell and a step function have the name
    "".

    Raises:
        ValueError: there is none.
    """
    if isinstance(model, nnx.RNNCellBase):
        return {"": Found(model, False, "")}
    if isinstance(model, nnx.Module):
        found = _of_nnx(model)
    elif "torch" in sys.modules and isinstance(model, sys.modules["torch"].nn.Module):
        found = _of_torch(model)
    else:
        return {"": Found(model, False, "")}  # the engine says what is no step function
    if not found:
        instead = (
            "give the cell, or a function step(carry, x) -> (carry, y), and its initial_carry to "
            "gradlab.watch."
        )
        if not isinstance(model, nnx.Module):  # of torch
            instead = (
                "give one with a torch.nn.RNN, LSTM, GRU or their cells. A cell that you wrote in "
                "PyTorch is measured by its step Jacobians, as docs/own_code.md shows."
            )
        raise ValueError(
            f"{type(model).__name__} holds no recurrent cell that gradlab knows: {instead}"
        )
    return found


def _of_nnx(model: nnx.Module) -> dict[str, Found]:
    modules = dict(nnx.iter_modules(model))
    found: dict[tuple[Any, ...], Found] = {}
    for path, module in sorted(modules.items(), key=lambda entry: len(entry[0])):
        if any(path[: len(outer)] == outer for outer in found):
            continue
        if isinstance(module, nnx.RNN):
            above = modules.get(path[:-1])
            is_direction = bool(path) and isinstance(above, nnx.Bidirectional)
            reverse = path[-1] == "backward_rnn" if is_direction else module.reverse
            layer = path[:-1] if is_direction else path
            reader: Any = above if is_direction else module
            time_first = (object,) if reader.time_major else ()
            found[path] = Found(module.cell, reverse, _name(layer), time_first)
        elif isinstance(module, nnx.RNNCellBase):
            found[path] = Found(module, False, _name(path))
    return {_name(path): cell for path, cell in found.items()}


def _of_torch(model: Any) -> dict[str, Found]:
    from gradlab.integrations.torch import from_torch, outputs_below, parts_of, recurrent_modules

    found = {}
    for name, module in recurrent_modules(model).items():
        is_first = not getattr(module, "batch_first", True)  # of tensors; arrays are as elsewhere
        time_first = (sys.modules["torch"].Tensor,) if is_first else ()
        for part, chosen in parts_of(module).items():
            path = ".".join(filter(None, (name, part)))
            below = partial(outputs_below, module, chosen.layer) if chosen.layer else None
            cell = from_torch(module, layer=chosen.layer, reverse=chosen.reverse)
            found[path] = Found(cell, chosen.reverse, name, time_first, below)
    return found


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def drive_cells(
    model: Any, inputs: Inputs, targets: PyTree, lengths: Any, start: Start | None
) -> dict[str, Driven]:
    """Return the cells of a model that are measured, by name, with their sequences.

    Args:
        model: a cell, a model that holds some, or a step function.
        inputs: sequences, if there is one cell, or the directions of one module; a mapping from
            the names of cells or modules to theirs; or a function of the model that returns
            either.
        targets: of each step's loss; None without one.
        lengths: the steps of each sequence; None: all.
        start: the initial carry of a step function.

    Raises:
        ValueError: the inputs do not fit the cells.
        TypeError: there is no cell.
    """
    if callable(inputs):
        inputs = call_undisturbed(inputs, model)
    found = find_cells(model)
    by_name = _by_name(inputs, found)
    return {
        name: _driven(name, found[name], sequences, targets, lengths, start)
        for name, sequences in by_name.items()
    }


def check_inputs(inputs: Inputs) -> None:
    """Check that inputs are sequences, where they are no function of a model that is yet to come.

    Raises:
        ValueError: they are none.
    """
    if _is_model(inputs):
        raise ValueError(
            "inputs must be held-out sequences, or a function of the model that returns them; got "
            f"the model {type(inputs).__name__}, which each call takes: watcher(step, model)."
        )
    if not callable(inputs):
        for sequences in inputs.values() if isinstance(inputs, Mapping) else [inputs]:
            _sequences(sequences)


def _is_model(inputs: Any) -> bool:
    """Return whether inputs are a module of Flax, PyTorch or Equinox."""
    bases = (("torch.nn", "Module"), ("equinox", "Module"), ("flax.linen", "Module"))
    loaded = [getattr(sys.modules[name], kind) for name, kind in bases if name in sys.modules]
    return isinstance(inputs, (nnx.Module, *loaded))


def _by_name(inputs: Any, found: Mapping[str, Found]) -> dict[str, Any]:
    """Return the sequences of each cell that has some."""
    names, layers = ", ".join(found), list(dict.fromkeys(cell.layer for cell in found.values()))
    if not isinstance(inputs, Mapping):
        if len(layers) == 1:
            return dict.fromkeys(found, inputs)
        example = f"{layers[0]!r}: sequences"
        raise ValueError(
            f"the model has {len(found)} recurrent cells, {names}, and a deeper one reads what "
            f"lies below it: give inputs={{{example}, …}}, or a function of the model that returns "
            "that."
        )
    unknown = [name for name in inputs if name not in found and name not in layers]
    if unknown or not inputs:
        wrong = repr(unknown[0]) if unknown else "none"
        allowed = f"name cells of the model out of {names}" if names else "be sequences of one cell"
        raise ValueError(f"inputs must {allowed}; got a mapping with {wrong}.")
    # A name of a module stands for all its directions, but for those that are named themselves.
    of_layers = {n: inputs[cell.layer] for n, cell in found.items() if cell.layer in inputs}
    return of_layers | {name: inputs[name] for name in inputs if name in found}


def _driven(
    name: str, found: Found, inputs: Any, targets: PyTree, lengths: Any, start: Start | None
) -> Driven:
    """Return a cell with its sequences, checked to fit."""
    is_time_first = isinstance(inputs, found.time_first)
    inputs = _array("inputs", inputs)
    is_lone = inputs.ndim == 2
    inputs = _sequences(inputs)
    inputs = inputs.swapaxes(0, 1) if is_time_first and not is_lone else inputs
    targets = jax.tree.map(partial(_array, "targets"), targets)
    targets = jax.tree.map(lambda x: x[None], targets) if is_lone else targets
    lengths = lengths_of(lengths, inputs)
    if found.below:
        inputs = found.below(inputs, lengths)
    if found.reverse:
        inputs, targets = jax.tree.map(lambda x: from_the_end(x, lengths), (inputs, targets))
    is_module = isinstance(found.cell, nnx.Module)
    if start is not None and is_module:
        raise ValueError(
            "initial_carry is that of a step function: a Flax cell has its own; for another, give "
            "lambda carry, x: cell(carry, x) instead of the cell."
        )
    x = jax.ShapeDtypeStruct(inputs.shape[-1:], inputs.dtype)
    if start is not None and callable(found.cell):
        check_start(found.cell, start, x)
    shape = jax.ShapeDtypeStruct(inputs.shape, inputs.dtype)
    try:
        flat = flatten_cell(found.cell, shape, start.carry if start else None)
    except ValueError as error:
        if not is_module:
            raise
        is_stacked = any(jnp.ndim(w) > 2 for w in jax.tree.leaves(nnx.state(found.cell, nnx.Param)))
        raise ValueError(
            f"inputs of shape {inputs.shape} do not fit the cell{f' {name}' if name else ''}: "
            f"{error} {STACKED if is_stacked else DEEPER}"
        ) from error
    has_h = _has_h(flat.form)
    cell = StepCell(found.cell, start, x) if start else found.cell
    return Driven(cell, inputs, targets, lengths, has_h)


def _has_h(form: CarryForm) -> bool:
    try:
        form.span("h", "of")
    except ValueError:
        return False
    return True


def _sequences(inputs: Any) -> Float[Array, "batch T features"]:
    """Return inputs, also a torch tensor or a lone sequence, as a batch of sequences."""
    array = _array("inputs", inputs)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            "inputs must be held-out sequences, (time, features) or (batch, time, features), none "
            f"of them 0; got an array of shape {np.shape(inputs)}."
        )
    return array


def _array(name: str, values: Any) -> Array:
    """Return numbers as an array of JAX, also those of a torch tensor."""
    check_padded(name, values)
    if hasattr(values, "detach"):
        tensor = values.detach().cpu()
        # NumPy does not know bfloat16.
        values = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return numbers(name, values)
