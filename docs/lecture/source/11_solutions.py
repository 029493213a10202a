# %% [markdown] lang="en"
# # 11. Solutions
#
# One answer to each of the [exercises](10_exercises.ipynb), in NumPy. There are others.

# %% [markdown] lang="es"
# # 11. Soluciones
#
# Una respuesta a cada uno de los [ejercicios](10_exercises.ipynb), en NumPy. Hay otras.

# %% name="imports"
import numpy as np

import gradlab

# %% lang="en" name="check"
check = gradlab.check

# %% lang="es" name="check"
from functools import partial

check = partial(gradlab.check, language="es")

# %% [markdown] lang="en"
# ## 1. The unrolled network: `unroll`
#
# Each step starts from the state that the step before has left.

# %% [markdown] lang="es"
# ## 1. La red desplegada: `unroll`
#
# Cada paso parte del estado que dejó el paso anterior.


# %% name="unroll"
def unroll(x, h0, W_xh, W_hh, b):
    states = []
    h = h0
    for x_t in x:
        h = np.tanh(W_xh @ x_t + W_hh @ h + b)
        states.append(h)
    return np.array(states)


check("unroll", unroll)

# %% [markdown] lang="en"
# ## 2. One matrix for both: `joined`
#
# The first $n$ columns meet $h$, the others $x$.

# %% [markdown] lang="es"
# ## 2. Una sola matriz: `joined`
#
# Las primeras $n$ columnas multiplican a $h$; las demás, a $x$.


# %% name="joined"
def joined(W_xh, W_hh):
    return np.hstack([W_hh, W_xh])


check("joined", joined)

# %% [markdown] lang="en"
# ## 3. Two layers: `stack`
#
# To the second layer, the states of the first are a sequence of inputs.

# %% [markdown] lang="es"
# ## 3. Dos capas: `stack`
#
# Para la segunda capa, los estados de la primera son una secuencia de entradas.


# %% name="stack"
def stack(x, layers):
    first = unroll(x, *layers[0])
    second = unroll(first, *layers[1])
    return np.array([first, second])


check("stack", stack)

# %% [markdown] lang="en"
# ## 4. The Jacobian of one step: `step_jacobian`
#
# With $a^{(t)} = W_{xh}\, x^{(t)} + W_{hh}\, h^{(t-1)} + b$, entry $(i, j)$ is
# $\tanh'(a_i^{(t)})\, (W_{hh})_{ij} = (1 - (h_i^{(t)})^2)\, (W_{hh})_{ij}$. Row $i$ is scaled by
# the derivative of unit $i$: $J^{(t)} = \operatorname{diag}(1 - (h^{(t)})^2)\, W_{hh}$.

# %% [markdown] lang="es"
# ## 4. La jacobiana de un paso: `step_jacobian`
#
# Con $a^{(t)} = W_{xh}\, x^{(t)} + W_{hh}\, h^{(t-1)} + b$, el elemento $(i, j)$ es
# $\tanh'(a_i^{(t)})\, (W_{hh})_{ij} = (1 - (h_i^{(t)})^2)\, (W_{hh})_{ij}$. La fila $i$ queda
# escalada por la derivada de la unidad $i$:
# $J^{(t)} = \operatorname{diag}(1 - (h^{(t)})^2)\, W_{hh}$.


# %% name="step_jacobian"
def step_jacobian(h, W_hh):
    return np.diag(1 - h**2) @ W_hh


check("step_jacobian", step_jacobian)

# %% [markdown] lang="en"
# ## 5. Across several steps: `product`
#
# A later step multiplies from the left. No factor is left for $t = k$.

# %% [markdown] lang="es"
# ## 5. A través de varios pasos: `product`
#
# Un paso posterior multiplica por la izquierda. Para $t = k$ no queda ningún factor.


# %% name="product"
def product(h, W_hh, t, k):
    jacobian = np.eye(len(W_hh))
    for s in range(k + 1, t + 1):
        jacobian = step_jacobian(h[s], W_hh) @ jacobian
    return jacobian


check("product", product)

# %% [markdown] lang="en"
# ## 6. Backpropagation through time: `bptt`
#
# Let $\delta^{(k)} = \partial L^{(T)} / \partial h^{(k)}$ as a column. It starts from
# $\delta^{(T)} = g$ and goes back by the transpose of the step Jacobian,
#
# $$\delta^{(k-1)} = (J^{(k)})^\top \delta^{(k)}
# = W_{hh}^\top \big((1 - (h^{(k)})^2) \odot \delta^{(k)}\big).$$
#
# The entry $(i, j)$ of $W_{hh}$ acts on unit $i$ alone and multiplies $h_j^{(k-1)}$. Term $k$ is
# therefore an outer product,
# $\big((1 - (h^{(k)})^2) \odot \delta^{(k)}\big)\, (h^{(k-1)})^\top$.

