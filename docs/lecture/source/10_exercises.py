# %% [markdown] lang="en"
# # 10. Exercises
#
# Ten functions to write, in the lecture's order. `check` calls yours on several random networks and
# compares the result with ours. If it is wrong the message says which part differs and, where the
# mistake is a typical one, which it is. Write NumPy or JAX; the arguments are NumPy arrays in
# float64.
#
# Throughout, $T$ is the number of steps, $n$ the number of units and $m$ that of input features.
# The network is
#
# $$h^{(t)} = \tanh\!\big(W_{xh}\, x^{(t)} + W_{hh}\, h^{(t-1)} + b\big), \qquad t = 1 \dots T.$$
#
# Arrays of inputs begin with $x^{(1)}$: `x[0]`. Arrays of states that a function is given begin
# with $h^{(0)}$, so that `h[t]` is $h^{(t)}$. The [solutions](11_solutions.ipynb) have one answer
# to each.

# %% [markdown] lang="es"
# # 10. Ejercicios
#
# Diez funciones por escribir, en el orden del curso. `check` llama a la función con varias redes
# generadas al azar y compara el resultado con el nuestro. Si es incorrecto, el mensaje indica qué
# parte difiere y, cuando el error es típico, cuál es. Se puede usar NumPy o JAX; los argumentos son
# arreglos de NumPy en float64.
#
# En todo el cuaderno, $T$ es el número de pasos, $n$ el de unidades y $m$ el de componentes de la
# entrada. La red es
#
# $$h^{(t)} = \tanh\!\big(W_{xh}\, x^{(t)} + W_{hh}\, h^{(t-1)} + b\big), \qquad t = 1 \dots T.$$
#
# Los arreglos de entradas empiezan con $x^{(1)}$: `x[0]`. Los de estados que recibe una función
# empiezan con $h^{(0)}$, de modo que `h[t]` es $h^{(t)}$. Las [soluciones](11_solutions.ipynb)
# contienen una respuesta a cada ejercicio.

# %% name="imports"
import numpy as np

import gradlab

# %% lang="en" name="check"
check = gradlab.check
check()

# %% lang="es" name="check"
from functools import partial

check = partial(gradlab.check, language="es")
check()

# %% [markdown] lang="en"
# ## 1. The unrolled network: `unroll`
#
# Compute all states $h^{(1)} \dots h^{(T)}$ from $h^{(0)}$, the inputs and the weights. Replace the
# `...`, run the cell, and read the message.
#
# - Arguments: `x` (T, m), `x[0]` is x⁽¹⁾; `h0` (n,); `W_xh` (n, m); `W_hh` (n, n); `b` (n,).
# - Returns: (T, n): the states h⁽¹⁾ … h⁽ᵀ⁾, one a row.

# %% [markdown] lang="es"
# ## 1. La red desplegada: `unroll`
#
# Se calculan todos los estados $h^{(1)} \dots h^{(T)}$ a partir de $h^{(0)}$, las entradas y los
# pesos. Hay que reemplazar los `...`, ejecutar la celda y leer el mensaje.
#
# - Argumentos: `x` (T, m), `x[0]` es x⁽¹⁾; `h0` (n,); `W_xh` (n, m); `W_hh` (n, n); `b` (n,).
# - Devuelve: (T, n): los estados h⁽¹⁾ … h⁽ᵀ⁾, uno por fila.


# %% name="unroll"
def unroll(x, h0, W_xh, W_hh, b):
    T = len(x)
    states = [None] * T
    for t in range(T):
        states[t] = ...
    return np.array(states)


check("unroll", unroll)

# %% [markdown] lang="en"
# ## 2. One matrix for both: `joined`
#
# Many texts write the step with a single matrix, $W\,[h^{(t-1)};\, x^{(t)}] + b$, where $[h; x]$ is
# the vector $h$ with $x$ below it. Which $W$ makes this equal to
# $W_{xh}\, x^{(t)} + W_{hh}\, h^{(t-1)} + b$?
#
# - Arguments: `W_xh` (n, m); `W_hh` (n, n).
# - Returns: (n, n + m): the columns that act on h, then those that act on x.

