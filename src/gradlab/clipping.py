"""Rules that bound a gradient's size, each a function of a threshold.

A rule is an optax transformation of the whole gradient or, as `adjoint`, a function of what flows
back at every step of time. A threshold of inf is no clipping, so clipped and unclipped points share
one compiled program. To add a rule: a function here and a YAML in conf/clip/.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from gradlab.config import Positive, Threshold


def global_norm(threshold: Threshold) -> optax.GradientTransformation:
    """Scale the whole gradient to norm `threshold` if it is longer (Pascanu et al. 2013, 3.2)."""
    return optax.clip_by_global_norm(threshold)


def value(threshold: Threshold) -> optax.GradientTransformation:
    """Cut every entry off at ±threshold (Mikolov 2012; Arjovsky et al. 2016)."""
    return optax.clip(threshold)


def per_matrix(threshold: Threshold) -> optax.GradientTransformation:
    """Scale the gradient of each weight array to norm `threshold` if it is longer, on its own."""
    rule = optax.clip_by_global_norm(threshold)

    def clip(gradient: PyTree, _: PyTree) -> PyTree:
        return jax.tree.map(lambda array: rule.update(array, optax.EmptyState())[0], gradient)

    return optax.stateless(clip)


def agc(threshold: Threshold, eps: Positive = 1e-3) -> optax.GradientTransformation:
    """Scale the gradient G of a unit's incoming weights W to ‖G‖ ≤ threshold · max(‖W‖, eps).

    Adaptive gradient clipping (Brock et al. 2021, eq. 3). A unit is a column of a Flax kernel, so
    a gate's unit has one for its inputs and one for the state; a bias counts as one unit.
    """
    return optax.adaptive_grad_clip(threshold, eps)


def adjoint(threshold: Threshold) -> Partial:
    """Cut every entry of the adjoint off at ±threshold at every step, inside the backward pass.

    Graves 2013, 2.1, at the carry s⁽ᵗ⁾: what later steps send back to it, of the loss as it is
    trained on (a mean over the batch). Graves cut at the gates' inputs, one product earlier.
    """
    return Partial(_cut_off, threshold)


def _cut_off(threshold: Array, adjoint: PyTree) -> PyTree:
    return jax.tree.map(partial(jnp.clip, min=-threshold, max=threshold), adjoint)
