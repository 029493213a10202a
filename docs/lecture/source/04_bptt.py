# %% [markdown] lang="en"
# # 4. Backpropagation through time
#
# **What does each step of the past add to the gradient of one weight matrix?**

# %% [markdown] lang="es"
# # 4. Retropropagación a través del tiempo
#
# **¿Qué aporta cada paso del pasado al gradiente de una matriz de pesos?**

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

import gradlab

jax.config.update("jax_enable_x64", True)

# %% [markdown] lang="en"
# ## One matrix, used at every step
#
# Backpropagation through time (BPTT) is the chain rule on the unrolled network. There the matrix
# $W_{hh}$ acts at every step $k$. A loss at step $t$ therefore depends on it in $t$ ways, and its
# gradient is a sum over $k$:
#
# $$\frac{\partial L^{(t)}}{\partial W_{hh}} = \sum_{k=1}^{t}
# \frac{\partial L^{(t)}}{\partial h^{(t)}} \cdot
# \frac{\partial h^{(t)}}{\partial h^{(k)}} \cdot
# \frac{\partial^{+} h^{(k)}}{\partial W_{hh}} .$$
#
# The last factor is the immediate derivative: that of $h^{(k)} = \varphi(\dots + W_{hh} h^{(k-1)})$
# with $h^{(k-1)}$ held fixed. The drawing shows the term $k = 2$ of a loss at $t = 4$ in orange.

# %% [markdown] lang="es"
# ## Una matriz que se usa en cada paso
#
# La retropropagación a través del tiempo (BPTT) es la regla de la cadena en la red desplegada. En
# ella la matriz $W_{hh}$ actúa en cada paso $k$. Una pérdida en el paso $t$ depende de ella de $t$
# maneras, y su gradiente es una suma sobre $k$:
#
# $$\frac{\partial L^{(t)}}{\partial W_{hh}} = \sum_{k=1}^{t}
# \frac{\partial L^{(t)}}{\partial h^{(t)}} \cdot
# \frac{\partial h^{(t)}}{\partial h^{(k)}} \cdot
# \frac{\partial^{+} h^{(k)}}{\partial W_{hh}} .$$
#
# El último factor es la derivada inmediata: la de $h^{(k)} = \varphi(\dots + W_{hh} h^{(k-1)})$ con
# $h^{(k-1)}$ fijo. El dibujo muestra en naranja el término $k = 2$ de una pérdida en $t = 4$.


# %% name="term"
def draw_arrow(ax, start, end, is_on_path):
    style = {"arrowstyle": "-|>", "shrinkA": 20, "shrinkB": 20}
    style["color"] = "#e69f00" if is_on_path else "0.4"
    style["linewidth"] = 2.5 if is_on_path else 1
    ax.annotate("", end, start, arrowprops=style)


figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
words = {(t, 1): f"$h^{{({t})}}$" for t in (0, 1, 2, 3, 4)} | {(4, 2): "$L^{(4)}$"}
words |= {(t, 0): "$W_{hh}$" for t in (1, 2, 3, 4)}
for (t, row), word in words.items():
    box = {"boxstyle": "round,pad=0.35", "edgecolor": "0.3"}
    box["facecolor"] = ("#cfe3f3", "#e4e4e4", "#fbe3b5")[row]
    ax.text(t, row, word, ha="center", va="center", bbox=box)
for t in (1, 2, 3, 4):
    draw_arrow(ax, (t, 1), (t, 0), is_on_path=t == 2)
    draw_arrow(ax, (t, 1), (t - 1, 1), is_on_path=t > 2)
draw_arrow(ax, (4, 2), (4, 1), is_on_path=True)
ax.set(xlim=(-0.4, 4.4), ylim=(-0.4, 2.4))
_ = ax.axis("off")

# %% [markdown] lang="en"
# ## The terms by hand
#
# For $h^{(k)} = \tanh(a^{(k)})$ and a row vector $\delta^{(k)} = \partial L^{(t)}/\partial h^{(k)}$
# the factors are
#
# $$\begin{aligned}
# \varphi'(a^{(k)}) &= 1 - h^{(k)} \odot h^{(k)}, \\
# \delta^{(k-1)} &= \delta^{(k)}\, \mathrm{diag}\big(\varphi'(a^{(k)})\big)\, W_{hh}, \\
# \text{term } k &= \big(\delta^{(k)} \odot \varphi'(a^{(k)})\big)^{\!\top} h^{(k-1)\top} .
# \end{aligned}$$
#
# The loss here is due at the last step alone: $L^{(T)} = \tfrac12 \lVert h^{(T)} - y \rVert^2$.

