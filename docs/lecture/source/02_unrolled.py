# %% [markdown] lang="en"
# # 2. Unrolled in time
#
# **What does a recurrent layer compute, step by step, and with which weights?**

# %% [markdown] lang="es"
# # 2. La red desplegada en el tiempo
#
# **¿Qué calcula una capa recurrente, paso a paso, y con qué pesos?**

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

import gradlab

# %% [markdown] lang="en"
# ## The recurrent edge
#
# A feedforward layer reads its input. A recurrent layer also reads its own state of one step ago.
# The recurrent edge, on the left, has a delay of one step. Unrolled in time, on the right, the same
# layer is a deep network with one copy of itself at each step. All the copies have the same
# weights.

# %% [markdown] lang="es"
# ## La conexión recurrente
#
# Una capa sin recurrencia solo lee su entrada. Una capa recurrente lee además su propio estado del
# paso anterior. La conexión recurrente, a la izquierda, tiene un retardo de un paso. Desplegada en
# el tiempo, a la derecha, la misma capa es una red profunda con una copia de sí misma en cada paso.
# Todas las copias tienen los mismos pesos.

# %% lang="en" tags=["hide-cell"]
DELAY, SAME = "delay of one step", "unrolled in time"

# %% lang="es" tags=["hide-cell"]
DELAY, SAME = "retardo de un paso", "desplegada en el tiempo"

# %% name="unrolled"
COLOURS = {"x": "#cfe3f3", "h": "#e4e4e4", "y": "#fbe3b5"}


def draw_column(ax, place, step):
    """Draw x below h below y, with the weights beside the arrows."""
    for row, letter in enumerate("xhy"):
        box = {"boxstyle": "round,pad=0.35", "edgecolor": "0.3"}
        box["facecolor"] = COLOURS[letter]
        ax.text(place, row, f"${letter}{step}$", ha="center", va="center", bbox=box)
    for row, weight in enumerate(("$W_{xh}$", "$W_{hy}$")):
        draw_arrow(ax, (place, row + 0.25), (place, row + 0.75))
        ax.text(place + 0.06, row + 0.47, weight, va="center")


def draw_arrow(ax, start, end, bend=0.0):
    style = {"arrowstyle": "-|>", "color": "0.3", "shrinkA": 0, "shrinkB": 0}
    style["connectionstyle"] = f"arc3,rad={bend}"
    ax.annotate("", end, start, arrowprops=style)


figure, (folded, unrolled) = plt.subplots(
    1, 2, figsize=(7, 3), width_ratios=[1, 3.2], layout="constrained"
)
draw_column(folded, 0, "")
draw_arrow(folded, (0.22, 0.84), (0.22, 1.16), bend=2.4)
folded.text(0.7, 1.0, "$W_{hh}$", va="center")
for t in (1, 2, 3):
    draw_column(unrolled, t, f"^{{({t})}}")
for t in (0, 1, 2, 3):
    draw_arrow(unrolled, (t + 0.25, 1), (t + 0.75, 1))
    unrolled.text(t + 0.5, 1.12, "$W_{hh}$", ha="center")
unrolled.text(0.0, 1, "$h^{(0)}$", ha="center", va="center")
unrolled.text(4.0, 1, "…", ha="center", va="center")
folded.set(xlim=(-0.4, 1.1), title=DELAY)
unrolled.set(xlim=(-0.2, 4.2), title=SAME)
for ax in (folded, unrolled):
    ax.set_ylim(-0.4, 2.4)
    ax.axis("off")

# %% [markdown] lang="en"
# ## One step
#
# With $m$ inputs, $n$ hidden units and $o$ outputs a step of the Elman network is
#
# $$h^{(t)} = \varphi\big(W_{xh}\, x^{(t)} + W_{hh}\, h^{(t-1)} + b\big), \qquad
# y^{(t)} = W_{hy}\, h^{(t)} + b_y .$$
#
# | weights | shape | from | to |
# | --- | --- | --- | --- |
# | $W_{xh}$ | $n \times m$ | input | state |
# | $W_{hh}$ | $n \times n$ | state, a step ago | state |
# | $b$ | $n$ | | state |
# | $W_{hy}$ | $o \times n$ | state | output |
# | $b_y$ | $o$ | | output |
#
# The function $\varphi$ acts on each unit; here it is tanh.

