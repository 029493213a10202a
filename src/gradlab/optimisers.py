"""Optimisers: optax's update rules, with the limits that a config is checked against.

To add one, write a function here or in your own package that takes `learning_rate` and returns an
optax transformation, and a YAML in conf/optim/ whose `_target_` is its dotted path.

Below, g is the gradient (clipped, if it is), θ the weights and η the learning rate.
"""

from typing import Annotated

import optax
from pydantic import Field

from gradlab.config import NonNegative, Positive

Decay = Annotated[float, Field(ge=0, lt=1)]


def sgd(learning_rate: Positive, momentum: Decay = 0.0) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum μ: v ← μ v + g, θ ← θ − η v (Polyak 1964).

    Args:
        learning_rate: η, above 0.
        momentum: μ, from 0 (none) to below 1.

    Example:
        >>> from gradlab.optimisers import sgd
        >>> rule, weights = sgd(0.1), jnp.ones(2)
        >>> step, _ = rule.update(jnp.ones(2), rule.init(weights))
        >>> print((weights + step).round(3))
        [0.90000004 0.90000004]
    """
    return optax.sgd(learning_rate, momentum)


def adam(
    learning_rate: Positive, b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-8
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015): θ ← θ − η m̂ / (√v̂ + eps).

    m̂ and v̂ are the bias-corrected moving averages of g and g².

    Args:
        learning_rate: η, above 0.
        b1: decay of m, from 0 to below 1.
        b2: decay of v, from 0 to below 1.
        eps: added to √v̂, at least 0.

    Example:
        >>> from gradlab.optimisers import adam
        >>> rule, weights = adam(0.1), jnp.ones(2)
        >>> step, _ = rule.update(jnp.array([1.0, 100.0]), rule.init(weights))
        >>> print(step.round(3))  # the first step has the size η whatever the gradient's
        [-0.1 -0.1]
    """
    return optax.adam(learning_rate, b1, b2, eps)


def rmsprop(
    learning_rate: Positive, decay: Decay = 0.9, eps: NonNegative = 1e-8
) -> optax.GradientTransformation:
    """RMSProp (Tieleman & Hinton 2012): θ ← θ − η g / (√v + eps), v the moving average of g².

    Args:
        learning_rate: η, above 0.
        decay: of v, from 0 to below 1.
        eps: added to √v, at least 0.

    Example:
        >>> from gradlab.optimisers import rmsprop
        >>> rule, weights = rmsprop(0.1), jnp.ones(2)
        >>> step, _ = rule.update(jnp.array([1.0, 100.0]), rule.init(weights))
        >>> print(step.round(2))  # η / √(1 − decay)
        [-0.32 -0.32]
    """
    return optax.rmsprop(learning_rate, decay, eps, eps_in_sqrt=False)