# %% [markdown] lang="es"
# ## Los términos, a mano
#
# Para $h^{(k)} = \tanh(a^{(k)})$ y un vector fila
# $\delta^{(k)} = \partial L^{(t)}/\partial h^{(k)}$, los factores son
#
# $$\begin{aligned}
# \varphi'(a^{(k)}) &= 1 - h^{(k)} \odot h^{(k)}, \\
# \delta^{(k-1)} &= \delta^{(k)}\, \mathrm{diag}\big(\varphi'(a^{(k)})\big)\, W_{hh}, \\
# \text{término } k &= \big(\delta^{(k)} \odot \varphi'(a^{(k)})\big)^{\!\top} h^{(k-1)\top} .
# \end{aligned}$$
#
# Aquí la pérdida se evalúa solo en el último paso:
# $L^{(T)} = \tfrac12 \lVert h^{(T)} - y \rVert^2$.

# %%
n, T = 16, 40
rng = np.random.default_rng(0)
x, y = 0.3 * rng.normal(size=(T, n)), rng.uniform(-0.5, 0.5, n)
rotation = np.linalg.qr(rng.normal(size=(n, n)))[0]


def terms_by_hand(W_hh):
    """Return the terms k = 1, …, T of a network with W_xh = I and b = 0."""
    h = [np.zeros(n)]
    for x_t in x:
        h.append(np.tanh(x_t + W_hh @ h[-1]))
    delta, terms = h[T] - y, []
    for k in range(T, 0, -1):
        through = delta * (1 - h[k] ** 2)
        terms.append(np.outer(through, h[k - 1]))
        delta = through @ W_hh
    return np.array(terms[::-1])


W_hh = 0.95 * rotation
terms = terms_by_hand(W_hh)
terms.shape

# %% [markdown] lang="en"
# ## Their sum is the gradient
#
# Automatic differentiation of the whole loop gives one matrix. It is the sum of the terms; the
# number below is the largest difference.

# %% [markdown] lang="es"
# ## Su suma es el gradiente
#
# La diferenciación automática de todo el bucle da una matriz. Es la suma de los términos; el número
# de abajo es la mayor diferencia.


# %%
def loss(W_hh):
    h = jnp.zeros(n)
    for x_t in x:
        h = jnp.tanh(x_t + W_hh @ h)
    return jnp.sum((h - y) ** 2) / 2


gradient = np.asarray(jax.grad(loss)(jnp.asarray(W_hh)))
assert np.allclose(terms.sum(axis=0), gradient)
print(f"{np.abs(terms.sum(axis=0) - gradient).max():.1e}")

# %% [markdown] lang="en"
# `gradlab.contribution_log_norms` gives the norm of every term of a cell. Its row $t = T$ agrees
# with the terms by hand.

# %% [markdown] lang="es"
# `gradlab.contribution_log_norms` da la norma de cada término de una celda. Su fila $t = T$
# coincide con los términos calculados a mano.

# %%
cell = nnx.SimpleCell(n, n, param_dtype=float, dtype=float, rngs=nnx.Rngs(0))
cell.dense_i.kernel.set_value(jnp.eye(n))
cell.dense_h.kernel.set_value(jnp.asarray(W_hh.T))


def step_loss(h, target):
    return jnp.sum((h - target) ** 2) / 2


targets = jnp.tile(y, (T, 1))  # of a loss at every step
log_norms = gradlab.contribution_log_norms(cell, jnp.asarray(x), step_loss, targets)
by_gradlab = np.exp(log_norms["dense_h.kernel"][T, 1:])
norms = np.linalg.norm(terms, axis=(1, 2))
print(f"{norms[0]}, {by_gradlab[0]}")  # the term k = 1
print(f"{np.abs(by_gradlab[1:] / norms[1:] - 1).max():.1e}")  # of the others, relative

# %% [markdown] lang="en"
# **Question.** The term $k = 1$ is exactly zero. Why?
#
# <details><summary>Answer</summary>
#
# $W_{hh}$ acts on $h^{(0)} = 0$ at the first step. The immediate derivative
# $\partial^{+} h^{(1)}/\partial W_{hh}$ is made of $h^{(0)}$, so it is zero.
#
# </details>