# %% [markdown] lang="es"
# ## Un paso
#
# Con $m$ entradas, $n$ unidades ocultas y $o$ salidas, un paso de la red de Elman es
#
# $$h^{(t)} = \varphi\big(W_{xh}\, x^{(t)} + W_{hh}\, h^{(t-1)} + b\big), \qquad
# y^{(t)} = W_{hy}\, h^{(t)} + b_y .$$
#
# | pesos | forma | desde | hacia |
# | --- | --- | --- | --- |
# | $W_{xh}$ | $n \times m$ | entrada | estado |
# | $W_{hh}$ | $n \times n$ | estado, un paso atrás | estado |
# | $b$ (sesgo) | $n$ | | estado |
# | $W_{hy}$ | $o \times n$ | estado | salida |
# | $b_y$ (sesgo) | $o$ | | salida |
#
# La función $\varphi$ actúa sobre cada unidad; aquí es tanh.

# %%
m, n, o, T = 3, 16, 2, 50
rng = np.random.default_rng(0)
x = rng.normal(size=(T, m)).astype(np.float32)

cell = nnx.SimpleCell(m, n, rngs=nnx.Rngs(0))
readout = nnx.Linear(n, o, rngs=nnx.Rngs(1))
W_xh, W_hh = np.asarray(cell.dense_i.kernel).T, np.asarray(cell.dense_h.kernel).T
W_hy, b = np.asarray(readout.kernel).T, np.asarray(cell.dense_i.bias)
print("W_xh", W_xh.shape, "W_hh", W_hh.shape, "b", b.shape, "W_hy", W_hy.shape)

# %% [markdown] lang="en"
# Flax multiplies from the right, $x W$, and keeps each matrix transposed: hence the `.T`.
#
# **Question.** How many weights has the layer (without the readout)? How many for a sequence ten
# times as long?
#
# <details><summary>Answer</summary>
#
# $n m + n^2 + n = 48 + 256 + 16 = 320$, for any length: the copies share their weights.
#
# </details>

# %% [markdown] lang="es"
# Flax multiplica por la derecha, $x W$, y guarda cada matriz transpuesta: de ahí el `.T`.
#
# **Pregunta.** ¿Cuántos pesos tiene la capa (sin la capa de salida)? ¿Y para una secuencia diez
# veces más larga?
#
# <details><summary>Respuesta</summary>
#
# $n m + n^2 + n = 48 + 256 + 16 = 320$, para cualquier longitud: las copias comparten sus pesos.
#
# </details>

# %%
sum(weight.size for weight in jax.tree.leaves(nnx.state(cell, nnx.Param)))

# %% [markdown] lang="en"
# ## By hand
#
# A loop over the steps is the whole computation. We compare it with Flax's, by the largest
# difference of all states and units.

# %% [markdown] lang="es"
# ## A mano
#
# Todo el cálculo es un bucle sobre los pasos. Lo comparamos con el de Flax: el número es la mayor
# diferencia entre todos los estados y unidades.


# %%
def states_by_hand(x, h):
    states = []
    for x_t in x:
        h = np.tanh(W_xh @ x_t + W_hh @ h + b)
        states.append(h)
    return np.array(states)


by_hand = states_by_hand(x, h=np.zeros(n, np.float32))
by_flax = nnx.RNN(cell)(x[None])[0]  # nnx.RNN reads a batch
assert np.allclose(by_hand, by_flax, atol=1e-6)
print(f"{np.abs(by_hand - by_flax).max():.1e}")

# %% [markdown] lang="en"
# The difference is the rounding of float32. The next figure shows the states and the outputs
# $y^{(t)} = W_{hy} h^{(t)}$ (Flax starts with $b_y = 0$): a row a unit, a column a step.