# %% [markdown] lang="es"
# ## 6. Retropropagación a través del tiempo: `bptt`
#
# Sea $\delta^{(k)} = \partial L^{(T)} / \partial h^{(k)}$ como columna. Parte de $\delta^{(T)} = g$
# y retrocede multiplicado por la transpuesta de la jacobiana de un paso,
#
# $$\delta^{(k-1)} = (J^{(k)})^\top \delta^{(k)}
# = W_{hh}^\top \big((1 - (h^{(k)})^2) \odot \delta^{(k)}\big).$$
#
# El elemento $(i, j)$ de $W_{hh}$ actúa solo sobre la unidad $i$ y multiplica a $h_j^{(k-1)}$. Por
# eso, el término $k$ es un producto exterior,
# $\big((1 - (h^{(k)})^2) \odot \delta^{(k)}\big)\, (h^{(k-1)})^\top$.


# %% name="bptt"
def bptt(h, W_hh, g):
    T, n = len(h) - 1, len(g)
    terms = np.zeros((T, n, n))
    delta = g
    for k in range(T, 0, -1):
        at_net_input = (1 - h[k] ** 2) * delta
        terms[k - 1] = np.outer(at_net_input, h[k - 1])
        delta = W_hh.T @ at_net_input
    return terms


check("bptt", bptt)

# %% [markdown] lang="en"
# ## 7. A window of $K$ steps: `truncated`
#
# `terms[-K:]` are the last $K$ terms, and all of them if $K \ge T$.

# %% [markdown] lang="es"
# ## 7. Una ventana de $K$ pasos: `truncated`
#
# `terms[-K:]` son los últimos $K$ términos, y todos si $K \ge T$.


# %% name="truncated"
def truncated(h, W_hh, g, K):
    return bptt(h, W_hh, g)[-K:].sum(axis=0)


check("truncated", truncated)

# %% [markdown] lang="en"
# ## 8. Clipping by the global norm: `clip`
#
# The squares of all arrays are added before the root. A gradient of zeros is below any threshold,
# so that nothing is divided by 0.

# %% [markdown] lang="es"
# ## 8. Recorte por umbral de la norma global: `clip`
#
# Los cuadrados de todos los arreglos se suman antes de la raíz. Un gradiente de ceros está por
# debajo de cualquier umbral, de modo que no se divide por 0.


# %% name="clip"
def clip(gradients, threshold):
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    if norm <= threshold:
        return gradients
    return [g * threshold / norm for g in gradients]


check("clip", clip)

# %% [markdown] lang="en"
# ## 9. One step of an LSTM: `lstm`
#
# Only the candidate goes through $\tanh$; the gates go through $\sigma$.

# %% [markdown] lang="es"
# ## 9. Un paso de una LSTM: `lstm`
#
# Solo el candidato pasa por $\tanh$; las compuertas pasan por $\sigma$.


# %% name="lstm"
def logistic(a):
    return 1 / (1 + np.exp(-a))


def lstm(x, h, c, W, b):
    i, f, g, o = np.split(W @ np.concatenate([h, x]) + b, 4)
    c = logistic(f) * c + logistic(i) * np.tanh(g)
    h = logistic(o) * np.tanh(c)
    return c, h


check("lstm", lstm)

# %% [markdown] lang="en"
# ## 10. How far a cell reaches: `forget_bias`
#
# The product is $f^\tau$, so that $f = e^{-1/\tau}$. From $\sigma(b) = f$ follows
# $b = \log \frac{f}{1 - f} = -\log(e^{1/\tau} - 1)$, which comes near $\log \tau$ for large $\tau$.

# %% [markdown] lang="es"
# ## 10. Hasta dónde llega una celda: `forget_bias`
#
# El producto es $f^\tau$, de modo que $f = e^{-1/\tau}$. De $\sigma(b) = f$ se sigue
# $b = \log \frac{f}{1 - f} = -\log(e^{1/\tau} - 1)$, que se acerca a $\log \tau$ si $\tau$ es
# grande.


# %% name="forget_bias"
def forget_bias(tau):
    return -np.log(np.exp(1 / tau) - 1)


check("forget_bias", forget_bias)
