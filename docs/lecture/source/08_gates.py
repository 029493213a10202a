# %% [markdown] lang="en"
# # 8. The gates of the LSTM
#
# **Which path lets a gradient cross many steps of an LSTM, and what do the gates do to it?**

# %% [markdown] lang="es"
# # 8. Las compuertas de la LSTM
#
# **¿Por qué camino cruza un gradiente muchos pasos de una LSTM, y qué le hacen las compuertas?**

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from flax import nnx

import gradlab
from gradlab.cells import LSTM

# Colours that colour-blind readers tell apart.
plt.rcParams["axes.prop_cycle"] = plt.cycler(color=["#0072b2", "#e69f00", "#333333", "#cc79a7"])
n, T = 32, 40
x = jax.random.normal(jax.random.key(0), (T, 4))

# %% lang="en" tags=["hide-cell"]
LAG, STEP, NORM, ACTIVATION = "lag t − k (steps)", "step t", "mean norm", "activation"
FORGET, INPUT, OUTPUT, CANDIDATE = "forget gate f", "input gate i", "output gate o", "candidate g"
CELL, HIDDEN = "cell state c", "hidden state h"
NONE_PINNED, ONE_PAIR = "no gate pinned", "norm"
LAGS = ["lag 1", "lag 10", "lag 40"]
TOTAL, CELL_PATH, FROZEN = "total", "cell path, ∏ f", "c frozen"
PINNED = "forget gate pinned at f"

# %% lang="es" tags=["hide-cell"]
LAG, STEP, NORM, ACTIVATION = "retardo t − k (pasos)", "paso t", "norma media", "activación"
FORGET, INPUT, OUTPUT = "compuerta de olvido f", "compuerta de entrada i", "compuerta de salida o"
CANDIDATE, CELL, HIDDEN = "candidato g", "estado de celda c", "estado oculto h"
NONE_PINNED, ONE_PAIR = "ninguna fijada", "norma"
LAGS = ["retardo 1", "retardo 10", "retardo 40"]
TOTAL, CELL_PATH, FROZEN = "total", "camino por la celda, ∏ f", "c fijo"
PINNED = "compuerta de olvido fijada en f"

# %% [markdown] lang="en"
# ## The equations
#
# With $\sigma$ the logistic function and $\odot$ the product entry by entry:
#
# $$
# \begin{aligned}
# i &= \sigma(W_i x^{(t)} + U_i h^{(t-1)} + b_i) & f &= \sigma(W_f x^{(t)} + U_f h^{(t-1)} + b_f) \\
# g &= \tanh(W_g x^{(t)} + U_g h^{(t-1)} + b_g) & o &= \sigma(W_o x^{(t)} + U_o h^{(t-1)} + b_o) \\
# c^{(t)} &= f \odot c^{(t-1)} + i \odot g & h^{(t)} &= o \odot \tanh c^{(t)}
# \end{aligned}
# $$
#
# The LSTM of Hochreiter & Schmidhuber (1997) had no forget gate: $f = 1$. Gers, Schmidhuber &
# Cummins (2000) added it.

# %% [markdown] lang="es"
# ## Las ecuaciones
#
# Sean $\sigma$ la función logística y $\odot$ el producto elemento a elemento:
#
# $$
# \begin{aligned}
# i &= \sigma(W_i x^{(t)} + U_i h^{(t-1)} + b_i) & f &= \sigma(W_f x^{(t)} + U_f h^{(t-1)} + b_f) \\
# g &= \tanh(W_g x^{(t)} + U_g h^{(t-1)} + b_g) & o &= \sigma(W_o x^{(t)} + U_o h^{(t-1)} + b_o) \\
# c^{(t)} &= f \odot c^{(t-1)} + i \odot g & h^{(t)} &= o \odot \tanh c^{(t)}
# \end{aligned}
# $$
#
# La LSTM de Hochreiter y Schmidhuber (1997) no tenía compuerta de olvido: $f = 1$. La añadieron
# Gers, Schmidhuber y Cummins (2000).

# %% [markdown] lang="en"
# ## By hand, in NumPy
#
# Flax keeps the four matrices side by side, in the order $i, f, g, o$. Ten lines reproduce its
# cell.

# %% [markdown] lang="es"
# ## A mano, en NumPy
#
# Flax guarda las cuatro matrices una al lado de otra, en el orden $i, f, g, o$. Diez líneas
# reproducen su celda.