# %% [markdown] lang="es"
# La diferencia es el redondeo de float32. La figura siguiente muestra los estados y las salidas
# $y^{(t)} = W_{hy} h^{(t)}$ (en Flax, $b_y = 0$ al comienzo): una fila por unidad, una columna por
# paso.

# %% lang="en" tags=["hide-cell"]
NAMES, STEP, VALUE = ["input x", "state h", "output y"], "step t", "value"

# %% lang="es" tags=["hide-cell"]
NAMES, STEP, VALUE = ["entrada x", "estado h", "salida y"], "paso t", "valor"

# %% name="states"
figure, axes = plt.subplots(
    3, 1, figsize=(7, 4.4), sharex=True, height_ratios=[2, 5, 2], layout="constrained"
)
for ax, name, values in zip(axes, NAMES, (x, by_hand, by_hand @ W_hy.T), strict=True):
    extent = (0.5, T + 0.5, values.shape[1] + 0.5, 0.5)
    image = ax.imshow(
        values.T,
        cmap="PuOr",
        vmin=-2,
        vmax=2,
        aspect="auto",
        extent=extent,
        interpolation="nearest",
    )
    ax.set(ylabel=name, yticks=[1, values.shape[1]])
axes[-1].set_xlabel(STEP)
figure.align_ylabels()
_ = figure.colorbar(image, ax=axes, extend="both", label=VALUE)

# %% [markdown] lang="en"
# ## One joined matrix
#
# The two products equal one, of a joined matrix and a joined vector:
#
# $$W_{xh}\, x^{(t)} + W_{hh}\, h^{(t-1)} =
# \begin{bmatrix} W_{hh} & W_{xh} \end{bmatrix}
# \begin{bmatrix} h^{(t-1)} \\ x^{(t)} \end{bmatrix}.$$
#
# Many papers write a layer as $h^{(t)} = \varphi(W\,[h^{(t-1)}, x^{(t)}] + b)$, which means this.

# %% [markdown] lang="es"
# ## Una sola matriz
#
# Los dos productos equivalen a uno solo, el de una matriz y un vector que resultan de concatenar:
#
# $$W_{xh}\, x^{(t)} + W_{hh}\, h^{(t-1)} =
# \begin{bmatrix} W_{hh} & W_{xh} \end{bmatrix}
# \begin{bmatrix} h^{(t-1)} \\ x^{(t)} \end{bmatrix}.$$
#
# Muchos artículos escriben una capa como $h^{(t)} = \varphi(W\,[h^{(t-1)}, x^{(t)}] + b)$, que
# significa lo mismo.

# %%
W = np.concatenate([W_hh, W_xh], axis=1)
h_before, x_now = by_hand[9], x[10]
joined = np.tanh(W @ np.concatenate([h_before, x_now]) + b)
print(W.shape, f"{np.abs(joined - by_hand[10]).max():.1e}")

# %% [markdown] lang="en"
# **Question.** Why is the part $W_{hh}$ square, while $W_{xh}$ need not be? Which of the two
# decides how a gradient goes back in time?
#
# <details><summary>Answer</summary>
#
# The part $W_{hh}$ maps states to states, from $n$ numbers to $n$. It is applied again at each
# step, so a gradient that goes back $k$ steps is multiplied by it, and by the slopes of $\varphi$,
# $k$ times. $W_{xh}$ is passed once, on the way from an input to the state.
#
# </details>

# %% [markdown] lang="es"
# **Pregunta.** ¿Por qué la parte $W_{hh}$ es cuadrada, y $W_{xh}$ no tiene por qué serlo? ¿Cuál de
# las dos decide cómo retrocede un gradiente en el tiempo?
#
# <details><summary>Respuesta</summary>
#
# La parte $W_{hh}$ lleva estados a estados, de $n$ números a $n$. Se aplica de nuevo en cada paso,
# así que un gradiente que retrocede $k$ pasos se multiplica por ella, y por las pendientes de
# $\varphi$, $k$ veces. Por $W_{xh}$ se
# pasa una sola vez, en el camino de una entrada al estado.
#
# </details>