# %% [markdown] lang="es"
# ## 2. Una sola matriz: `joined`
#
# Muchos textos escriben el paso con una sola matriz, $W\,[h^{(t-1)};\, x^{(t)}] + b$, donde
# $[h; x]$ es el vector $h$ con $x$ debajo. ¿Con qué $W$ es esto igual a
# $W_{xh}\, x^{(t)} + W_{hh}\, h^{(t-1)} + b$?
#
# - Argumentos: `W_xh` (n, m); `W_hh` (n, n).
# - Devuelve: (n, n + m): las columnas que actúan sobre h y, después, las que actúan sobre x.


# %% name="joined"
def joined(W_xh, W_hh):
    return ...


check("joined", joined)

# %% [markdown] lang="en"
# ## 3. Two layers: `stack`
#
# The second layer reads the first layer's state of the same step:
#
# $$\begin{aligned}
# h_1^{(t)} &= \tanh\!\big(W_{xh,1}\, x^{(t)} + W_{hh,1}\, h_1^{(t-1)} + b_1\big), \\
# h_2^{(t)} &= \tanh\!\big(W_{xh,2}\, h_1^{(t)} + W_{hh,2}\, h_2^{(t-1)} + b_2\big).
# \end{aligned}$$
#
# Return the states of both, as an array $(2, T, n)$.
#
# - Arguments: `x` (T, m); `layers`, a list of two tuples (h0, W_xh, W_hh, b), with n units each.
# - Returns: (2, T, n): the states of the first layer, then those of the second.

# %% [markdown] lang="es"
# ## 3. Dos capas: `stack`
#
# La segunda capa lee el estado de la primera en el mismo paso:
#
# $$\begin{aligned}
# h_1^{(t)} &= \tanh\!\big(W_{xh,1}\, x^{(t)} + W_{hh,1}\, h_1^{(t-1)} + b_1\big), \\
# h_2^{(t)} &= \tanh\!\big(W_{xh,2}\, h_1^{(t)} + W_{hh,2}\, h_2^{(t-1)} + b_2\big).
# \end{aligned}$$
#
# Se devuelven los estados de ambas, como un arreglo $(2, T, n)$.
#
# - Argumentos: `x` (T, m); `layers`, una lista de dos tuplas (h0, W_xh, W_hh, b), con n unidades
#   cada una.
# - Devuelve: (2, T, n): los estados de la primera capa y, después, los de la segunda.


# %% name="stack"
def stack(x, layers):
    first = ...
    second = ...
    return np.array([first, second])


check("stack", stack)

# %% [markdown] lang="en"
# ## 4. The Jacobian of one step: `step_jacobian`
#
# How does $h^{(t)}$ change if $h^{(t-1)}$ does, the input held fixed? Compute
# $J^{(t)} = \partial h^{(t)} / \partial h^{(t-1)}$ from $h^{(t)}$ and $W_{hh}$. The derivative of
# $\tanh$ is $1 - \tanh^2$.
#
# - Arguments: `h` (n,), the state after the step; `W_hh` (n, n).
# - Returns: (n, n): ∂h⁽ᵗ⁾/∂h⁽ᵗ⁻¹⁾.

# %% [markdown] lang="es"
# ## 4. La jacobiana de un paso: `step_jacobian`
#
# ¿Cómo cambia $h^{(t)}$ si cambia $h^{(t-1)}$, con la entrada fija? Se calcula
# $J^{(t)} = \partial h^{(t)} / \partial h^{(t-1)}$ a partir de $h^{(t)}$ y $W_{hh}$. La derivada de
# $\tanh$ es $1 - \tanh^2$.
#
# - Argumentos: `h` (n,), el estado después del paso; `W_hh` (n, n).
# - Devuelve: (n, n): ∂h⁽ᵗ⁾/∂h⁽ᵗ⁻¹⁾.


