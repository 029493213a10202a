"""Options of `LSTM` that change its gates: peepholes, coupled gates, a refine gate.

Layer norm stands in `lstm`, since it changes the layers and not the gates.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

State = Float[Array, "*batch n"]
PEEPHOLE_STD = 0.1  # of all weights in Greff et al. 2017
PEEPING = ("input", "forget", "output")
READS_OLD_STATE = ("input", "forget", "refine")  # the output gate reads the new one


def check_options(options: Sequence[str], pins: Mapping[str, float | None]) -> None:
    """Check that options leave the gates that they change unpinned.

    Raises:
        ValueError: they change a gate that is pinned.
    """
    changed = {"coupled": "input", "refine_gate": "forget"}
    for option, gate in changed.items():
        if option in options and pins[gate] is not None:
            raise ValueError(
                f"{option}=true sets the {gate} gate, which {gate}_gate={pins[gate]} pins: leave "
                "one of them out."
            )


def learned_blocks(
    order: Sequence[str], options: Sequence[str], pins: Mapping[str, float | None]
) -> tuple[str, ...]:
    """Return the names of the gates and the candidate that have weights, in order."""
    names = (*order, "refine") if "refine_gate" in options else tuple(order)
    left_out = {gate for gate, pin in pins.items() if pin is not None}
    if "coupled" in options:
        left_out.add("input")
    return tuple(name for name in names if name not in left_out)


def add_refine_gate(
    cell: Any,
    kernel_init: nnx.Initializer,
    recurrent_kernel_init: nnx.Initializer,
    rngs: nnx.Rngs,
) -> None:
    """Draw the weights of a refine gate, beside those that a cell's layers have; its bias is 0."""
    n = cell.hidden_features
    for layer, draw in ((cell.dense_i, kernel_init), (cell.dense_h, recurrent_kernel_init)):
        kernel = layer.kernel[...]
        drawn = draw(rngs.params(), (kernel.shape[0], n), kernel.dtype)
        layer.kernel = nnx.Param(jnp.concatenate([kernel, drawn], axis=1))
        layer.out_features += n
    bias = cell.dense_h.bias[...]
    cell.dense_h.bias = nnx.Param(jnp.concatenate([bias, jnp.zeros(n, bias.dtype)]))


def add_peepholes(cell: Any, rngs: nnx.Rngs) -> None:
    """Draw a vector of peepholes for each gate of a cell that has weights, from N(0, 0.1²)."""
    draw = nnx.initializers.normal(PEEPHOLE_STD)
    for gate in PEEPING:
        if gate in cell.learned:
            weights = draw(rngs.params(), (cell.hidden_features,), cell.param_dtype)
            setattr(cell, f"peephole_{gate}", nnx.Param(weights))


def peepholes_of(cell: Any) -> dict[str, Float[Array, "n"]]:
    """Return a cell's peepholes by gate; none without that option."""
    if "peepholes" not in cell.options:
        return {}
    gates = [gate for gate in PEEPING if gate in cell.learned]
    return {gate: getattr(cell, f"peephole_{gate}")[...] for gate in gates}


def activations_of(
    cell: Any,
    net_inputs: Mapping[str, State],
    c: State,
    peepholes: Mapping[str, Float[Array, "n"]],
) -> dict[str, State]:
    """Return the gates and the candidate at one step of an LSTM with options, by name.

    Args:
        cell: the LSTM; of its weights, none is read.
        net_inputs: of the gates and the candidate that have weights, without peepholes.
        c: c⁽ᵗ⁻¹⁾.
        peepholes: by gate.

    Returns:
        As the new state uses them: "forget" is the effective gate if there is a "refine" gate.
    """

    def gate(name: str, seen: State) -> State:
        net_input = net_inputs[name]
        if name in peepholes:
            net_input = net_input + peepholes[name] * seen
        values: State = cell.gate_fn(net_input)
        return values

    values = {name: jnp.full_like(c, pin) for name, pin in cell.pins}
    values |= {name: gate(name, c) for name in READS_OLD_STATE if name in net_inputs}
    if "refine" in values:
        values["forget"] = effective_gate(values["forget"], values["refine"])
    if "coupled" in cell.options:
        values["input"] = 1 - values["forget"]
    values["candidate"] = cell.activation_fn(net_inputs["candidate"])
    if "output" in net_inputs:
        new = values["forget"] * c + values["input"] * values["candidate"]
        values["output"] = gate("output", new)
    return values


def effective_gate(forget: State, refine: State) -> State:
    """Return r (1 − (1 − f)²) + (1 − r) f², between f² and 1 − (1 − f)² (Gu et al. 2020).

    It is f + (2 r − 1) f (1 − f): the refine gate r moves the forget gate f up or down by at most
    f (1 − f).
    """
    return refine * (1 - (1 - forget) ** 2) + (1 - refine) * forget**2


def rule_of(cell: Any) -> Callable[..., tuple[State, State]]:
    """Return the step of an LSTM with options, but for layer norm, as a rule of its affine form.

    It takes the net inputs without peepholes, the carry and the peepholes, and reads no weight of
    the cell.
    """
    seeing = tuple(peepholes_of(cell))

    def rule(
        blocks: Sequence[State], carry: tuple[State, State], *peepholes: Float[Array, "n"]
    ) -> tuple[State, State]:
        net_inputs = dict(zip(cell.learned, blocks, strict=True))
        a = activations_of(cell, net_inputs, carry[0], dict(zip(seeing, peepholes, strict=True)))
        c = a["forget"] * carry[0] + a["input"] * a["candidate"]
        return c, a["output"] * cell.activation_fn(c)

    return rule