# %%
def sigmoid(u):
    return 1 / (1 + np.exp(-u))


def step(weights, c, h, x_t):
    W, U, b = weights
    i, f, g, o = np.split(x_t @ W + h @ U + b, 4)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    c = f * c + i * g
    return c, o * np.tanh(c), {"i": i, "f": f, "g": g, "o": o}


flax_cell = nnx.OptimizedLSTMCell(4, n, rngs=nnx.Rngs(0))
dense_i, dense_h = flax_cell.dense_i, flax_cell.dense_h
weights = [np.asarray(w[...]) for w in (dense_i.kernel, dense_h.kernel, dense_h.bias)]
c = h = np.zeros(n)
carry, worst, course = (c, h), 0.0, []
for x_t in np.asarray(x):
    c, h, gates = step(weights, c, h, x_t)
    carry, _ = flax_cell(carry, x_t)
    worst = max(worst, abs(c - carry[0]).max(), abs(h - carry[1]).max())
    course.append(gates | {"c": c, "h": h})
print(f"farthest from Flax in {T} steps: {worst:.1e}")

# %% [markdown] lang="en"
# One unit of this untrained cell over time. Its biases are 0, so the gates move around ½.

# %% [markdown] lang="es"
# Una unidad de esta celda sin entrenar, a lo largo del tiempo. Sus sesgos son 0, de modo que las
# compuertas se mueven alrededor de ½.

# %% name="activations"
names = {"f": FORGET, "i": INPUT, "o": OUTPUT}, {"g": CANDIDATE, "c": CELL, "h": HIDDEN}
figure, axes = plt.subplots(2, 1, figsize=(7, 4.2), sharex=True, layout="constrained")
for ax, group in zip(axes, names, strict=True):
    for (key, label), dash in zip(group.items(), ["-", "--", ":"], strict=True):
        ax.plot(range(1, T + 1), [now[key][0] for now in course], dash, label=label)
    ax.set(ylabel=ACTIVATION)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
axes[0].set(ylim=(0, 1))
axes[1].set(xlabel=STEP)
plt.show()

# %% [markdown] lang="en"
# **Question.** Which of $i, f, g, o$ multiplies $c^{(t-1)}$ directly? Which depend on it otherwise?
#
# <details>
# <summary>Answer</summary>
#
# Directly only $f$. But $c^{(t-1)}$ acts on $c^{(t)}$, hence on $h^{(t)}$, and all four read
# $h^{(t)}$ at the next step. So there is a second path, through the hidden state and the matrices
# $U$. It needs two steps: the state is the pair $(c, h)$, and $\partial/\partial c^{(k)}$ holds
# $h^{(k)}$ fixed. At lag 1, $\partial c^{(t)}/\partial c^{(t-1)} = \operatorname{diag} f$ exactly.
#
# </details>

# %% [markdown] lang="es"
# **Pregunta.** ¿Cuál de $i, f, g, o$ multiplica directamente a $c^{(t-1)}$? ¿Cuáles dependen de él
# de otra manera?
#
# <details>
# <summary>Respuesta</summary>
#
# Directamente, solo $f$. Pero $c^{(t-1)}$ influye en $c^{(t)}$ y, con él, en $h^{(t)}$, que las
# cuatro leen en el paso siguiente. Hay, pues, un segundo camino, por el estado oculto y las
# matrices $U$. Necesita dos pasos: el estado es el par $(c, h)$, y $\partial/\partial c^{(k)}$ deja
# fijo $h^{(k)}$. Con retardo 1, $\partial c^{(t)}/\partial c^{(t-1)} = \operatorname{diag} f$
# exactamente.
#
# </details>

# %% [markdown] lang="en"
# ## The edge of weight 1
#
# With $f = 1$ the cell state is a sum, $c^{(t)} = c^{(t-1)} + i \odot g$, and the edge from
# $c^{(t-1)}$ to $c^{(t)}$ has weight 1: the *constant error carousel* of 1997. With the output gate
# shut, $o = 0$, the path through $h$ is closed, and what remains is
#
# $$\frac{\partial c^{(t)}}{\partial c^{(k)}} = \prod_{j=k+1}^{t} \operatorname{diag} f^{(j)} .$$
#
# gradlab's LSTM takes gates pinned at a constant. We shut the output gate and compare with the
# product.

