"""The measuring engine: how far a gradient reaches in a recurrent cell.

It imports jax, flax, numpy and jaxtyping only, and measures any Flax cell or step function.

Notation: s⁽ᵗ⁾ is the whole carry after step t (h in an RNN, (c, h) in an LSTM), s⁽⁰⁾ the initial
one; J⁽ᵗ⁾ = ∂s⁽ᵗ⁾/∂s⁽ᵗ⁻¹⁾ is a step Jacobian, and ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ = J⁽ᵗ⁾ ⋯ J⁽ᵏ⁺¹⁾ their product.
"""

import math
from functools import partial
from itertools import islice
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PyTree

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
from gradlab.jacobian.carry import Span
from gradlab.jacobian.certify import Certificate, certificate, in_double_precision
from gradlab.jacobian.complex_norms import carry_log_norm_map
from gradlab.jacobian.contributions import (
    Backpropagation,
    backpropagate,
    contribution_log_norms,
)
from gradlab.jacobian.credit import credit, long_range_share, truncation
from gradlab.jacobian.finite import check_finite
from gradlab.jacobian.flat_cell import FlatCell, StepFunction, flatten_cell
from gradlab.jacobian.lyapunov import (
    LyapunovSpectrum,
    lyapunov_exponents,
    lyapunov_spectrum,
)
from gradlab.jacobian.pairs import Norm, log_norm_map
from gradlab.jacobian.products import Scaled, rescale
from gradlab.jacobian.singular import log_singular_values
from gradlab.jacobian.steps import (
    jacobians_along,
    jacobians_at,
    products_of_strides,
    step_jacobians,
    trajectory,
)
from gradlab.jacobian.transforms import in_float64

Precision = Literal["float64", "float32"]

__all__ = [
    "Backpropagation",
    "Certificate",
    "LyapunovSpectrum",
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
    "step_jacobians",
    "truncation",
]

# Arrays of the size of all step Jacobians, and of the map, that are in memory at once.
STATE_COPIES, MAP_COPIES = 12, 3
_NO_DERIVATIVE = "the spectral norm cannot be differentiated here: use norm='frobenius'."