# %% name="step_jacobian"
def step_jacobian(h, W_hh):
    return ...


check("step_jacobian", step_jacobian)

# %% [markdown] lang="en"
# ## 5. Across several steps: `product`
#
# By the chain rule, the Jacobian from step $k$ to step $t$ is a product of step Jacobians:
#
# $$\frac{\partial h^{(t)}}{\partial h^{(k)}} = J^{(t)} J^{(t-1)} \cdots J^{(k+1)}.$$
#
# Its norm is what this lecture measures. For $t = k$ it is the identity.
#
# - Arguments: `h` (T + 1, n), `h[t]` is h⁽ᵗ⁾; `W_hh` (n, n); `t` and `k`, 0 ≤ k ≤ t ≤ T.
# - Returns: (n, n): ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾.

# %% [markdown] lang="es"
# ## 5. A través de varios pasos: `product`
#
# Por la regla de la cadena, la jacobiana del paso $k$ al paso $t$ es un producto de jacobianas de
# un paso:
#
# $$\frac{\partial h^{(t)}}{\partial h^{(k)}} = J^{(t)} J^{(t-1)} \cdots J^{(k+1)}.$$
#
# Su norma es lo que se mide en este curso. Para $t = k$ es la identidad.
#
# - Argumentos: `h` (T + 1, n), `h[t]` es h⁽ᵗ⁾; `W_hh` (n, n); `t` y `k`, 0 ≤ k ≤ t ≤ T.
# - Devuelve: (n, n): ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾.


# %% name="product"
def product(h, W_hh, t, k):
    return ...


check("product", product)

# %% [markdown] lang="en"
# ## 6. Backpropagation through time: `bptt`
#
# Let the loss $L^{(T)}$ depend on $h^{(T)}$ alone, and let
# $g = \partial L^{(T)} / \partial h^{(T)}$. The matrix $W_{hh}$ is used at every step, and the
# gradient has a term for each use:
#
# $$\frac{\partial L^{(T)}}{\partial W_{hh}} = \sum_{k=1}^{T}
# \frac{\partial L^{(T)}}{\partial h^{(T)}}\,
# \frac{\partial h^{(T)}}{\partial h^{(k)}}\,
# \frac{\partial^{+} h^{(k)}}{\partial W_{hh}}.$$
#
# The last factor is the immediate derivative: $h^{(k-1)}$ is held fixed in it. Return the terms
# $k = 1 \dots T$, not yet added, as an array $(T, n, n)$.
#
# - Arguments: `h` (T + 1, n), `h[t]` is h⁽ᵗ⁾; `W_hh` (n, n); `g` (n,), the gradient ∂L⁽ᵀ⁾/∂h⁽ᵀ⁾.
# - Returns: (T, n, n): one n × n term for each k = 1…T.
#
# Here is a wrong attempt, with what `check` says about it.

# %% [markdown] lang="es"
# ## 6. Retropropagación a través del tiempo: `bptt`
#
# La pérdida $L^{(T)}$ depende solo de $h^{(T)}$; sea $g = \partial L^{(T)} / \partial h^{(T)}$. La
# matriz $W_{hh}$ se usa en cada paso, y el gradiente tiene un término por cada uso:
#
# $$\frac{\partial L^{(T)}}{\partial W_{hh}} = \sum_{k=1}^{T}
# \frac{\partial L^{(T)}}{\partial h^{(T)}}\,
# \frac{\partial h^{(T)}}{\partial h^{(k)}}\,
# \frac{\partial^{+} h^{(k)}}{\partial W_{hh}}.$$
#
# El último factor es la derivada inmediata: en ella, $h^{(k-1)}$ está fijo. Se devuelven los
# términos $k = 1 \dots T$, sin sumar, como un arreglo $(T, n, n)$.
#
# - Argumentos: `h` (T + 1, n), `h[t]` es h⁽ᵗ⁾; `W_hh` (n, n); `g` (n,), el gradiente ∂L⁽ᵀ⁾/∂h⁽ᵀ⁾.
# - Devuelve: (T, n, n): un término n × n para cada k = 1…T.
#
# Este es un intento incorrecto, con lo que `check` dice de él.