# %% [markdown] lang="es"
# ## La conexión de peso 1
#
# Con $f = 1$ el estado de celda es una suma, $c^{(t)} = c^{(t-1)} + i \odot g$, y la conexión de
# $c^{(t-1)}$ a $c^{(t)}$ tiene peso 1: es el carrusel de error constante (*constant error
# carousel*) de 1997. Si se cierra la compuerta de salida, $o = 0$, desaparece el camino por $h$ y
# queda
#
# $$\frac{\partial c^{(t)}}{\partial c^{(k)}} = \prod_{j=k+1}^{t} \operatorname{diag} f^{(j)} .$$
#
# La LSTM de gradlab admite compuertas fijadas en una constante. Cerramos la de salida y comparamos
# con el producto.


# %%
def lstm(**pins):
    return LSTM(4, n, rngs=nnx.Rngs(0), **pins)


def log_norms(cell, part):
    return np.asarray(gradlab.jacobian_log_norms(cell, x, of=part, wrt=part))


def forget_gates(cell):
    def step(carry, x_t):
        return cell(carry, x_t)[0], cell.activations(carry, x_t)["forget"]

    start = jax.numpy.zeros((2, n))
    return np.asarray(jax.lax.scan(step, (start[0], start[1]), x)[1])


for f in [1.0, 0.9, 0.5]:
    norms = np.exp(log_norms(lstm(forget_gate=f, output_gate=0.0), "c"))
    print(f"f = {f}: norm at lag 40 {norms[T, 0]:.6g}, f⁴⁰ = {f**40:.6g}")
shut = lstm(output_gate=0.0)
product = np.log(forget_gates(shut)).sum(axis=0).max()  # the norm of a diagonal matrix
print(f"f not pinned: log norm {log_norms(shut, 'c')[T, 0]:.5f}, of the product {product:.5f}")

# %% [markdown] lang="en"
# ## Each gate pinned open and shut
#
# The same cell with one gate at a time pinned at 1 (open) or 0 (shut). The table has exponents of
# ten: $\log_{10}$ of the mean norm at each lag, of $\partial c^{(t)}/\partial c^{(k)}$ and of
# $\partial h^{(t)}/\partial h^{(k)}$; $-\infty$ is a norm of exactly 0.

# %% [markdown] lang="es"
# ## Cada compuerta, fijada abierta y cerrada
#
# La misma celda con una sola compuerta fijada en 1 (abierta) o en 0 (cerrada). La tabla contiene
# exponentes de diez: $\log_{10}$ de la norma media a cada retardo, de
# $\partial c^{(t)}/\partial c^{(k)}$ y de $\partial h^{(t)}/\partial h^{(k)}$; $-\infty$ es una
# norma exactamente igual a 0.

# %%
pins = [{}] + [{f"{gate}_gate": v} for gate in ("forget", "input", "output") for v in (1.0, 0.0)]
profiles, rows = {}, {}
for pin in pins:
    name = "".join(f"{gate[0]} = {value}" for gate, value in pin.items()) or NONE_PINNED
    for part in "ch":
        profiles[name, part] = gradlab.lag_profile(log_norms(lstm(**pin), part)) / np.log(10)
    rows[name] = [profiles[name, part][lag] for part in "ch" for lag in (1, 10, 40)]
columns = pd.MultiIndex.from_product([["∂c/∂c", "∂h/∂h"], LAGS])
pd.DataFrame(rows.values(), index=list(rows), columns=columns).round(1)

# %% name="pins"
figure, axes = plt.subplots(1, 2, figsize=(7, 3.4), sharey=True, layout="constrained")
for ax, part in zip(axes, "ch", strict=True):
    shown = {NONE_PINNED: "-", "f = 1.0": "--", "f = 0.0": ":", "i = 0.0": "-."}
    for name, dash in shown.items():
        ax.plot(profiles[name, part], dash, label=name)
    ax.set(title=f"∂{part}⁽ᵗ⁾/∂{part}⁽ᵏ⁾", xlabel=LAG)
    ax.yaxis.set_major_formatter("$10^{{{x:.0f}}}$")
axes[0].set(ylabel=NORM)
axes[0].legend()
plt.show()

