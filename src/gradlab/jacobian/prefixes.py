"""All products J⁽ᵗ⁾ ⋯ J⁽¹⁾ from the first step on, at once, by a scan of depth log T.

Matrix products are associative, so that a parallel scan forms every prefix in 2 log₂ T rounds of
batched products. Each matrix is kept at Frobenius norm 1 with the log of its scale beside it, so
that none over- or underflows; Heinsen & Kozachkov (2025) keep the log of every entry instead.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradlab.jacobian.arguments import check_at_least_zero, check_fits, numbers
from gradlab.jacobian.carry import Span
from gradlab.jacobian.complex_norms import block_log_norm
from gradlab.jacobian.finite import check_finite
from gradlab.jacobian.flat_cell import FlatCell, StepFunction, flatten_cell
from gradlab.jacobian.lengths import checked_lengths
from gradlab.jacobian.products import Scaled, exceeds_rounding, multiply, rescale, safe_log
from gradlab.jacobian.steps import jacobians_along, random_frame
from gradlab.jacobian.transforms import in_float64

COPIES = 8  # float64 arrays (T, n, n) that a scan of products has in memory


class ParallelExponent(NamedTuple):
    """The largest Lyapunov exponent, and the growth from the first state to each later one.

    Attributes:
        exponent: λ₁ in nats per step; −inf and NaN as in `lyapunov_spectrum`.
        log_norms: [..., t − 1] is log ‖∂s⁽ᵗ⁾/∂s⁽⁰⁾‖ (Frobenius), in nats; −inf for an exact zero,
            NaN past the end of a sequence, and where rounding took the product.

    Example:
        >>> growth = gradlab.parallel_exponent(cell, x[0])
        >>> growth.exponent.shape, growth.log_norms.shape
        ((), (20,))
    """

    exponent: Float[Array, "*batch"]
    log_norms: Float[Array, "*batch T"]


def parallel_exponent(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    *,
    initial_carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | None = None,
    memory_budget: int = 2**33,
) -> ParallelExponent:
    """Return the largest Lyapunov exponent by an associative scan over time.

        λ₁ = (1/T) log ‖J⁽ᵀ⁾ ⋯ J⁽¹⁾ q‖,    |q| = 1

    This is the exponent of `lyapunov_spectrum(count=1)`, from products of matrices in 2 log₂ T
    rounds instead of products with a vector in T steps: more work, for hardware that does it at
    once. On a CPU `lyapunov_spectrum` is faster. The states are run one after the other.

    Args:
        cell, inputs, initial_carry, lengths: as in `lyapunov_spectrum`.
        memory_budget: bytes that the work arrays of one sample may take.

    Returns:
        The exponent and the log norms of all products from the first step on, float32.

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a state or Jacobian is not finite; the message names its step.

    References:
        Heinsen & Kozachkov 2025, Generalized orders of magnitude (arXiv:2510.03426).

    Example:
        >>> exponent, log_norms = gradlab.parallel_exponent(cell, x)
        >>> exponent.shape, log_norms.shape
        ((4,), (4, 20))
        >>> largest = gradlab.lyapunov_exponents(cell, x, count=1)[:, 0]
        >>> bool(jnp.allclose(exponent, largest, atol=1e-3))
        True
    """
    inputs = numbers("inputs", inputs)
    flat = flatten_cell(cell, inputs, initial_carry)
    *batch, steps, _ = inputs.shape
    check_products_fit(steps, flat.form.size, memory_budget)
    measured = checked_lengths(jnp.full(batch, steps) if lengths is None else lengths, inputs)
    found, largest = in_float64(_parallel_exponent, flat, inputs, measured)
    check_finite(largest, flat, inputs)
    return found


def check_products_fit(steps: int, n: int, memory_budget: float) -> None:
    """Check that the products of all steps fit in memory.

    Raises:
        ValueError: they do not.
    """
    check_at_least_zero("memory_budget", memory_budget)
    work = f"a scan over {steps} steps of a state of {n} numbers"
    check_fits(work, COPIES * 8 * steps * n**2, memory_budget, "or pass fewer steps.")


@jax.jit
def _parallel_exponent(
    flat: FlatCell, inputs: Float[Array, "*batch T features"], lengths: Int[Array, "*batch"]
) -> tuple[ParallelExponent, Float[Array, "*batch T"]]:
    """Return what was found, and the log of each measured step Jacobian's size."""
    frame = random_frame(flat.form.size, 1)
    whole: Span = (0, flat.form.size)
    log_norm = partial(block_log_norm, flat.form, norm="frobenius", of=whole, wrt=whole)

    def one_sample(
        flat: FlatCell, inputs: Float[Array, "T features"], length: Int[Array, ""]
    ) -> tuple[ParallelExponent, Float[Array, "T"]]:
        jacobians = jacobians_along(flat, inputs)
        products, resolved = prefix_products(jacobians)
        within = jnp.arange(len(inputs)) < length
        norms = jnp.where(resolved & within, jax.vmap(log_norm)(products), jnp.nan)
        last = Scaled(*(part[length - 1] for part in products))
        image = multiply(last.unit, frame)
        kept = resolved[length - 1] & _kept(last.unit, frame, image, jacobians.dtype)
        growth = rescale(image, last.log_scale).log_scale / length
        exponent = jnp.where(kept, growth, jnp.nan)
        sizes = safe_log(jnp.max(jnp.abs(jax.lax.stop_gradient(jacobians)), axis=(1, 2)))
        found = ParallelExponent(exponent.astype(jnp.float32), norms.astype(jnp.float32))
        return found, jnp.where(within, sizes, -jnp.inf).astype(jnp.float32)

    return flat.map_samples(one_sample, inputs, lengths.astype(jnp.int64))


def prefix_products(jacobians: Float[Array, "T n n"]) -> tuple[Scaled, Bool[Array, "T"]]:
    """Return J⁽ᵗ⁾ ⋯ J⁽¹⁾ for every t, in float64, and whether rounding left some of each.

    What cancels in the sums of a product leaves the rounding errors of the Jacobians' own
    precision; an exact zero is resolved.
    """

    @jax.vmap
    def compose(
        before: tuple[Scaled, Bool[Array, ""]], after: tuple[Scaled, Bool[Array, ""]]
    ) -> tuple[Scaled, Bool[Array, ""]]:
        (first, first_resolved), (then, then_resolved) = before, after
        product = multiply(then.unit, first.unit)
        kept = _kept(then.unit, first.unit, product, jacobians.dtype)
        scaled = rescale(product, first.log_scale + then.log_scale)
        return scaled, first_resolved & then_resolved & kept

    start = rescale(jacobians.astype(jnp.float64)), jnp.ones(len(jacobians), bool)
    products, resolved = jax.lax.associative_scan(compose, start)
    return products, resolved


def _kept(left: Array, right: Array, product: Array, own: jnp.dtype) -> Bool[Array, "*batch"]:
    """Return whether more than rounding errors is left of products, or they are exactly zero."""
    left, right, product = map(jax.lax.stop_gradient, (left, right, product))
    terms, size = (
        jnp.linalg.norm(x, axis=(-2, -1))
        for x in (multiply(jnp.abs(left), jnp.abs(right)), product)
    )
    return exceeds_rounding(size, terms, own, left.shape[-1])
