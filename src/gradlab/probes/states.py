"""Probes of the states: gates, state norms, and the rates that theory predicts."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PyTree

from gradlab import decay, theory
from gradlab.cells import gates
from gradlab.cells.elman import Activation, elman_activation
from gradlab.cells.precision import plain_cell
from gradlab.jacobian.carry import REAL, CarryForm, Span
from gradlab.jacobian.flat_cell import carry_form
from gradlab.probes import Measurement, ProbeInput, labelled

CLOSED, OPEN = 0.1, 0.9  # gates below and above are saturated (Karpathy, Johnson & Fei-Fei 2015)
SATURATED = 0.95  # a state with a larger |h| is saturated: tanh' is below a tenth there


def statistics(probed: ProbeInput, *, name: str) -> Measurement:
    """Measure the mean and saturation of each gate, and the norm and saturation of each state.

    Means and shares are over units, and over the steps of each sequence. A cell
    without gates has those of its states only.

    Args:
        probed: the cell and sequences.
        name: prefix of the metrics and arrays.

    Example:
        >>> [name for name in runs.columns if name.startswith("statistics/forget_gate/")]
        ['statistics/forget_gate/mean',
         'statistics/forget_gate/closed',
         'statistics/forget_gate/open']
    """
    carries, activations = _run(probed)
    steps = np.arange(1, probed.inputs.shape[1] + 1)
    times = {"t": probed.times()[1:]}
    chosen = times["t"] - 1
    metrics: dict[str, float] = {}
    arrays = {}
    for gate, values in activations.items():
        quantities = {"mean": values, "closed": values < CLOSED, "open": values > OPEN}
        for kind, by_unit in quantities.items():
            by_time = probed.within(np.mean(by_unit, axis=-1), steps)
            metrics[f"{name}/{gate}_gate/{kind}"] = float(np.nanmean(by_time))
            text = f"{'mean' if kind == 'mean' else 'share ' + kind} of the {gate} gate"
            arrays[f"{name}_{gate}_gate_{kind}"] = labelled(
                by_time[:, chosen], ("sample", "t"), times, long_name=text, units="1"
            )
    for part, values in carries.items():
        norms = probed.within(np.linalg.norm(values, axis=-1), steps)
        saturated = probed.within(np.mean(np.abs(values) > SATURATED, axis=-1), steps)
        metrics |= {
            f"{name}/{part}/norm": float(np.nanmean(norms)),
            f"{name}/{part}/flat": float(np.nanmean(saturated)),
        }
        arrays[f"{name}_{part}_norm"] = labelled(
            norms[:, chosen], ("sample", "t"), times, long_name=f"norm of {part}", units="1"
        )
    return Measurement(metrics, arrays)


def traces(probed: ProbeInput, *, name: str) -> Measurement:
    """Keep every number of each state over time, such as an LSTM's cell state along a stream.

    Args:
        probed: the cell and sequences.
        name: prefix of the metrics and arrays.

    Example:
        >>> from gradlab.probes.states import traces
        >>> watcher = gradlab.watch(x, probes={"traces": traces}, folder="runs/traces")
        >>> measured = watcher(0, cell)
        >>> watcher.finish()
        >>> dict(gradlab.load_gradients("runs/traces").sizes)
        {'step': 1, 'sample': 4, 'unit_h': 8, 't': 20}
    """
    steps = np.arange(1, probed.inputs.shape[1] + 1)
    times = {"t": probed.times()[1:]}
    arrays = {}
    for part, values in _run(probed)[0].items():
        by_unit = probed.within(np.moveaxis(values, -1, 1), steps)[..., times["t"] - 1]
        dims, text = ("sample", f"unit_{part}", "t"), f"{part} of each unit"
        arrays[f"{name}_{part}"] = labelled(by_unit, dims, times, long_name=text, units="1")
    return Measurement({}, arrays)


def theory_rates(probed: ProbeInput, *, name: str) -> Measurement:
    """Compute the rates (nats per step) that theory predicts, to compare with measured ones.

    For one tanh layer: the bound ln σ_max(W_hh), the log of the spectral radius, and the mean-field
    rate at the variance of its weights and inputs. For other activations: the first two. For a cell
    with a forget or update gate f: the mean of ln f over units and time, without gates that are
    exactly 0; −inf if all are.

    Args:
        probed: the cell and sequences.
        name: prefix of the metrics and arrays.

    Example:
        >>> [name for name in runs.columns if name.startswith("theory/")]
        ['theory/bound',
         'theory/log_spectral_radius',
         'theory/mean_field',
         'theory/mean_log_forget']
    """
    cell = plain_cell(probed.cell)
    inside = np.arange(probed.inputs.shape[1]) < probed.lengths[:, None]
    if activation := elman_activation(cell):
        rates = _layer_rates(cell, activation, np.asarray(probed.inputs)[inside])
    else:
        rates = {}
        for gate, values in _run(probed)[1].items():
            if gate.rpartition(".")[2] in ("forget", "update"):
                with np.errstate(divide="ignore"):
                    logs = np.log(values[inside])
                rates[f"mean log {gate}"] = float(decay.mean_log_norm(logs))
    if not rates:
        return Measurement({}, {})
    values = np.tile(list(rates.values()), (len(probed.inputs), 1))
    array = labelled(
        values, ("sample", "theory"), {"theory": list(rates)}, long_name="rate", units="nats/step"
    )
    metrics = {f"{name}/{rate.replace(' ', '_')}": value for rate, value in rates.items()}
    return Measurement(metrics, {f"{name}_rate": array})


def _layer_rates(
    cell: Any, activation: Activation, inputs: Float[np.ndarray, "steps features"]
) -> dict[str, float]:
    w_hh = np.asarray(cell.dense_h.kernel[...], np.float64).T
    rates = {
        "bound": theory.jacobian_bound(w_hh, activation),
        "log spectral radius": float(np.log(theory.spectral_radius(w_hh))),
    }
    if activation == "tanh":
        at_rest = jnp.zeros(len(w_hh))
        drive = np.asarray(cell.dense_i(jnp.asarray(inputs)) + cell.dense_h(at_rest))
        gain = float(np.sqrt(len(w_hh)) * w_hh.std())
        rates["mean field"] = theory.mean_field(gain, float(np.mean(drive**2))).rate
    return rates


def _run(
    probed: ProbeInput,
) -> tuple[dict[str, Float[np.ndarray, "batch T n"]], dict[str, Float[np.ndarray, "batch T n"]]]:
    """Return the parts of the carry after each step, and the gates at each step, by name."""
    cell: Any = probed.cell
    form, _ = carry_form(cell, probed.inputs.shape[-1])
    states, activations = _trajectories(form, *nnx.split(cell), probed.inputs)
    spans = dict(form.spans)
    leaves = [p for p in spans if not any(q.startswith(f"{p}.") for q in spans)]
    parts = {part: _of_numbers(form, states, spans[part]) for part in leaves}
    return parts, {gate: _wide(values) for gate, values in activations.items()}


def _wide(values: Array) -> Float[np.ndarray, "..."]:
    """Return real numbers in float32 or wider: NumPy adds up bfloat16's in bfloat16."""
    return np.asarray(values.astype(jnp.promote_types(values.dtype, jnp.float32)))


