"""Gradient clipping: rules that bound a gradient's size by a threshold.

To add a rule, write a function here or in your own package, and a YAML in conf/clip/ whose
`_target_` is its dotted path. It takes `threshold` and returns an optax transformation of the whole
gradient or, as `adjoint` does, a function of the adjoint that is applied at every step of time.
What a rule remembers of earlier updates is the transformation's state: it is kept in checkpoints,
and each of several points that are vmapped has its own.

A threshold of inf means no clipping, so that points with and without it share a compiled program.
Thresholds are above 0 and have the units of the gradient, except those of `agc`, `zclip` and
`adagc`; `autoclip` has a percentile instead.
"""

import math
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PyTree
from pydantic import Field

from gradlab.config import Positive, Threshold

Decay = Annotated[float, Field(ge=0, lt=1)]


def global_norm(threshold: Threshold) -> optax.GradientTransformation:
    """Scale the whole gradient g to norm `threshold` if it is longer: g · min(1, threshold/‖g‖).

    Pascanu, Mikolov & Bengio 2013, 3.2.

    Args:
        threshold: largest norm of the gradient of all weights together.

    Example:
        >>> from gradlab.clipping import global_norm
        >>> rule, gradient = global_norm(1.0), {"w": jnp.array([3.0, 4.0])}
        >>> print(rule.update(gradient, rule.init(gradient))[0]["w"].round(2))
        [0.59999996 0.79999995]
    """
    return optax.clip_by_global_norm(threshold)


def value(threshold: Threshold) -> optax.GradientTransformation:
    """Clip every entry of the gradient to [−threshold, threshold].

    Mikolov 2012; Arjovsky et al. 2016.

    Args:
        threshold: largest absolute value of an entry.

    Example:
        >>> from gradlab.clipping import value
        >>> rule, gradient = value(1.0), {"w": jnp.array([3.0, -0.5])}
        >>> rule.update(gradient, rule.init(gradient))[0]["w"].tolist()
        [1.0, -0.5]
    """
    return optax.clip(threshold)


def per_matrix(threshold: Threshold) -> optax.GradientTransformation:
    """Scale the gradient G of each weight array on its own: G · min(1, threshold/‖G‖).

    Args:
        threshold: largest norm of one array's gradient.

    Example:
        >>> from gradlab.clipping import per_matrix
        >>> rule, gradient = per_matrix(1.0), {"w": jnp.array([3.0, 4.0]), "b": jnp.array([0.5])}
        >>> clipped, _ = rule.update(gradient, rule.init(gradient))
        >>> print(clipped["w"].round(2), clipped["b"])
        [0.59999996 0.79999995] [0.5]
    """
    rule = optax.clip_by_global_norm(threshold)

    def clip(gradient: PyTree, _: PyTree) -> PyTree:
        return jax.tree.map(lambda array: rule.update(array, optax.EmptyState())[0], gradient)

    return optax.stateless(clip)


def agc(threshold: Threshold, eps: Positive = 1e-3) -> optax.GradientTransformation:
    """Scale the gradient G of a unit's incoming weights W to ‖G‖ ≤ threshold · max(‖W‖, eps).

    Adaptive gradient clipping (Brock et al. 2021, eq. 3). A unit is a column of a Flax kernel: a
    unit of a gate has one column for the inputs and one for the state. A bias counts as one unit.

    Args:
        threshold: largest ‖G‖ / ‖W‖, dimensionless.
        eps: lower limit of ‖W‖ in the bound, above 0, so that weights of 0 can grow.

    Example:
        >>> from gradlab.clipping import agc
        >>> rule, weights, gradient = agc(0.1), jnp.ones((4, 1)), jnp.ones((4, 1))
        >>> clipped, _ = rule.update(gradient, rule.init(weights), weights)
        >>> round(float(jnp.linalg.norm(clipped)), 3)  # a tenth of ‖W‖ = 2
        0.2
    """
    return optax.adaptive_grad_clip(threshold, eps)


def adjoint(threshold: Threshold) -> Partial:
    """Clip every entry of the adjoint ∂L/∂s⁽ᵗ⁾ to [−threshold, threshold] at every step of time.

    After Graves 2013, 2.1, who clips at the gates' inputs, one product earlier. Here the part of
    the adjoint that reaches s⁽ᵗ⁾ from later steps is clipped, before the loss at step t adds its
    own part. L is the training loss, a mean over the batch.

    Args:
        threshold: largest absolute value of an entry; of a complex one, of its real and of its
            imaginary part.

    Example:
        >>> from gradlab.clipping import adjoint
        >>> adjoint(1.0)(jnp.array([3.0, -0.5])).tolist()
        [1.0, -0.5]
    """
    return Partial(_clip_entries, threshold)