# %% [markdown] lang="es"
# **Pregunta.** El término $k = 1$ es exactamente cero. ¿Por qué?
#
# <details><summary>Respuesta</summary>
#
# En el primer paso $W_{hh}$ actúa sobre $h^{(0)} = 0$. La derivada inmediata
# $\partial^{+} h^{(1)}/\partial W_{hh}$ se forma con $h^{(0)}$, así que es cero.
#
# </details>

# %% [markdown] lang="en"
# ## How much comes from how far back
#
# Each term has the factor $\partial h^{(T)}/\partial h^{(k)}$, so old terms are small where this
# product vanishes. What share of the gradient $g$ have the last $K$ terms? We take the part that
# points along $g$:
#
# $$\text{share}(K) = \frac{\big\langle \sum_{k > T - K} \text{term}_k,\; g \big\rangle}
# {\lVert g \rVert^2}, \qquad \text{share}(T) = 1 .$$
#
# The slider sets the gain: $W_{hh}$ is the gain times a rotation.

# %% [markdown] lang="es"
# ## Cuánto aporta el pasado lejano
#
# Cada término tiene el factor $\partial h^{(T)}/\partial h^{(k)}$, así que los términos antiguos
# son pequeños donde ese producto se desvanece. ¿Qué parte del gradiente $g$ aportan los últimos $K$
# términos? Tomamos la parte que apunta en la dirección de $g$:
#
# $$\text{parte}(K) = \frac{\big\langle \sum_{k > T - K} \text{término}_k,\; g \big\rangle}
# {\lVert g \rVert^2}, \qquad \text{parte}(T) = 1 .$$
#
# El control deslizante fija la ganancia: $W_{hh}$ es una rotación multiplicada por ella.

# %% lang="en" tags=["hide-cell"]
STEP_K, TERM, LAST, SHARE = "step k", "norm of the term", "last K terms", "share"
GAIN = "gain"

# %% lang="es" tags=["hide-cell"]
STEP_K, TERM, LAST, SHARE = "paso k", "norma del término", "últimos K términos", "parte"
GAIN = "ganancia"


# %% name="terms"
def share_of_last(terms):
    g = terms.sum(axis=0)
    return np.cumsum([np.sum(term * g) for term in terms[::-1]]) / np.sum(g * g)


def draw(gain):
    terms = terms_by_hand(gain * rotation)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    left.bar(range(1, T + 1), np.linalg.norm(terms, axis=(1, 2)), color="#56b4e9")
    left.set(xlabel=STEP_K, ylabel=TERM, yscale="log", ylim=(1e-6, 10))
    right.plot(range(T + 1), [0, *share_of_last(terms)], color="black")
    right.axhline(1, color="0.6", linewidth=0.8)
    right.set(xlabel=LAST, ylabel=SHARE, ylim=(-0.1, 1.4))
    figure.suptitle(f"{GAIN} {gain}")
    return figure


gains = [0.6, 0.8, 0.9, 0.95, 1.0, 1.1, 1.3]
gradlab.figures.Slider(draw, gains, label=GAIN, start=0.95)

# %%
for gain in (0.6, 0.8, 0.95, 1.1):
    share = share_of_last(terms_by_hand(gain * rotation))
    row = [f"K = {K}: {share[K - 1]:.3f}" for K in (5, 10, 20)]
    print(f"gain {gain:4}", *row, sep="   ")

# %% [markdown] lang="en"
# **Question.** Truncated BPTT keeps the last $K$ terms alone. When is this harmless, and when not?
#
# <details><summary>Answer</summary>
#
# It is harmless where the share of the last $K$ terms is close to 1, as for small gains, and where
# nothing further back matters to the task. It is not where the answer lies more than $K$ steps
# back: then the terms that are left out are those that say how to keep it.
#
# </details>

# %% [markdown] lang="es"
# **Pregunta.** La retropropagación truncada conserva solo los últimos $K$ términos. ¿Cuándo es
# inofensiva y cuándo no?
#
# <details><summary>Respuesta</summary>
#
# Es inofensiva donde la parte de los últimos $K$ términos es casi 1, como con ganancias pequeñas, y
# donde nada más antiguo importa para la tarea. No lo es si lo que se necesita para responder está
# más de $K$ pasos atrás: entonces los términos que se omiten son los que indican cómo conservarlo.
#
# </details>

# %% [markdown] lang="en"
# ## A loss at every step
#
# With a loss at every step, $L = \sum_t L^{(t)}$, there is a term for each pair $k \le t$. The map
# shows the norms of all of them: a row is a loss, a column a step at which $W_{hh}$ acts. The
# diagonal is the immediate terms, $k = t$. Terms of $k = 0$ and $k = 1$ are exactly zero (grey).

