# %% [markdown] lang="en"
# # Vanishing and exploding
#
# A trial $W_{hh}$.

# %% [markdown] lang="es"
# # Gradientes que se desvanecen y que explotan
#
# Una prueba.

# %%
import jax
import matplotlib.pyplot as plt
from flax import nnx

import gradlab

# %% lang="en" tags=["hide-cell"]
LAG, NORM = "lag t − k (steps)", "‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖"

# %% lang="es" tags=["hide-cell"]
LAG, NORM = "retardo t − k (pasos)", "‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖"

# %% name="gains"
x = jax.random.normal(jax.random.key(0), (60, 4))


def draw(gain):
    start = nnx.initializers.variance_scaling(gain**2, "fan_in", "normal")
    cell = nnx.SimpleCell(4, 64, recurrent_kernel_init=start, rngs=nnx.Rngs(0))
    figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
    gradlab.draw_decay(gradlab.jacobian_log_norms(cell, x), ax)
    ax.set(xlabel=LAG, ylabel=NORM)
    return figure


figure = draw(1.0)

# %% name="slider"
gradlab.figures.Slider(draw, [0.5, 0.8, 1.0, 1.2, 1.5, 2.0], label="gain g", start=1.0)
