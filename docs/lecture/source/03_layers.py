# %% [markdown] lang="en"
# # 3. Several layers
#
# **What do more layers change in the way of a gradient back in time?**

# %% [markdown] lang="es"
# # 3. Varias capas
#
# **¿Qué cambian las capas apiladas en el camino de un gradiente hacia atrás en el tiempo?**

# %%
from math import comb

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

import gradlab
from gradlab.models import Stack

# %% [markdown] lang="en"
# ## A stack
#
# In a stack of $L$ layers the state of each layer is the input of the next one, at the same step:
#
# $$h_\ell^{(t)} = \varphi\big(W_{xh,\ell}\; h_{\ell-1}^{(t)} + W_{hh,\ell}\; h_\ell^{(t-1)} +
# b_\ell \big), \qquad h_0^{(t)} = x^{(t)}.$$
#
# A path from $x^{(1)}$ to $h_3^{(4)}$ goes three steps to the right and up through three layers. It
# may go up at any step. One such path is drawn in orange.

# %% [markdown] lang="es"
# ## Una pila de capas
#
# En una pila de $L$ capas, el estado de cada capa es la entrada de la siguiente en el mismo paso:
#
# $$h_\ell^{(t)} = \varphi\big(W_{xh,\ell}\; h_{\ell-1}^{(t)} + W_{hh,\ell}\; h_\ell^{(t-1)} +
# b_\ell \big), \qquad h_0^{(t)} = x^{(t)}.$$
#
# Un camino de $x^{(1)}$ a $h_3^{(4)}$ avanza tres pasos a la derecha y sube por tres capas. Puede
# subir en cualquier paso. Uno de esos caminos está dibujado en naranja.

