"""Rules that bound a gradient's size, each a function threshold -> optax transformation.

A threshold of inf is no clipping, so clipped and unclipped points share one compiled program.
To add a rule: a function here and a YAML in conf/clip/.
"""

import optax

from gradlab.config import Threshold


def global_norm(threshold: Threshold) -> optax.GradientTransformation:
    """Scale the whole gradient to norm `threshold` if it is longer (Pascanu et al. 2013, 3.2)."""
    return optax.clip_by_global_norm(threshold)