# %% [markdown] lang="es"
# ## Una pérdida en cada paso
#
# Con una pérdida en cada paso, $L = \sum_t L^{(t)}$, hay un término para cada par $k \le t$. El
# mapa muestra las normas de todos: una fila es una pérdida y una columna es un paso en el que actúa
# $W_{hh}$. La diagonal son los términos inmediatos, $k = t$. Los términos de $k = 0$ y $k = 1$ son
# exactamente cero (gris).

# %% lang="en" tags=["hide-cell"]
T_STEPS, K_STEPS = "t (steps), of the loss", "k (steps), of the weights"

# %% lang="es" tags=["hide-cell"]
T_STEPS, K_STEPS = "t (pasos), de la pérdida", "k (pasos), de los pesos"

# %% name="map"
figure, ax = plt.subplots(figsize=(5.5, 4), layout="constrained")
gradlab.draw_map(log_norms["dense_h.kernel"], ax)
ax.images[0].colorbar.set_label(TERM)
ax.get_legend().remove()
_ = ax.set(xlabel=K_STEPS, ylabel=T_STEPS)

# %% [markdown] lang="en"
# `gradlab.backpropagate` also adds the terms of each lag $t - k$. The sum over all lags is the
# gradient of the whole loss:

# %% [markdown] lang="es"
# `gradlab.backpropagate` suma además los términos de cada retardo $t - k$. La suma sobre todos los
# retardos es el gradiente de la pérdida total:

# %%
bptt = gradlab.backpropagate(cell, jnp.asarray(x), step_loss, targets)
total = bptt.by_lag["dense_h.kernel"].sum(axis=0) * jnp.exp(bptt.log_scale)


def whole_loss(cell):
    return step_loss(nnx.RNN(cell)(jnp.asarray(x)[None])[0], targets)


autodiff = nnx.grad(whole_loss)(cell)["dense_h"]["kernel"].get_value()
print(f"{jnp.abs(total - autodiff).max():.1e}")

# %% [markdown] lang="en"
# ## The cost
#
# There are $T(T+1)/2$ terms. Automatic differentiation does not compute them one by one. It goes
# back once and adds each loss on the way:
#
# $$\delta^{(k)} = \frac{\partial L^{(k)}}{\partial h^{(k)}} + \delta^{(k+1)} J^{(k+1)} .$$
#
# **Question.** How many products of a vector and a step Jacobian does this take, against those of
# the terms one by one? What is lost?
#
# <details><summary>Answer</summary>
#
# $T - 1$ against $T(T-1)/2$. What is lost is which step a gradient came from: the sum is all that
# remains. This is why the terms have to be measured apart.
#
# </details>

# %% [markdown] lang="es"
# ## El costo
#
# Hay $T(T+1)/2$ términos. La diferenciación automática no los calcula uno por uno. Retrocede una
# sola vez y suma cada pérdida por el camino:
#
# $$\delta^{(k)} = \frac{\partial L^{(k)}}{\partial h^{(k)}} + \delta^{(k+1)} J^{(k+1)} .$$
#
# **Pregunta.** ¿Cuántos productos de un vector por la jacobiana de un paso necesita, frente a los
# de los términos uno por uno? ¿Qué se pierde?
#
# <details><summary>Respuesta</summary>
#
# $T - 1$ frente a $T(T-1)/2$. Se pierde de qué paso procede un gradiente: solo queda la suma. Por
# eso los términos se tienen que medir aparte.
#
# </details>

# %% [markdown] lang="en"
# ## What to remember
#
# - The gradient of a recurrent matrix is a sum of one term for each step $k$ of the past.
# - Each term has the factor $\partial h^{(t)}/\partial h^{(k)}$, which decides how large it is.
# - Where that factor vanishes, the sum is made of the terms of the last few steps.
#
# Next: [5. A product of Jacobians](05_product.ipynb).

# %% [markdown] lang="es"
# ## Para recordar
#
# - El gradiente de una matriz recurrente es una suma con un término por cada paso $k$ del pasado.
# - Cada término tiene el factor $\partial h^{(t)}/\partial h^{(k)}$, que decide su tamaño.
# - Donde ese factor se desvanece, la suma se compone de los términos de los últimos pasos.
#
# Siguiente: [5. Un producto de jacobianas](05_product.ipynb).