# %% [markdown] lang="en"
# ## The initial state
#
# The first step needs $h^{(0)}$; mostly it is zero. We run the same inputs from zero and from eight
# random states and measure how far apart the states are.

# %% [markdown] lang="es"
# ## El estado inicial
#
# El primer paso necesita $h^{(0)}$; casi siempre es cero. Con las mismas entradas, partimos de cero
# y de ocho estados al azar, y medimos cuánto se separan los estados.

# %% lang="en" tags=["hide-cell"]
DISTANCE = "distance of the states"

# %% lang="es" tags=["hide-cell"]
DISTANCE = "distancia entre estados"

# %% name="initial"
figure, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
for h in rng.uniform(-1, 1, (8, n)):
    distance = np.linalg.norm(states_by_hand(x, h) - by_hand, axis=1)
    distance = [np.linalg.norm(h), *distance]
    ax.semilogy(range(T + 1), distance, color="#009e73", alpha=0.7)
_ = ax.set(xlabel=STEP, ylabel=DISTANCE)

# %% [markdown] lang="en"
# The network forgets where it began. A small difference in $h^{(0)}$ is multiplied by
# $\partial h^{(t)}/\partial h^{(0)}$, which is what gradlab measures, and which becomes smaller
# with $t$ as the distance does. (The distances end at $10^{-7}$, the rounding of float32.)

# %% [markdown] lang="es"
# La red olvida de dónde partió. Una diferencia pequeña en $h^{(0)}$ se multiplica por
# $\partial h^{(t)}/\partial h^{(0)}$, que es lo que mide gradlab, y que disminuye con $t$ como la
# distancia. (Las distancias se quedan en $10^{-7}$, el redondeo de float32.)

# %%
log_norms = gradlab.jacobian_log_norms(cell, jnp.asarray(x))
for t in (1, 10, 25, 50):
    print(f"t = {t:2}   ‖∂h⁽ᵗ⁾/∂h⁽⁰⁾‖ = {np.exp(log_norms[t, 0]):.1e}")

# %% [markdown] lang="en"
# **Question.** A state that forgets its start is useful for prediction, but what does it mean for
# learning?
#
# <details><summary>Answer</summary>
#
# The gradient of a late loss goes back through the same matrix $\partial h^{(t)}/\partial h^{(0)}$.
# Where a difference dies out on its way forward, the gradient dies out on its way back: the network
# cannot learn from the loss at step 50 what it should have kept at step 1.
#
# </details>

# %% [markdown] lang="es"
# **Pregunta.** Que un estado olvide su comienzo es útil para predecir, pero ¿qué significa para el
# aprendizaje?
#
# <details><summary>Respuesta</summary>
#
# El gradiente de una pérdida tardía retrocede por la misma matriz
# $\partial h^{(t)}/\partial h^{(0)}$. Donde una diferencia se extingue hacia delante, el gradiente
# se extingue hacia atrás: a partir de la pérdida del paso 50, la red no puede aprender qué debería
# haber conservado en el paso 1.
#
# </details>

# %% [markdown] lang="en"
# ## What to remember
#
# - A recurrent layer is $h^{(t)} = \varphi(W_{xh} x^{(t)} + W_{hh} h^{(t-1)} + b)$, in a loop.
# - Unrolled in time it is a deep network whose layers share their weights.
# - The same $\partial h^{(t)}/\partial h^{(k)}$ carries differences forward and gradients back.
#
# Next: [3. Several layers](03_layers.ipynb).

# %% [markdown] lang="es"
# ## Para recordar
#
# - Una capa recurrente es $h^{(t)} = \varphi(W_{xh} x^{(t)} + W_{hh} h^{(t-1)} + b)$, en un bucle.
# - Desplegada en el tiempo es una red profunda cuyas capas comparten los pesos.
# - La misma matriz $\partial h^{(t)}/\partial h^{(k)}$ lleva las diferencias hacia delante y los
#   gradientes hacia atrás.
#
# Siguiente: [3. Varias capas](03_layers.ipynb).
