"""Update rules, each a function learning_rate -> optax transformation.

They give optax's own rules limits that a config is checked against. To add one: a function here and
a YAML in conf/optim/.
"""

from typing import Annotated

import optax
from pydantic import Field

from gradlab.config import NonNegative, Positive

Decay = Annotated[float, Field(ge=0, lt=1)]


def sgd(learning_rate: Positive, momentum: Decay = 0.0) -> optax.GradientTransformation:
    """Stochastic gradient descent, with momentum (Polyak 1964) where it is not 0."""
    return optax.sgd(learning_rate, momentum)


def adam(
    learning_rate: Positive, b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-8
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015)."""
    return optax.adam(learning_rate, b1, b2, eps)


def rmsprop(
    learning_rate: Positive, decay: Decay = 0.9, eps: NonNegative = 1e-8
) -> optax.GradientTransformation:
    """RMSProp (Tieleman & Hinton 2012): g / (√v + eps), v the moving average of g²."""
    return optax.rmsprop(learning_rate, decay, eps, eps_in_sqrt=False)