# %% name="stack"
PATH = {(1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (4, 2), (4, 3)}  # (step, layer)


def draw_arrow(ax, start, end):
    is_on_path = {start, end} <= PATH
    style = {"arrowstyle": "-|>", "shrinkA": 19, "shrinkB": 19}
    style["color"] = "#e69f00" if is_on_path else "0.4"
    style["linewidth"] = 2.5 if is_on_path else 1
    ax.annotate("", end, start, arrowprops=style)


figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for t in (1, 2, 3, 4):
    for layer in (0, 1, 2, 3):
        name = f"$h_{layer}^{{({t})}}$" if layer else f"$x^{{({t})}}$"
        box = {"boxstyle": "round,pad=0.35", "edgecolor": "0.3"}
        box["facecolor"] = "#e4e4e4" if layer else "#cfe3f3"
        ax.text(t, layer, name, ha="center", va="center", bbox=box)
        if layer:
            draw_arrow(ax, (t, layer - 1), (t, layer))
        if layer and t < 4:
            draw_arrow(ax, (t, layer), (t + 1, layer))
ax.set(xlim=(0.6, 4.4), ylim=(-0.4, 3.4))
_ = ax.axis("off")

# %% [markdown] lang="en"
# ## Shapes
#
# | weights | first layer | layer $\ell > 1$ |
# | --- | --- | --- |
# | $W_{xh,\ell}$ | $n \times m$ | $n \times n$ |
# | $W_{hh,\ell}$ | $n \times n$ | $n \times n$ |
# | $b_\ell$ | $n$ | $n$ |
#
# The state of the whole network is $s^{(t)} = (h_1^{(t)}, \dots, h_L^{(t)})$, of $Ln$ numbers.

# %% [markdown] lang="es"
# ## Formas
#
# | pesos | primera capa | capa $\ell > 1$ |
# | --- | --- | --- |
# | $W_{xh,\ell}$ | $n \times m$ | $n \times n$ |
# | $W_{hh,\ell}$ | $n \times n$ | $n \times n$ |
# | $b_\ell$ (sesgo) | $n$ | $n$ |
#
# El estado de toda la red es $s^{(t)} = (h_1^{(t)}, \dots, h_L^{(t)})$, de $Ln$ números.

# %%
m, n, T = 3, 32, 64


def stack(count, gain=0.9):
    """Return `count` tanh layers; W_hh of each is `gain` times a rotation."""
    rngs, sizes = nnx.Rngs(0), [m, *[n] * (count - 1)]
    start = nnx.initializers.orthogonal(gain)
    return Stack(
        [nnx.SimpleCell(size, n, recurrent_kernel_init=start, rngs=rngs) for size in sizes]
    )


for layer in stack(3).layers:
    print("W_xh", layer.dense_i.kernel.T.shape, "W_hh", layer.dense_h.kernel.T.shape)

# %% [markdown] lang="en"
# ## By hand
#
# A loop over the steps, and within it a loop over the layers. The largest difference from Flax's
# run of the same stack is the rounding of float32.

# %% [markdown] lang="es"
# ## A mano
#
# Un bucle sobre los pasos y, dentro de él, un bucle sobre las capas. La mayor diferencia con la
# ejecución de la misma pila en Flax es el redondeo de float32.

# %%
network = stack(3)
x = 0.5 * np.random.default_rng(0).normal(size=(T, m)).astype(np.float32)

h, by_hand = [np.zeros(n)] * 3, []
for x_t in x:
    below = x_t
    for i, layer in enumerate(network.layers):
        W_xh, b = np.asarray(layer.dense_i.kernel).T, np.asarray(layer.dense_i.bias)
        W_hh = np.asarray(layer.dense_h.kernel).T
        h[i] = below = np.tanh(W_xh @ below + W_hh @ h[i] + b)
    by_hand.append(below)

by_flax = np.asarray(nnx.RNN(network)(x[None])[0])
assert np.allclose(by_hand, by_flax, atol=1e-6)
print(f"{np.abs(by_hand - by_flax).max():.1e}")

# %% [markdown] lang="en"
# **Question.** Could a layer read the state of the layer below of one step ago,
# $h_{\ell-1}^{(t-1)}$? What would change?
#
# <details><summary>Answer</summary>
#
# It could. Then an input would need $L - 1$ steps to reach the top, and the layers could be
# computed at the same time. In the usual stack the top layer sees $x^{(t)}$ at step $t$.
#
# </details>

# %% [markdown] lang="es"
# **Pregunta.** ¿Podría una capa leer el estado de la capa inferior de un paso atrás,
# $h_{\ell-1}^{(t-1)}$? ¿Qué cambiaría?
#
# <details><summary>Respuesta</summary>
#
# Podría. Entonces una entrada necesitaría $L - 1$ pasos para llegar a la capa superior, y las capas
# se podrían calcular a la vez. En la pila habitual, la capa superior ve $x^{(t)}$ en el paso $t$.
#
# </details>

# %% [markdown] lang="en"
# ## The gradient of one, two and three layers
#
# We measure $\partial s^{(t)}/\partial s^{(k)}$ of the whole state, for every pair of steps. All
# recurrent matrices are 0.9 times a rotation, so that no layer by itself can make a gradient grow.

# %% [markdown] lang="es"
# ## El gradiente de una, dos y tres capas
#
# Medimos $\partial s^{(t)}/\partial s^{(k)}$ del estado completo, para cada par de pasos. Todas las
# matrices recurrentes son una rotación multiplicada por 0.9, de modo que ninguna capa por sí sola
# puede hacer crecer un gradiente.

# %% lang="en" tags=["hide-cell"]
LAYERS = ["1 layer", "2 layers", "3 layers"]
T_STEPS, K_STEPS, LAG = "t (steps)", "k (steps)", "lag t − k (steps)"

# %% lang="es" tags=["hide-cell"]
LAYERS = ["1 capa", "2 capas", "3 capas"]
T_STEPS, K_STEPS, LAG = "t (pasos)", "k (pasos)", "retardo t − k (pasos)"

# %% name="maps"
NORM = "‖∂s⁽ᵗ⁾/∂s⁽ᵏ⁾‖"
maps = [gradlab.jacobian_log_norms(stack(L), jnp.asarray(x)) for L in (1, 2, 3)]

figure, axes = plt.subplots(1, 3, figsize=(7, 2.6), sharey=True, layout="constrained")
for ax, log_norms, title in zip(axes, maps, LAYERS, strict=True):
    gradlab.draw_map(log_norms, ax)
    ax.images[0].set_clim(-np.log(100), np.log(100))
    ax.set(title=title, xlabel=K_STEPS, ylabel="")
    if ax is not axes[2]:
        ax.images[0].colorbar.remove()
axes[0].set_ylabel(T_STEPS)
axes[2].images[0].colorbar.set_label(NORM)

# %% name="decay"
figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for log_norms, label, line in zip(maps, LAYERS, ("-", "--", ":"), strict=True):
    gradlab.draw_decay(log_norms, ax, label=label, linestyle=line)
ax.set(xlabel=LAG, ylabel=NORM, xlim=(0, 30), ylim=(np.log(1e-3), np.log(5)))
[round(gradlab.horizon(log_norms), 1) for log_norms in maps]  # steps

# %% [markdown] lang="en"
# With one layer the norm falls from the first step on. With two and three it first grows (red in
# the maps) and falls later. The dots are the horizons, at which the mean norm is $1/e$: more layers
# reach further, although no recurrent matrix has changed.

# %% [markdown] lang="es"
# Con una capa, la norma baja desde el primer paso. Con dos y tres capas primero crece (rojo en los
# mapas) y baja después. Los puntos son los horizontes, donde la norma media es $1/e$: con más capas
# se llega más lejos, aunque ninguna matriz recurrente ha cambiado.

# %% [markdown] lang="en"
# ## Counting paths
#
# Why does it grow? Take one linear unit a layer, with recurrent weight $a$ and weight $b$ from the
# layer below (the first layer has input weight 1). Each path from $x^{(k)}$ to the top at step
# $k + n$ goes $n$ times right, with factor $a$, and up through $L - 1$ layers, with factor $b$.
# These $n + L - 1$ moves come in any order:
#
# $$\frac{\partial h_L^{(k+n)}}{\partial x^{(k)}} = \binom{n + L - 1}{L - 1}\, a^n\, b^{L-1} .$$
#
# The number of paths grows as $n^{L-1}$, and $a^n$ with $a < 1$ falls faster than any power grows.
# So the gradient first grows, then vanishes. In the drawing above, $n = 3$ and $L = 3$.

# %% [markdown] lang="es"
# ## Contar caminos
#
# ¿Por qué crece? Tomamos una unidad lineal por capa, con peso recurrente $a$ y peso $b$ desde la
# capa inferior (en la primera capa el peso de entrada es 1). Cada camino de $x^{(k)}$ a la capa
# superior en el paso $k + n$ avanza $n$ veces a la derecha, con factor $a$, y sube por $L - 1$
# capas, con factor $b$. Estos $n + L - 1$ movimientos se dan en cualquier orden:
#
# $$\frac{\partial h_L^{(k+n)}}{\partial x^{(k)}} = \binom{n + L - 1}{L - 1}\, a^n\, b^{L-1} .$$
#
# El número de caminos crece como $n^{L-1}$, y $a^n$ con $a < 1$ decrece más deprisa de lo que crece
# cualquier potencia. Por eso el gradiente primero crece y después se desvanece. En el dibujo de
# arriba, $n = 3$ y $L = 3$.

# %%
comb(3 + 3 - 1, 3 - 1)  # paths from x(1) to h3(4)


# %%
def top(x, a, b, count):
    """Return the last state of the top one of `count` linear layers of one unit."""

    def step(h, x_t):
        below, new = x_t, []
        for i in range(count):
            below = a * h[i] + (b if i else 1.0) * below
            new.append(below)
        return jnp.stack(new), None

    return jax.lax.scan(step, jnp.zeros(count), x)[0][-1]


def measured(a, b, count, steps=60):
    return np.asarray(jax.grad(top)(jnp.zeros(steps), a, b, count))[::-1]  # by n


lags = np.arange(60)
ways = [comb(int(lag) + 2, 2) for lag in lags]
difference = measured(0.9, 0.7, 3) / (ways * 0.9**lags * 0.7**2) - 1
print(f"{np.abs(difference).max():.1e}")  # relative

# %% [markdown] lang="en"
# Automatic differentiation agrees with the formula. The slider sets the recurrent weight $a$; lines
# are the formula, dots what `jax.grad` gives.

# %% [markdown] lang="es"
# La diferenciación automática coincide con la fórmula. El control deslizante fija el peso
# recurrente $a$; las líneas son la fórmula y los puntos lo que da `jax.grad`.

# %% lang="en" tags=["hide-cell"]
N_STEPS, GRADIENT = "n (steps)", "∂h⁽ᵏ⁺ⁿ⁾/∂x⁽ᵏ⁾"
WEIGHT = "recurrent weight a"

# %% lang="es" tags=["hide-cell"]
N_STEPS, GRADIENT = "n (pasos)", "∂h⁽ᵏ⁺ⁿ⁾/∂x⁽ᵏ⁾"
WEIGHT = "peso recurrente a"


# %% name="paths"
def draw(a, b=0.7):
    figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
    for count, line in zip((1, 2, 3), ("-", "--", ":"), strict=True):
        ways = [comb(int(n) + count - 1, count - 1) for n in lags]
        formula = ways * a**lags * b ** (count - 1)
        (curve,) = ax.plot(lags, formula, line, label=LAYERS[count - 1])
        dots = {"marker": ".", "linestyle": "none", "color": curve.get_color()}
        ax.plot(lags[::3], measured(a, b, count)[::3], **dots)
    ax.set(xlabel=N_STEPS, ylabel=GRADIENT, title=f"a = {a}, b = {b}")
    ax.legend()
    return figure


gains = [0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0]
gradlab.figures.Slider(draw, gains, label=WEIGHT, start=0.9)

# %% [markdown] lang="en"
# **Question.** Up to which $n$ does the gradient of $L$ linear layers grow?
#
# <details><summary>Answer</summary>
#
# The ratio of two successive values is $a\,(n + L)/(n + 1)$, which is above 1 while
# $n < (aL - 1)/(1 - a)$. For $a = 0.9$ and $L = 3$ that is $n < 17$: the largest value is at
# $n = 17$, and the one at 18 is equal. One layer never grows if $a < 1$.
#
# </details>

# %% [markdown] lang="es"
# **Pregunta.** ¿Hasta qué $n$ crece el gradiente de $L$ capas lineales?
#
# <details><summary>Respuesta</summary>
#
# El cociente de dos valores sucesivos es $a\,(n + L)/(n + 1)$, mayor que 1 mientras
# $n < (aL - 1)/(1 - a)$. Para $a = 0.9$ y $L = 3$ es $n < 17$: el mayor valor está en $n = 17$, y
# el de 18 es igual. Una sola capa nunca crece si $a < 1$.
#
# </details>

# %% [markdown] lang="en"
# The tanh stack above is not linear, and the slopes of its units are at most 1. It has the same
# paths, and its measured norm has the same course.
#
# ## What to remember
#
# - The state of each layer is the input of the next one, at the same step.
# - Layers multiply the number of a gradient's paths by $\binom{n+L-1}{L-1}$: its norm first grows.
# - In time each path still has its factor $a^n$: in the end the norm vanishes (or explodes).
#
# Next: [4. Backpropagation through time](04_bptt.ipynb).

# %% [markdown] lang="es"
# La pila tanh de antes no es lineal, y las pendientes de sus unidades valen como mucho 1. Tiene los
# mismos caminos, y su norma medida sigue el mismo curso.
#
# ## Para recordar
#
# - El estado de cada capa es la entrada de la siguiente, en el mismo paso.
# - Las capas multiplican por $\binom{n+L-1}{L-1}$ el número de caminos de un gradiente: su norma
#   primero crece.
# - En el tiempo cada camino conserva su factor $a^n$: al final la norma se desvanece (o explota).
#
# Siguiente: [4. Retropropagación a través del tiempo](04_bptt.ipynb).