# %% name="wrong-bptt"
def wrong_bptt(h, W_hh, g):
    T, n = len(h) - 1, len(g)
    terms = np.zeros((T, n, n))
    for k in range(T, 0, -1):
        g = g * (1 - h[k] ** 2)
        terms[k - 1] = np.outer(g, h[k - 1])
        g = W_hh @ g
    return terms


check("bptt", wrong_bptt)

# %% [markdown] lang="en"
# The term $k = T$ is right, since no $W_{hh}$ has been passed there. From $k = T - 1$ down the
# terms differ. Now write your own.

# %% [markdown] lang="es"
# El término $k = T$ es correcto, ya que allí aún no se ha pasado por ninguna $W_{hh}$. Desde
# $k = T - 1$ hacia atrás, los términos difieren. Ahora falta escribir la función correcta.


# %% name="bptt"
def bptt(h, W_hh, g):
    T = len(h) - 1
    terms = [None] * T
    for k in range(T, 0, -1):
        terms[k - 1] = ...
    return np.array(terms)


check("bptt", bptt)

# %% [markdown] lang="en"
# ## 7. A window of $K$ steps: `truncated`
#
# Truncated backpropagation goes back through $K$ steps only and leaves the older terms out. Return
#
# $$\sum_{k = T - K + 1}^{T} (\text{term } k),$$
#
# an array $(n, n)$. If $K \ge T$, nothing is left out.
#
# - Arguments: `h` (T + 1, n), `h[t]` is h⁽ᵗ⁾; `W_hh` (n, n); `g` (n,), the gradient ∂L⁽ᵀ⁾/∂h⁽ᵀ⁾;
#   `K` ≥ 1.
# - Returns: (n, n): the sum of the terms in the window.

# %% [markdown] lang="es"
# ## 7. Una ventana de $K$ pasos: `truncated`
#
# La retropropagación truncada retrocede solo $K$ pasos y deja fuera los términos más antiguos. Se
# devuelve
#
# $$\sum_{k = T - K + 1}^{T} (\text{término } k),$$
#
# un arreglo $(n, n)$. Si $K \ge T$, no se deja fuera nada.
#
# - Argumentos: `h` (T + 1, n), `h[t]` es h⁽ᵗ⁾; `W_hh` (n, n); `g` (n,), el gradiente ∂L⁽ᵀ⁾/∂h⁽ᵀ⁾;
#   `K` ≥ 1.
# - Devuelve: (n, n): la suma de los términos de la ventana.


# %% name="truncated"
def truncated(h, W_hh, g, K):
    return ...


check("truncated", truncated)

# %% [markdown] lang="en"
# ## 8. Clipping by the global norm: `clip`
#
# A gradient comes as a list of arrays, one for each weight array. Let $\lVert g \rVert$ be the norm
# of all of them together, as of one long vector, and $\theta$ the threshold. If
# $\lVert g \rVert > \theta$, multiply every array by $\theta / \lVert g \rVert$; if not, leave them
# as they are. Truncation bounds how far back a gradient flows; clipping bounds its size.
#
# - Arguments: `gradients`, a list of arrays of any shapes; `threshold` > 0.
# - Returns: a list of as many arrays, of the same shapes.

# %% [markdown] lang="es"
# ## 8. Recorte por umbral de la norma global: `clip`
#
# Un gradiente es una lista de arreglos, uno por cada arreglo de pesos. Sea $\lVert g \rVert$ la
# norma de todos ellos juntos, como de un solo vector largo, y $\theta$ el umbral. Si
# $\lVert g \rVert > \theta$, cada arreglo se multiplica por $\theta / \lVert g \rVert$; si no,
# quedan como están. El truncamiento limita hasta dónde retrocede un gradiente; el recorte limita su
# tamaño.
#
# - Argumentos: `gradients`, una lista de arreglos de cualquier forma; `threshold` > 0, el umbral.
# - Devuelve: una lista de otros tantos arreglos, de las mismas formas.