def jacobian_log_norms(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    *,
    initial_carry: PyTree | None = None,
    norm: Norm = "spectral",
    of: str | None = None,
    wrt: str | None = None,
    stride: int = 1,
    precision: Precision = "float64",
    memory_budget: int = 2**33,
    certify: bool = False,
) -> Float[Array, "*batch T//stride+1 T//stride+1"] | tuple[Float[Array, "..."], Certificate]:
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
            resolves norms down to 1e-7 of those of the factors; float32 down to 1e-3.
        memory_budget: bytes that the work arrays may take. On an accelerator as many samples run at
            once as fit.
        certify: also compute a sample of the entries by independent methods.

    Returns:
        float32 (..., T // stride + 1, T // stride + 1); [..., t, k], in strides. −inf where k > t
        or the product is exactly zero. With `certify`, the map and its `Certificate`.

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a state or Jacobian is not finite; the message names its step.

    References:
        Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks,
        section 2.1: the norms of these products and their bound.

    Example:
        >>> cell = nnx.OptimizedLSTMCell(3, 16, rngs=nnx.Rngs(0))
        >>> log_norms = jacobian_log_norms(cell, jnp.ones((50, 3)), of="h", wrt="h")
        >>> log_norms[50, 40]  # log ‖∂h⁽⁵⁰⁾/∂h⁽⁴⁰⁾‖
    """
    inputs = numbers("inputs", inputs)
    check_choice("norm", norm, get_args(Norm))
    check_choice("precision", precision, get_args(Precision))
    check_choice("certify", certify, (False, True))
    check_at_least_zero("memory_budget", memory_budget)
    flat = flatten_cell(cell, inputs, initial_carry)
    length = inputs.shape[-2]
    stride = whole_number("stride", stride, 1, length, "the number of steps")
    part: dict[str, Any] = {"of": flat.form.span(of, "of"), "wrt": flat.form.span(wrt, "wrt")}
    part |= {"norm": norm, "stride": stride, "precision": precision}
    samples = _samples_at_once(flat, inputs, stride, precision, memory_budget)
    certificate = None
    if not certify and are_known((flat, inputs)):
        log_norms = _maps_of_known(flat, inputs, samples=samples, **part)
    else:
        log_norms, certificate = in_float64(
            partial(_maps, samples=samples, **part),
            flat,
            in_double_precision(cell, flat, inputs) if certify else None,
            inputs,
            not_differentiable=_NO_DERIVATIVE if norm == "spectral" else "",
        )
    check_finite(log_norms, flat, inputs)
    return log_norms if certificate is None else (log_norms, certificate)


def map_log_norms(
    jacobians: Float[Array, "T n n"], *, norm: Norm = "spectral", precision: Precision = "float64"
) -> Float[Array, "T+1 T+1"]:
    """Return the log norms of all products J⁽ᵗ⁾ ⋯ J⁽ᵏ⁺¹⁾ of step Jacobians, in nats.

    Args:
        jacobians: (time, n, n); [t − 1] is J⁽ᵗ⁾.
        norm: as in `jacobian_log_norms`.
        precision: of the products, as in `jacobian_log_norms`.

    Returns:
        float32 (T + 1, T + 1); [t, k] is −inf where k > t or the product is exactly zero.

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a Jacobian is not finite; the message names its step.
    """
    check_choice("norm", norm, get_args(Norm))
    check_choice("precision", precision, get_args(Precision))
    with jax.enable_x64(True):
        jacobians = real_numbers("jacobians", jacobians)
    shape = jnp.shape(jacobians)
    if len(shape) != 3 or min(shape) < 1 or shape[1] != shape[2]:
        raise ValueError(f"jacobians must be (time, n, n) with time, n ≥ 1; got shape {shape}.")
    check_finite_jacobians(jacobians)
    whole = (0, shape[1])

    def measure(jacobians: Float[AnyArray, "T n n"]) -> Float[AnyArray, "T+1 T+1"]:
        scaled = rescale(jacobians.astype(precision))
        return log_norm_map(scaled, norm=norm, of=whole, wrt=whole).value

    if are_known(jacobians):
        with own_threads():
            return jnp.asarray(measure(np.asarray(jacobians)))
    reason = _NO_DERIVATIVE if norm == "spectral" else ""
    return in_float64(measure, jacobians, not_differentiable=reason)


def _maps_of_known(
    flat: FlatCell,
    inputs: Float[Array, "*batch T features"],
    *,
    norm: Norm,
    of: Span,
    wrt: Span,
    stride: int,
    precision: Precision,
    samples: int,
) -> Float[Array, "*batch T//stride+1 T//stride+1"]:
    """Return the maps of a cell and inputs whose values are known, on a CPU.

    Only the user's step is compiled: XLA takes seconds for the rest, which NumPy does at once.
    """
    with jax.enable_x64(True), own_threads():
        sequences = flat.each_sample(inputs)
        maps = []
        while group := list(islice(sequences, samples)):
            jacobians = [np.asarray(jacobians_along(*sequence)) for sequence in group]
            products = [products_of_strides(x, stride, precision) for x in jacobians]
            stacked = Scaled(*map(np.stack, zip(*products, strict=True)))
            maps.append(carry_log_norm_map(flat.form, stacked, norm=norm, of=of, wrt=wrt).value)
        joined = np.concatenate(maps)
        return jnp.asarray(joined.reshape(*inputs.shape[:-2], *joined.shape[1:]))


@partial(jax.jit, static_argnames=("norm", "of", "wrt", "stride", "precision", "samples"))
def _maps(
    flat: FlatCell,
    exact: FlatCell | None,
    inputs: Float[Array, "*batch T features"],
    *,
    norm: Norm,
    of: Span,
    wrt: Span,
    stride: int,
    precision: Precision,
    samples: int,
) -> tuple[Float[Array, "*batch T//stride+1 T//stride+1"], Certificate | None]:
    def one_sample(
        flat: FlatCell, sample: Float[Array, "T features"]
    ) -> tuple[Array, Certificate | None]:
        states, last = trajectory(flat, sample)
        jacobians = jacobians_at(flat, states, sample)
        products = products_of_strides(jacobians, stride, precision)
        log_norms = carry_log_norm_map(flat.form, products, norm=norm, of=of, wrt=wrt)
        if exact is None:
            return log_norms.value, None
        return log_norms.value, certificate(
            flat, exact, states, last, sample, *log_norms, norm=norm, of=of, wrt=wrt, stride=stride
        )

    return flat.map_samples(one_sample, inputs, samples=samples)


def _samples_at_once(
    flat: FlatCell, inputs: Array, stride: int, precision: Precision, memory_budget: int
) -> int:
    length, n, itemsize = inputs.shape[-2] // stride, flat.form.size, jnp.dtype(precision).itemsize
    # Step Jacobians, prefixes, suffixes and their Gram matrices, each twice while a level is built.
    needed = STATE_COPIES * length * n**2 * itemsize
    # The map, its parts while levels are joined, and whether each entry is resolved.
    needed += MAP_COPIES * (length + 1) ** 2 * itemsize
    needed_by_maps = 4 * (length + 1) ** 2 * math.prod(inputs.shape[:-2])
    total = needed + needed_by_maps
    if total > memory_budget:
        raise ValueError(
            f"measuring {length} steps of a state of {n} numbers takes about "
            f"{total / 2**30:.1f} GiB, more than memory_budget={memory_budget / 2**30:.1f} GiB: "
            "raise memory_budget or use a stride of "
            f"{-(-total // max(1, int(memory_budget)))} or more times the present one."
        )
    fitting = (memory_budget - needed_by_maps) // needed
    if jax.default_backend() == "cpu":  # which a few small samples, or a large one, keep busy
        fitting = min(fitting, max(1, 2**27 // needed))
    return int(min(math.prod(inputs.shape[:-2]), fitting))