# %% [markdown] lang="en"
# The forget gate decides. Open, it keeps both norms between about 0.1 and 10 over 40 steps. Shut,
# it makes $\partial c/\partial c$ zero at once, and $\partial h/\partial h$ falls about tenfold a
# step. With the input or the output gate shut, $h$ passes nothing on ($-\infty$; with $i = 0$
# because $c$ stays 0), and $\partial c/\partial c$ is the product of the forget gates. With either
# of the two pinned open the rates change little.
#
# **Question.** With $f = 1$ the edge has weight 1. Why does $\partial c/\partial c$ grow with the
# lag?
#
# <details>
# <summary>Answer</summary>
#
# Because the other paths are open: $c$ acts on $h$, $h$ on the gates and the candidate, and these
# on $c$. Their terms are added to the identity, so the norm may exceed 1. It is exactly 1 only
# where they are closed, as in "The edge of weight 1" above. Hochreiter & Schmidhuber left these
# paths out of the gradient: they truncated it there.
#
# </details>

# %% [markdown] lang="es"
# La compuerta de olvido es la que decide. Abierta, mantiene ambas normas aproximadamente entre 0.1
# y 10 durante 40 pasos. Cerrada, anula $\partial c/\partial c$ de inmediato, y
# $\partial h/\partial h$ se divide aproximadamente por diez en cada paso. Con la compuerta de
# entrada o la de salida cerrada, $h$ no transmite nada ($-\infty$; con $i = 0$, porque $c$ sigue en
# 0) y $\partial c/\partial c$ es el producto de las compuertas de olvido. Si se fija abierta una de
# las dos, las tasas cambian poco.
#
# **Pregunta.** Con $f = 1$ la conexión tiene peso 1. ¿Por qué crece $\partial c/\partial c$ con el
# retardo?
#
# <details>
# <summary>Respuesta</summary>
#
# Porque los otros caminos están abiertos: $c$ influye en $h$; $h$, en las compuertas y el
# candidato, y estos, en $c$. Sus términos se suman a la identidad, de modo que la norma puede
# superar 1. Solo es exactamente 1 cuando están cerrados, como en «La conexión de peso 1», más
# arriba. Hochreiter y Schmidhuber dejaron esos caminos fuera del gradiente: lo truncaban ahí.
#
# </details>

# %% [markdown] lang="en"
# ## Total derivative and cell path
#
# Three things are called "the gradient of an LSTM":
#
# - the **total** derivative of the whole carry $(c, h)$, what backpropagation computes;
# - the **cell path** alone, $\prod f$;
# - the product of the blocks $\partial h^{(t)}/\partial h^{(t-1)}$ **at frozen** $c$.
#
# We measure all three, from the first step on, for a forget bias of 3 ($f \approx 0.95$).

# %% [markdown] lang="es"
# ## Derivada total y camino por la celda
#
# Hay tres cosas a las que se llama «el gradiente de una LSTM»:
#
# - la derivada **total** de los dos estados $(c, h)$ juntos, que es lo que calcula la
#   retropropagación;
# - solo el **camino por la celda**, $\prod f$;
# - el producto de los bloques $\partial h^{(t)}/\partial h^{(t-1)}$ **con** $c$ **fijo**.
#
# Medimos las tres desde el primer paso, con un sesgo de olvido de 3 ($f \approx 0.95$).


# %%
def with_forget_bias(value):
    cell = lstm()
    biases = np.repeat([0.0, value, 0.0, 0.0], n)  # of i, f, g, o
    cell.dense_h.bias[...] = jax.numpy.asarray(biases, dtype="float32")
    return cell


def frozen_log_norms(cell):
    c = h = np.zeros(n)
    product, logs = np.eye(n), [0.0]
    jacobian = jax.jit(jax.jacfwd(lambda h, c, x_t: cell((c, h), x_t)[1]))
    for x_t in x:
        product = np.asarray(jacobian(h, c, x_t), dtype=float) @ product
        logs.append(np.log(np.linalg.norm(product, 2)))
        (c, h), _ = cell((c, h), x_t)
    return np.array(logs)


# %% name="paths"
cell = with_forget_bias(3.0)
path = np.append(0.0, np.log(forget_gates(cell)).cumsum(axis=0).max(axis=1))
of_c = {TOTAL: log_norms(cell, "c")[:, 0], CELL_PATH: path}
of_h = {TOTAL: log_norms(cell, "h")[:, 0], FROZEN: frozen_log_norms(cell)}
figure, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
for ax, lines, part in zip(axes, [of_c, of_h], "ch", strict=True):
    for (name, logs), dash in zip(lines.items(), ["-", "--"], strict=True):
        ax.plot(logs / np.log(10), dash, label=name)
        print(f"{part}, {name}: 10^{logs[-1] / np.log(10):.1f} at step {T}")
    ax.set(title=f"∂{part}⁽ᵗ⁾/∂{part}⁽⁰⁾", xlabel=STEP)
    ax.yaxis.set_major_formatter("$10^{{{x:g}}}$")
    ax.legend()