def _clip_entries(threshold: Array, adjoint: PyTree) -> PyTree:
    clip = partial(jnp.clip, min=-threshold, max=threshold)

    def of_array(x: Array) -> Array:
        return jax.lax.complex(clip(x.real), clip(x.imag)) if jnp.iscomplexobj(x) else clip(x)

    return jax.tree.map(of_array, adjoint)


class NormMoments(NamedTuple):
    """Memory of `zclip`: how many norms it has seen, and their mean and variance."""

    updates: Int[Array, ""]
    mean: Float[Array, ""]
    variance: Float[Array, ""]


def zclip(
    threshold: Threshold = 2.5,
    decay: Decay = 0.97,
    warmup: Annotated[int, Field(ge=2)] = 25,
    max_norm: Threshold = math.inf,
) -> optax.GradientTransformation:
    """Shorten a gradient whose norm is more than `threshold` standard deviations above the mean.

    ZClip (Kumar, Owen, Chowdhury & Güra 2025): with the mean μ and the standard deviation σ of
    earlier norms, a gradient of z = (‖g‖ − μ)/σ > threshold gets the norm μ + σ · threshold²/z, so
    that the farther out it is, the closer to the mean it ends. μ and σ² are moving averages of the
    norm after this and of its squared distance from μ; those of the first `warmup` updates, which
    it leaves alone, start them.

    Args:
        threshold: the largest z that is left alone, in standard deviations.
        decay: of the moving averages, from 0 to below 1.
        warmup: number of updates that start the averages, at least 2.
        max_norm: besides, the largest norm of any gradient, from the first update on; inf: none.
            (The authors' code has 1 by default.)

    Example:
        >>> from gradlab.clipping import zclip
        >>> rule = zclip(warmup=2)
        >>> state = rule.init(jnp.ones(1))
        >>> for size in (1.0, 1.1, 100.0):
        ...     clipped, state = rule.update(jnp.array([size]), state)
        >>> bool(clipped[0] < 2)
        True
    """

    def init(_: PyTree) -> NormMoments:
        return NormMoments(jnp.array(0), jnp.array(0.0), jnp.array(0.0))

    def update(
        gradient: PyTree, memory: NormMoments, params: PyTree = None
    ) -> tuple[PyTree, NormMoments]:
        del params
        count, mean, variance = memory
        norm = optax.tree.norm(gradient)
        excess = norm - mean
        is_warm, is_spike = count >= warmup, excess > threshold * jnp.sqrt(variance)
        spike = mean + threshold * (threshold * variance / excess)
        kept = jnp.where(is_warm & is_spike, spike, norm)
        rate = jnp.where(is_warm, 1 - decay, 1 / (count + 1))
        new_mean = mean + rate * (kept - mean)
        before = jnp.where(is_warm, new_mean, mean)  # in the warm-up, the plain variance
        new_variance = variance + rate * ((kept - before) * (kept - new_mean) - variance)
        clipped = _shortened(gradient, norm, jnp.minimum(kept, max_norm))
        return clipped, NormMoments(count + 1, new_mean, new_variance)

    return optax.GradientTransformation(init, update)


class ArrayNorms(NamedTuple):
    """Memory of `adagc`: number of updates, and a norm of each weight array's gradient."""

    updates: Int[Array, ""]
    norms: Float[Array, "arrays"]  # inf: its gradient was never other than 0