# %% name="clip"
def clip(gradients, threshold):
    return ...


check("clip", clip)

# %% [markdown] lang="en"
# ## 9. One step of an LSTM: `lstm`
#
# The rows of $a = W\,[h^{(t-1)};\, x^{(t)}] + b$ are four blocks of $n$: input gate $i$, forget
# gate $f$, candidate $g$ and output gate $o$, in this order. With the logistic function $\sigma$,
#
# $$i, f, o = \sigma(a_i), \sigma(a_f), \sigma(a_o), \qquad g = \tanh a_g,$$
#
# $$c^{(t)} = f \odot c^{(t-1)} + i \odot g, \qquad h^{(t)} = o \odot \tanh c^{(t)}.$$
#
# Return the pair $(c^{(t)}, h^{(t)})$.
#
# - Arguments: `x` (m,); `h` (n,), h⁽ᵗ⁻¹⁾; `c` (n,), c⁽ᵗ⁻¹⁾; `W` (4n, n + m); `b` (4n,).
# - Returns: the pair (c, h) of c⁽ᵗ⁾ and h⁽ᵗ⁾, each (n,).

# %% [markdown] lang="es"
# ## 9. Un paso de una LSTM: `lstm`
#
# Las filas de $a = W\,[h^{(t-1)};\, x^{(t)}] + b$ son cuatro bloques de $n$: compuerta de entrada
# $i$, compuerta de olvido $f$, candidato $g$ y compuerta de salida $o$, en este orden. Con la
# función logística $\sigma$,
#
# $$i, f, o = \sigma(a_i), \sigma(a_f), \sigma(a_o), \qquad g = \tanh a_g,$$
#
# $$c^{(t)} = f \odot c^{(t-1)} + i \odot g, \qquad h^{(t)} = o \odot \tanh c^{(t)}.$$
#
# Se devuelve el par $(c^{(t)}, h^{(t)})$: estado de celda y estado oculto.
#
# - Argumentos: `x` (m,); `h` (n,), h⁽ᵗ⁻¹⁾; `c` (n,), c⁽ᵗ⁻¹⁾; `W` (4n, n + m); `b` (4n,).
# - Devuelve: el par (c, h) de c⁽ᵗ⁾ y h⁽ᵗ⁾, cada uno (n,).


# %% name="lstm"
def lstm(x, h, c, W, b):
    c = ...
    h = ...
    return c, h


check("lstm", lstm)

# %% [markdown] lang="en"
# ## 10. How far a cell reaches: `forget_bias`
#
# Along its own edge, with the gates held fixed, a cell passes on
# $\partial c^{(t)} / \partial c^{(k)} = f^{(t)} \cdots f^{(k+1)}$. Let every forget gate be
# $f = \sigma(b)$. At which forget bias $b$ is the product $1/e$ after $\tau$ steps?
#
# - Arguments: `tau`, τ > 0 as a float.
# - Returns: one number, b.

# %% [markdown] lang="es"
# ## 10. Hasta dónde llega una celda: `forget_bias`
#
# Por la conexión consigo misma, con las compuertas fijas, una celda transmite
# $\partial c^{(t)} / \partial c^{(k)} = f^{(t)} \cdots f^{(k+1)}$. Sea $f = \sigma(b)$ en todas las
# compuertas de olvido. ¿Con qué sesgo de olvido $b$ es $1/e$ el producto después de $\tau$ pasos?
#
# - Argumentos: `tau`, τ > 0, de tipo float.
# - Devuelve: un número, b.


# %% name="forget_bias"
def forget_bias(tau):
    return ...


check("forget_bias", forget_bias)
