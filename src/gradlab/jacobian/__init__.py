"""The measuring engine: how far a gradient reaches in a recurrent cell.

It imports jax, flax, numpy, jaxtyping and threadpoolctl only, and measures any Flax cell or step
function.

Notation: s⁽ᵗ⁾ is the whole carry after step t (h in an RNN, (c, h) in an LSTM), s⁽⁰⁾ the initial
one; J⁽ᵗ⁾ = ∂s⁽ᵗ⁾/∂s⁽ᵗ⁻¹⁾ is a step Jacobian, and ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ = J⁽ᵗ⁾ ⋯ J⁽ᵏ⁺¹⁾ their product.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from gradlab.jacobian.adaptive import AdaptiveWindow, adaptive_window
from gradlab.jacobian.adjoints import adjoint_log_norms
from gradlab.jacobian.arguments import (
    check_at_least_zero,
    check_choice,
    check_finite_jacobians,
    numbers,
    real_numbers,
    whole_number,
)
from gradlab.jacobian.arrays import AnyArray, are_known, own_threads
from gradlab.jacobian.certify import Certificate, certificates
from gradlab.jacobian.conditioning import Conditioning
from gradlab.jacobian.contributions import (
    Backpropagation,
    backpropagate,
    contribution_log_norms,
)
from gradlab.jacobian.credit import credit, long_range_share, shortest_window, truncation
from gradlab.jacobian.double import in_double_precision
from gradlab.jacobian.finite import are_finite, check_finite
from gradlab.jacobian.flat_cell import StepFunction, flatten_cell
from gradlab.jacobian.lengths import absent, padded_lengths, resting, without_padding
from gradlab.jacobian.lyapunov import (
    LyapunovSpectrum,
    lyapunov_exponents,
    lyapunov_spectrum,
)
from gradlab.jacobian.maps import Precision, best_precision, log_norm_maps, no_derivative
from gradlab.jacobian.pairs import Norm, log_norm_map
from gradlab.jacobian.parallel import ParallelEvaluation, parallel_evaluation
from gradlab.jacobian.prefixes import ParallelExponent, parallel_exponent
from gradlab.jacobian.products import rescale
from gradlab.jacobian.sampled import sampled_log_norms
from gradlab.jacobian.singular import log_singular_values
from gradlab.jacobian.steps import step_jacobians
from gradlab.jacobian.transforms import in_float64

Method = Literal["exact", "sampled"]
__all__ = [
    "AdaptiveWindow",
    "Backpropagation",
    "Certificate",
    "Conditioning",
    "LyapunovSpectrum",
    "ParallelEvaluation",
    "ParallelExponent",
    "adaptive_window",
    "adjoint_log_norms",
    "backpropagate",
    "contribution_log_norms",
    "credit",
    "jacobian_log_norms",
    "log_singular_values",
    "long_range_share",
    "lyapunov_exponents",
    "lyapunov_spectrum",
    "map_log_norms",
    "parallel_evaluation",
    "parallel_exponent",
    "shortest_window",
    "step_jacobians",
    "truncation",
]


def jacobian_log_norms(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    *,
    initial_carry: PyTree | None = None,
    norm: Norm = "spectral",
    of: str | None = None,
    wrt: str | None = None,
    stride: int = 1,
    precision: Precision | None = None,
    memory_budget: int = 2**33,
    certify: bool = False,
    lengths: Int[Array, "*batch"] | None = None,
    method: Method = "exact",
    vectors: int = 16,
    starts: Sequence[int] | None = None,
) -> Float[Array, "*batch T//stride+1 T//stride+1"] | tuple[Float[Array, "..."], Any]:
    """Return log ‖∂of⁽ᵗ⁾/∂wrt⁽ᵏ⁾‖ for every pair (t, k), in nats.

    The Jacobian is rows `of` and columns `wrt` of ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ = J⁽ᵗ⁾ ⋯ J⁽ᵏ⁺¹⁾, the total derivative
    with the inputs held fixed: ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ of an LSTM includes the way through c.

    Args:
        cell: any flax.nnx.RNNCellBase, or any function step(carry, x) -> (carry, y).
        inputs: (time, features) or (batch, time, features), real or complex numbers; integers
            where the step looks something up by them.
        initial_carry: s⁽⁰⁾ of one sample, shared by the batch, or of every sample, with the batch's
            leading axis; by default the cell's own.
        norm: "spectral", the largest singular value: the worst case; "frobenius"; or "rms",
            Frobenius over √columns: the typical growth of a random vector. Between complex states
            those of the complex matrix ∂z⁽ᵗ⁾/∂z⁽ᵏ⁾, each number one column. Where a step takes
            conjugates, δz ↦ P δz + Q δz̄: the spectral norm of that map, and √(‖P‖² + ‖Q‖²).
        of, wrt: None for the whole carry, else a part of it by name ("h", "c"; "layer0.h"). In a
            stack "h" is that of the top layer.
        stride: measure every stride-th t and k only.
        precision: of the products. float64 costs about twice the time of float32 on a CPU and
            resolves norms down to 1e-7 of those of the factors; float32 down to 1e-3. By default
            float64 on a CPU, and float32, with scales in float64, on an accelerator, most of which
            are slow in float64; `certify` shows what that costs.
        memory_budget: bytes that the work arrays may take. On an accelerator as many samples run at
            once as fit.
        certify: also compute a sample of the entries by independent methods.
        lengths: the number of steps of each sample; inputs that follow are padding, which may hold
            anything. By default all steps.
        method: "exact", or "sampled": from random vectors in the cell's own precision, without step
            Jacobians, for wide networks.
        vectors: of method="sampled": the number of random vectors for each k, at least 2.
        starts: of method="sampled": a few k, multiples of the stride; by default all of them.

    Returns:
        float32 (..., T // stride + 1, T // stride + 1); [..., t, k], in strides. −inf where k > t
        or the product is exactly zero, NaN where t or k is past a sample's end, and, under jit or
        on an accelerator, where a product is too small beside its factors for squares of their
        floats (1e-6 of them in float32, 1e-69 in float64). With `certify`, the map and its
        `Certificate`. With method="sampled", the map and its standard errors in nats
        (`sampled_log_norms`).

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a state or Jacobian is not finite; the message names its step.

    References:
        Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks,
        section 2.1: the norms of these products and their bound.

    Example:
        >>> lstm = nnx.OptimizedLSTMCell(3, 16, rngs=nnx.Rngs(0))
        >>> log_norms = gradlab.jacobian_log_norms(lstm, jnp.ones((50, 3)), of="h", wrt="h")
        >>> log_norms.shape
        (51, 51)
        >>> round(float(log_norms[50, 40]), 1)  # log ‖∂h⁽⁵⁰⁾/∂h⁽⁴⁰⁾‖
        -5.1
    """
    check_choice("method", method, get_args(Method))
    check_choice("precision", precision, (*get_args(Precision), None))
    check_choice("certify", certify, (False, True))
    if method == "sampled" and not certify and lengths is None:
        return sampled_log_norms(
            cell,
            inputs,
            initial_carry=initial_carry,
            norm=norm,
            of=of,
            wrt=wrt,
            stride=stride,
            vectors=vectors,
            starts=starts,
            memory_budget=memory_budget,
        )
    if method == "sampled" or starts is not None:
        raise ValueError(
            "starts are of method='sampled', certify=True and lengths of method='exact': leave one "
            "out."
        )
    inputs = numbers("inputs", inputs)
    check_choice("norm", norm, get_args(Norm))
    check_at_least_zero("memory_budget", memory_budget)
    flat = flatten_cell(cell, inputs, initial_carry)
    lengths = padded_lengths(lengths, inputs)
    if lengths is not None:
        inputs = without_padding(inputs, lengths)
        flat = resting(flat, lengths, inputs)
    length = inputs.shape[-2]
    stride = whole_number("stride", stride, 1, length, "the number of steps")
    part: dict[str, Any] = {
        "norm": norm,
        "of": flat.form.span(of, "of"),
        "wrt": flat.form.span(wrt, "wrt"),
        "stride": stride,
    }
    exact = in_double_precision(cell, flat, inputs) if certify else None
    measure = partial(log_norm_maps, flat, inputs, **part, memory_budget=memory_budget)
    maps = measure(precision=precision or best_precision())
    on_accelerator = jax.default_backend() != "cpu"
    is_whole = check_finite(maps.value, flat, inputs, may_be_lost=on_accelerator)
    if not is_whole and precision is None:  # squares that float32 has no numbers for
        with suppress(ValueError):  # it does not fit: what is lost stays NaN
            maps = measure(precision="float64")
    log_norms = maps.value if lengths is None else absent(maps.value, lengths, stride)
    if exact is None:
        return log_norms
    return log_norms, in_float64(partial(certificates, **part), flat, exact, inputs, *maps)


def map_log_norms(
    jacobians: Float[Array, "T n n"], *, norm: Norm = "spectral", precision: Precision | None = None
) -> Float[Array, "T+1 T+1"]:
    """Return the log norms of all products J⁽ᵗ⁾ ⋯ J⁽ᵏ⁺¹⁾ of step Jacobians, in nats.

    Args:
        jacobians: (time, n, n); [t − 1] is J⁽ᵗ⁾.
        norm: as in `jacobian_log_norms`.
        precision: of the products, as in `jacobian_log_norms`.

    Returns:
        float32 (T + 1, T + 1); [t, k] is −inf where k > t or the product is exactly zero. NaN as
        in `jacobian_log_norms`.

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a Jacobian is not finite; the message names its step.
    """
    check_choice("norm", norm, get_args(Norm))
    check_choice("precision", precision, (*get_args(Precision), None))
    with jax.enable_x64(True):
        jacobians = real_numbers("jacobians", jacobians)
    shape = jnp.shape(jacobians)
    if len(shape) != 3 or min(shape) < 1 or shape[1] != shape[2]:
        raise ValueError(f"jacobians must be (time, n, n) with time, n ≥ 1; got shape {shape}.")
    check_finite_jacobians(jacobians)
    whole = (0, shape[1])

    def measure(jacobians: Float[AnyArray, "T n n"], precision: Precision) -> Any:
        scaled = rescale(jacobians.astype(precision))
        return log_norm_map(scaled, norm=norm, of=whole, wrt=whole).value

    first = precision or best_precision()
    if are_known(jacobians):
        with own_threads():
            return jnp.asarray(measure(np.asarray(jacobians), first))
    run = partial(in_float64, not_differentiable=no_derivative(norm))
    log_norms: Array = run(partial(measure, precision=first), jacobians)
    if precision is None and not are_finite(log_norms):  # squares that float32 has no numbers for
        log_norms = run(partial(measure, precision="float64"), jacobians)
    return log_norms