def adagc(
    threshold: Threshold = 1.04,
    decay: Decay = 0.99,
    warmup: Annotated[int, Field(ge=0)] = 100,
    warmup_norm: Threshold = 1.0,
) -> optax.GradientTransformation:
    """Scale the gradient G of each weight array to `threshold` · γ, its usual norm, if longer.

    AdaGC (Wang et al. 2025, algorithm 1). γ is a moving average of the norms that G had after
    clipping. In the first `warmup` updates the whole gradient is scaled to norm `warmup_norm`
    instead, and γ is the least norm of G so far. A G of exactly 0 is not counted: γ can grow by
    `threshold` an update at most, so an array would hardly learn again after some of them. The
    defaults are those of the authors' released code.

    Args:
        threshold: largest ‖G‖ / γ, dimensionless.
        decay: of the moving average, from 0 to below 1.
        warmup: number of updates with the fixed threshold.
        warmup_norm: that threshold, on the norm of the gradient of all weights together.

    Example:
        >>> from gradlab.clipping import adagc
        >>> rule = adagc(warmup=1)
        >>> state = rule.init(jnp.ones(1))
        >>> for size in (0.5, 100.0):
        ...     clipped, state = rule.update(jnp.array([size]), state)
        >>> print(clipped.round(3))  # 1.04 times the usual norm
        [0.52000004]
    """

    def init(parameters: PyTree) -> ArrayNorms:
        return ArrayNorms(jnp.array(0), jnp.full(len(jax.tree.leaves(parameters)), jnp.inf))

    def update(
        gradient: PyTree, memory: ArrayNorms, params: PyTree = None
    ) -> tuple[PyTree, ArrayNorms]:
        del params
        arrays, structure = jax.tree.flatten(gradient)
        norms = jnp.stack([optax.tree.norm(array) for array in arrays])
        total, warms_up = jnp.linalg.norm(norms), memory.updates < warmup
        whole = jnp.where(total > warmup_norm, norms * (warmup_norm / total), norms)
        bound = threshold * memory.norms
        kept = jnp.where(warms_up, whole, jnp.where(norms > bound, bound, norms))
        least = jnp.minimum(memory.norms, jnp.where(kept > 0, kept, jnp.inf))
        average = jnp.where(kept > 0, decay * memory.norms + (1 - decay) * kept, memory.norms)
        usual = jnp.where(warms_up | jnp.isinf(memory.norms), least, average)
        clipped = [_shortened(*each) for each in zip(arrays, norms, kept, strict=True)]
        return jax.tree.unflatten(structure, clipped), ArrayNorms(memory.updates + 1, usual)

    return optax.GradientTransformation(init, update)


class NormHistory(NamedTuple):
    """Memory of `autoclip`: number of updates, and the latest norms in two orders, else inf."""

    updates: Int[Array, ""]
    latest: Float[Array, "history"]  # that of update i is at i modulo history
    ascending: Float[Array, "history"]


def autoclip(
    percentile: Annotated[float, Field(ge=0, le=100)] = 10.0,
    history: Annotated[int, Field(ge=0)] = 10_000,
) -> optax.GradientTransformation:
    """Scale the whole gradient to a percentile of all norms so far, this one included, if longer.

    AutoClip (Seetharaman, Wichern, Pardo & Le Roux 2020, algorithm 1), whose authors
    recommend the 10th percentile. Between two norms the percentile is linear, as NumPy's.

    Args:
        percentile: from 0 (the least norm so far) to 100 (nothing is ever clipped).
        history: number of norms that are kept, the latest; conf/clip/ has `train.steps`, which are
            all, as in the paper. 0 counts as 1.

    Example:
        >>> from gradlab.clipping import autoclip
        >>> rule = autoclip(percentile=50.0, history=10)
        >>> state = rule.init(jnp.ones(1))
        >>> for size in (1.0, 2.0, 100.0):
        ...     clipped, state = rule.update(jnp.array([size]), state)
        >>> print(clipped.round(3))  # the median of the three norms
        [2.]
    """
    size = max(history, 1)
    places = jnp.arange(size)

    def init(_: PyTree) -> NormHistory:
        return NormHistory(jnp.array(0), jnp.full(size, jnp.inf), jnp.full(size, jnp.inf))

    def update(
        gradient: PyTree, memory: NormHistory, params: PyTree = None
    ) -> tuple[PyTree, NormHistory]:
        del params
        count, latest, ascending = memory
        norm = optax.tree.norm(gradient)
        gap = jnp.searchsorted(ascending, latest[count % size])  # of the oldest, which goes
        others = jnp.where(places < gap, ascending, jnp.roll(ascending.at[0].set(jnp.inf), -1))
        place = jnp.searchsorted(others, norm)
        later = jnp.where(places == place, norm, jnp.roll(others, 1))
        ascending = jnp.where(places < place, others, later)
        last = jnp.minimum(count, size - 1)
        wanted = percentile / 100 * last
        low = jnp.floor(wanted).astype(int)
        lower, upper = ascending[low], ascending[jnp.minimum(low + 1, last)]
        clipped = _shortened(gradient, norm, lower + (wanted - low) * (upper - lower))
        latest = latest.at[count % size].set(norm)
        return clipped, NormHistory(count + 1, latest, ascending)

    return optax.GradientTransformation(init, update)


def _shortened(gradient: PyTree, norm: Float[Array, ""], bound: Float[Array, ""]) -> PyTree:
    """Scale a gradient of a known norm to a bound if it is longer; else no bit of it changes."""
    scale = jnp.where(norm > bound, bound / norm, 1.0)
    return jax.tree.map(lambda array: array * scale, gradient)