axes[0].set(ylabel=ONE_PAIR, ylim=(-3, 1), yticks=range(-3, 2))
plt.show()

# %% [markdown] lang="en"
# The cell path alone stays within a factor of 6 of the total derivative of $c$. The product at
# frozen $c$ says that this LSTM forgets everything, and is wrong by 38 decades: the path through
# the cell state is what it leaves out. A tool that multiplies blocks of $h$ alone measures this.
#
# **Question.** Why is $\prod f$ below the total derivative here, although paths may also cancel?
#
# <details>
# <summary>Answer</summary>
#
# The norm of a diagonal matrix is its largest entry: that of the one unit that forgets least. The
# total derivative also has the paths through $h$, and its norm is taken over all directions,
# mixtures of units too. Nothing makes it larger in every case; it is so in this measurement.
#
# </details>

# %% [markdown] lang="es"
# El camino por la celda, por sí solo, difiere de la derivada total de $c$ en un factor menor que 6.
# El producto con $c$ fijo dice que esta LSTM lo olvida todo, y se equivoca en 38 décadas: lo que
# omite es justo el camino por el estado de celda. Es lo que mide una herramienta que solo
# multiplica bloques de $h$.
#
# **Pregunta.** ¿Por qué queda aquí $\prod f$ por debajo de la derivada total, si los caminos
# también pueden cancelarse?
#
# <details>
# <summary>Respuesta</summary>
#
# La norma de una matriz diagonal es su mayor elemento: el de la unidad que menos olvida. La
# derivada total incluye además los caminos por $h$, y su norma se toma sobre todas las direcciones,
# también las que mezclan unidades. Nada obliga a que sea siempre mayor; lo es en esta medición.
#
# </details>

# %% [markdown] lang="en"
# ## Try it: the forget gate
#
# The forget gate pinned at $f$, the other gates not. The dotted line is $f^{\,t-k}$.

# %% [markdown] lang="es"
# ## Para probar: la compuerta de olvido
#
# La compuerta de olvido fijada en $f$; las demás, sin fijar. La línea de puntos es $f^{\,t-k}$.


# %% name="slider"
def draw(f):
    cell = lstm(forget_gate=f)
    figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for part, dash in [("c", "-"), ("h", "--")]:
        profile = gradlab.lag_profile(log_norms(cell, part)) / np.log(10)
        ax.plot(profile, dash, label=f"∂{part}⁽ᵗ⁾/∂{part}⁽ᵏ⁾")
    with np.errstate(divide="ignore"):
        ax.plot(np.arange(T + 1) * np.log10(f), ":", label="$f^{\\,t-k}$")
    ax.set(title=f"f = {f}", xlabel=LAG, ylabel=NORM, ylim=(-15, 3))
    ax.yaxis.set_major_formatter("$10^{{{x:.0f}}}$")
    ax.legend(loc="lower left")
    return figure


gradlab.figures.Slider(draw, [0.1, 0.5, 0.75, 0.9, 1.0], label=PINNED, start=0.5)

# %% [markdown] lang="en"
# ## What to remember
#
# 1. The edge from $c^{(t-1)}$ to $c^{(t)}$ has weight $f$. With $f = 1$ and the other paths closed
#    the gradient's norm is exactly 1 at any lag.
# 2. The cell path alone is $\prod f$. The total derivative also has the paths through $h$ and $U$.
# 3. Whether a measurement has left out the cell path must be known before it is believed.
#
# Next: [9. The forget bias](09_forget_bias.ipynb): where $f$ stands before training.

# %% [markdown] lang="es"
# ## Para recordar
#
# 1. La conexión de $c^{(t-1)}$ a $c^{(t)}$ tiene peso $f$. Con $f = 1$ y los demás caminos
#    cerrados, la norma del gradiente es exactamente 1 a cualquier retardo.
# 2. El camino por la celda, por sí solo, es $\prod f$. La derivada total incluye además los caminos
#    por $h$ y $U$.
# 3. Antes de fiarse de una medición hay que saber si ha dejado fuera el camino por la celda.
#
# Siguiente: [9. El sesgo de olvido](09_forget_bias.ipynb): dónde está $f$ antes de entrenar.
