"""Gradient clipping: rules that bound a gradient's size by a threshold.

To add a rule, write a function here or in your own package, and a YAML in conf/clip/ whose
`_target_` is its dotted path. It takes `threshold` and returns an optax transformation of the whole
gradient or, as `adjoint` does, a function of the adjoint that is applied at every step of time.

A threshold of inf means no clipping, so that points with and without it share a compiled program.
Thresholds are above 0 and have the units of the gradient, except that of `agc`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from gradlab.config import Positive, Threshold


def global_norm(threshold: Threshold) -> optax.GradientTransformation:
    """Scale the whole gradient g to norm `threshold` if it is longer: g · min(1, threshold/‖g‖).

    Pascanu, Mikolov & Bengio 2013, 3.2.

    Args:
        threshold: largest norm of the gradient of all weights together.
    """
    return optax.clip_by_global_norm(threshold)


def value(threshold: Threshold) -> optax.GradientTransformation:
    """Clip every entry of the gradient to [−threshold, threshold].

    Mikolov 2012; Arjovsky et al. 2016.

    Args:
        threshold: largest absolute value of an entry.
    """
    return optax.clip(threshold)


def per_matrix(threshold: Threshold) -> optax.GradientTransformation:
    """Scale the gradient G of each weight array on its own: G · min(1, threshold/‖G‖).

    Args:
        threshold: largest norm of one array's gradient.
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
    """
    return Partial(_clip_entries, threshold)


def _clip_entries(threshold: Array, adjoint: PyTree) -> PyTree:
    clip = partial(jnp.clip, min=-threshold, max=threshold)

    def of_array(x: Array) -> Array:
        return jax.lax.complex(clip(x.real), clip(x.imag)) if jnp.iscomplexobj(x) else clip(x)

    return jax.tree.map(of_array, adjoint)