def _of_numbers(
    form: CarryForm, states: Float[Array, "batch T n"], span: Span
) -> Float[np.ndarray, "batch T m"]:
    """Return the numbers of an array of the carry; of complex ones the absolute values."""
    values = _wide(states[..., slice(*span)])
    if form.kinds[span[0]] == REAL:
        return values
    return np.hypot(*np.split(values, 2, axis=-1))


@partial(jax.jit, static_argnums=(0, 1))
def _trajectories(
    form: CarryForm,
    definition: nnx.GraphDef,
    weights: nnx.State,
    inputs: Float[Array, "batch T features"],
) -> tuple[Float[Array, "batch T n"], dict[str, Float[Array, "batch T n"]]]:
    cell: Any = nnx.merge(definition, weights)

    def cell_gates(carry: PyTree, x: Array) -> dict[str, Array]:
        try:
            return gates(cell, carry, x)
        except TypeError:  # the cell has none
            return {}

    def advance(carry: PyTree, x: Array) -> tuple[PyTree, tuple[Array, dict[str, Array]]]:
        activations = cell_gates(carry, x)
        carry, _ = cell(carry, x)
        return carry, (form.split(carry)[0], activations)

    start = cell.initialize_carry(inputs.shape[-1:], nnx.Rngs(0))
    return jax.vmap(lambda sample: jax.lax.scan(advance, start, sample)[1])(inputs)
