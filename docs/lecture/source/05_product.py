# %% [markdown] lang="en"
# # 5. A product of Jacobians
#
# **What is $\partial h^{(t)}/\partial h^{(k)}$ made of, and what bounds its norm?**

# %% [markdown] lang="es"
# # 5. Un producto de jacobianas
#
# **¿De qué se compone $\partial h^{(t)}/\partial h^{(k)}$, y qué acota su norma?**

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

import gradlab

# %% [markdown] lang="en"
# ## One factor a step
#
# A state depends on an earlier one through all the states between. By the chain rule
#
# $$\frac{\partial h^{(t)}}{\partial h^{(k)}} = J^{(t)}\, J^{(t-1)} \cdots J^{(k+1)}, \qquad
# J^{(i)} = \frac{\partial h^{(i)}}{\partial h^{(i-1)}}
# = \mathrm{diag}\big(\varphi'(a^{(i)})\big)\, W_{hh},$$
#
# with $a^{(i)} = W_{xh} x^{(i)} + W_{hh} h^{(i-1)} + b$. The matrix $W_{hh}$ is the same in every
# factor. The slopes $\varphi'(a^{(i)})$ change with the state: for tanh they are $1 - h^{(i)} \odot
# h^{(i)}$, from 0 to 1.

# %% [markdown] lang="es"
# ## Un factor por paso
#
# Un estado depende de otro anterior a través de todos los estados intermedios. Por la regla de la
# cadena,
#
# $$\frac{\partial h^{(t)}}{\partial h^{(k)}} = J^{(t)}\, J^{(t-1)} \cdots J^{(k+1)}, \qquad
# J^{(i)} = \frac{\partial h^{(i)}}{\partial h^{(i-1)}}
# = \mathrm{diag}\big(\varphi'(a^{(i)})\big)\, W_{hh},$$
#
# con $a^{(i)} = W_{xh} x^{(i)} + W_{hh} h^{(i-1)} + b$. La matriz $W_{hh}$ es la misma en todos los
# factores. Las pendientes $\varphi'(a^{(i)})$ cambian con el estado: para tanh son
# $1 - h^{(i)} \odot h^{(i)}$, entre 0 y 1.

# %%
rng = np.random.default_rng(1)
T, n = 40, 4
W_hh = 0.9 * np.linalg.qr(rng.normal(size=(n, n)))[0]
W_xh = rng.normal(size=(n, n)) / 2
x = rng.normal(size=(T, n))

h, slopes = np.zeros(n), []
for x_t in x:
    h = np.tanh(W_xh @ x_t + W_hh @ h)
    slopes.append(1 - h**2)
J = [np.diag(slope) @ W_hh for slope in slopes]  # J[0] is that of step 1

# %% [markdown] lang="en"
# The figure shows the factor of step 1 of this cell of four units. $\varphi'$ multiplies the rows
# of $W_{hh}$: the row of a saturated unit, whose slope is near 0, becomes small.

# %% [markdown] lang="es"
# La figura muestra el factor del paso 1 de esta celda de cuatro unidades. $\varphi'$ multiplica las
# filas de $W_{hh}$: la fila de una unidad saturada, cuya pendiente es casi 0, se hace pequeña.


# %% name="factor"
def draw_matrix(ax, matrix, title):
    """Draw a matrix with its entries; white is 0."""
    ax.imshow(matrix, cmap="PuOr", vmin=-1.5, vmax=1.5)
    for (row, column), value in np.ndenumerate(matrix):
        word = f"{value:.2f}".replace("0.", ".").replace("-", "−")
        ax.text(column, row, word if abs(value) > 0.005 else "0", ha="center", va="center")
    ax.set(title=title, xticks=[], yticks=[])


figure, axes = plt.subplots(1, 3, figsize=(7, 2.7), layout="constrained")
draw_matrix(axes[0], np.diag(slopes[0]), "$\\mathrm{diag}(\\varphi'(a^{(1)}))$")
draw_matrix(axes[1], W_hh, "$W_{hh}$")
draw_matrix(axes[2], J[0], "$J^{(1)}$")
for ax, sign in zip(axes[1:], "·=", strict=True):
    ax.set_ylabel(sign, rotation=0, labelpad=12, va="center", weight="bold")

# %% [markdown] lang="en"
# ## The product, step by step
#
# We multiply the factors of the first steps from the left and write the norm of each product above
# it. The norm $\lVert \cdot \rVert$ is the largest singular value: by how much a vector can grow.

# %% [markdown] lang="es"
# ## El producto, paso a paso
#
# Multiplicamos por la izquierda los factores de los primeros pasos y escribimos la norma de cada
# producto encima. La norma $\lVert \cdot \rVert$ es el mayor valor singular: por cuánto puede
# multiplicarse la longitud de un vector.

# %% name="product"
products = [np.eye(n)]
for factor in J:
    products.append(factor @ products[-1])
norms = [np.linalg.norm(product, 2) for product in products]

figure, axes = plt.subplots(2, 3, figsize=(7, 5.2), layout="constrained")
for ax, t in zip(axes.flat, (0, 1, 2, 3, 5, 8), strict=True):
    name = f"\\partial h^{{({t})}}/\\partial h^{{(0)}}"
    draw_matrix(ax, products[t], f"$\\Vert {name} \\Vert = {norms[t]:.3f}$")

# %% [markdown] lang="en"
# By step 8 all entries are near zero. The rows also become multiples of one row: the product comes
# close to rank 1, since the direction that shrinks least outlasts all others. At step 8 its second
# singular value is a few hundredths of the first:

# %% [markdown] lang="es"
# En el paso 8 todos los elementos son casi cero. Además, las filas se vuelven múltiplos de una
# sola: el producto se acerca a rango 1, porque la dirección que menos se encoge perdura más que las
# demás. En el paso 8 su segundo valor singular es unas centésimas del primero:

# %%
singular_values = np.linalg.svd(products[8], compute_uv=False)
(singular_values / singular_values[0]).round(4)

# %% [markdown] lang="en"
# gradlab measures these norms for every pair. Its column $k = 0$ agrees with the product by hand:

# %% [markdown] lang="es"
# gradlab mide estas normas para cada par. Su columna $k = 0$ coincide con el producto calculado a
# mano:


# %%
def step(h, x_t):
    h = jnp.tanh(W_xh @ x_t + W_hh @ h)
    return h, h


start = jnp.zeros(n)
log_norms = gradlab.jacobian_log_norms(step, jnp.asarray(x), initial_carry=start)
print(f"{np.abs(np.exp(log_norms[:, 0]) / norms - 1).max():.1e}")  # relative difference

# %% [markdown] lang="en"
# **Question.** In which order do forward and backward passes multiply the factors, and with what?
#
# <details><summary>Answer</summary>
#
# Forward, a small change $\epsilon$ of $h^{(k)}$ becomes $J^{(t)} \cdots J^{(k+1)} \epsilon$: the
# first factor is that of step $k + 1$. Backward, the row vector $\partial L/\partial h^{(t)}$ meets
# $J^{(t)}$ first. The product is the same, so both shrink or grow together.
#
# </details>

# %% [markdown] lang="es"
# **Pregunta.** ¿En qué orden multiplican los factores la propagación hacia delante y la
# retropropagación, y qué multiplican?
#
# <details><summary>Respuesta</summary>
#
# Hacia delante, un pequeño cambio $\epsilon$ de $h^{(k)}$ se convierte en
# $J^{(t)} \cdots J^{(k+1)} \epsilon$: el primer factor es el del paso $k + 1$. Hacia atrás, el
# vector fila $\partial L/\partial h^{(t)}$ encuentra primero $J^{(t)}$. El producto es el mismo,
# así que el cambio y el gradiente se encogen o crecen a la vez.
#
# </details>

# %% [markdown] lang="en"
# ## A bound
#
# A product's norm is at most the product of the norms. With $\gamma$ the largest slope that
# $\varphi$ has anywhere ($\gamma = 1$ for tanh, $\tfrac14$ for the logistic function),
#
# $$\lVert J^{(i)} \rVert \le \gamma\, \sigma_{\max}(W_{hh}), \qquad
# \left\lVert \frac{\partial h^{(t)}}{\partial h^{(k)}} \right\rVert \le
# \prod_{i=k+1}^{t} \lVert J^{(i)} \rVert \le
# \big(\gamma\, \sigma_{\max}(W_{hh})\big)^{t-k}$$
#
# (Pascanu, Mikolov & Bengio 2013, eq. 6 and 7). If $\gamma\, \sigma_{\max}(W_{hh}) < 1$, gradients
# vanish for certain. The reverse does not hold.

# %% [markdown] lang="es"
# ## Una cota
#
# La norma de un producto es, como mucho, el producto de las normas. Sea $\gamma$ la mayor pendiente
# de $\varphi$ en cualquier punto ($\gamma = 1$ para tanh, $\tfrac14$ para la función logística):
#
# $$\lVert J^{(i)} \rVert \le \gamma\, \sigma_{\max}(W_{hh}), \qquad
# \left\lVert \frac{\partial h^{(t)}}{\partial h^{(k)}} \right\rVert \le
# \prod_{i=k+1}^{t} \lVert J^{(i)} \rVert \le
# \big(\gamma\, \sigma_{\max}(W_{hh})\big)^{t-k}$$
#
# (Pascanu, Mikolov y Bengio 2013, ec. 6 y 7). Si $\gamma\, \sigma_{\max}(W_{hh}) < 1$, los
# gradientes se desvanecen con seguridad. El recíproco no es cierto.

# %% lang="en" tags=["hide-cell"]
STEP, NORM = "step t", "‖∂h⁽ᵗ⁾/∂h⁽⁰⁾‖"
LINES = ["measured", "product of the factors' norms", "bound (γ σ_max)ᵗ"]

# %% lang="es" tags=["hide-cell"]
STEP, NORM = "paso t", "‖∂h⁽ᵗ⁾/∂h⁽⁰⁾‖"
LINES = ["medida", "producto de las normas de los factores", "cota (γ σ_max)ᵗ"]

# %% name="bound"
steps = np.arange(T + 1)
of_factors = np.cumprod([1, *(np.linalg.norm(factor, 2) for factor in J)])
bound = np.linalg.norm(W_hh, 2) ** steps

figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
curves = zip((norms, of_factors, bound), ("-", "--", ":"), LINES, strict=True)
for values, line, label in curves:
    ax.semilogy(steps, values, line, color="black", label=label)
ax.set(xlabel=STEP, ylabel=NORM)
_ = ax.legend()

# %% [markdown] lang="en"
# The slopes make the measured norm much smaller than the bound. The product of the factors' norms
# is still too large: the direction that one factor stretches most is not that of the next one.
#
# ## Weights against saturation
#
# The weights alone would let a gradient of gain above 1 explode; saturated units make it vanish.
# The cell below has 64 units and Gaussian weights of gain 1.2. The slider sets the size of its
# inputs: the standard deviation $s$ of $x$. Large inputs saturate the units.

# %% [markdown] lang="es"
# Las pendientes hacen que la norma medida sea mucho menor que la cota. El producto de las normas de
# los factores sigue siendo demasiado grande: la dirección que más estira un factor no es la del
# siguiente.
#
# ## Pesos frente a saturación
#
# Si solo actuaran los pesos, un gradiente con ganancia mayor que 1 explotaría; las unidades
# saturadas hacen que se desvanezca. La celda de abajo tiene 64 unidades y pesos gaussianos de
# ganancia 1.2. El control deslizante fija el tamaño de las entradas: la desviación estándar $s$ de
# $x$. Las entradas grandes saturan las unidades.

# %% lang="en" tags=["hide-cell"]
SIZE, LAG = "input size s", "lag t − k (steps)"
T_STEPS, K_STEPS, PAIR = "t (steps)", "k (steps)", "mean ‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖"
SLOPE, BOUND = "mean slope", "bound"

# %% lang="es" tags=["hide-cell"]
SIZE, LAG = "tamaño de la entrada s", "retardo t − k (pasos)"
T_STEPS, K_STEPS, PAIR = "t (pasos)", "k (pasos)", "‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖ media"
SLOPE, BOUND = "pendiente media", "cota"

# %% name="saturation"
start = nnx.initializers.variance_scaling(1.2**2, "fan_in", "normal")
wide = nnx.SimpleCell(8, 64, recurrent_kernel_init=start, rngs=nnx.Rngs(0))
noise = jax.random.normal(jax.random.key(0), (60, 8))
sigma_max = np.linalg.norm(wide.dense_h.kernel, 2)
small_state = jax.random.normal(jax.random.key(1), (64,)) * 1e-3


def draw(size):
    x = size * noise
    log_norms = gradlab.jacobian_log_norms(wide, x, initial_carry=small_state)
    states = nnx.RNN(wide)(x[None], initial_carry=small_state[None])
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
    gradlab.draw_decay(log_norms, left, color="black")
    left.plot(np.log(sigma_max) * np.arange(61), ":", color="black")
    left.text(25, np.log(1e6), BOUND)
    left.set(xlabel=LAG, ylabel=PAIR, ylim=np.log([1e-12, 1e8]))
    gradlab.draw_map(log_norms, right)
    right.images[0].set_clim(-np.log(100), np.log(100))
    right.images[0].colorbar.set_label("")
    right.set(xlabel=K_STEPS, ylabel=T_STEPS)
    figure.suptitle(f"s = {size}, {SLOPE} {float(np.mean(1 - states**2)):.2f}")
    return figure


gradlab.figures.Slider(draw, [0.0, 0.5, 1.0, 2.0, 4.0], label=SIZE, start=0.5)

# %% [markdown] lang="en"
# **Question.** $\sigma_{\max}(W_{hh})$ is the same at all places of the slider. Where would you set
# the gain so that gradients neither vanish nor explode?
#
# <details><summary>Answer</summary>
#
# It depends on the inputs: the larger they are, the smaller the slopes, and the larger the gain has
# to be. The next section measures it.
#
# </details>

# %% [markdown] lang="es"
# **Pregunta.** $\sigma_{\max}(W_{hh})$ es la misma en todas las posiciones del control. ¿Qué
# ganancia elegiríamos para que los gradientes ni se desvanezcan ni exploten?
#
# <details><summary>Respuesta</summary>
#
# Depende de las entradas: cuanto mayores son, menores son las pendientes y mayor tiene que ser la
# ganancia. La sección siguiente lo mide.
#
# </details>

# %% [markdown] lang="en"
# ## A bound above 1 promises nothing
#
# Take a linear cell of two units with
#
# $$W_{hh} = \begin{bmatrix} 0 & 5 \\ 0 & 0 \end{bmatrix}, \qquad \sigma_{\max} = 5, \qquad
# W_{hh}^2 = 0 .$$
#
# **Question.** What is the norm of $\partial h^{(t)}/\partial h^{(k)}$ at the lags 0, 1, 2 and 3?
#
# <details><summary>Answer</summary>
#
# 1, 5, 0 and 0. The second unit feeds the first, and nothing feeds the second: whatever was there
# is gone after two steps. The bound is $5^{t-k}$.
#
# </details>

# %% [markdown] lang="es"
# ## Una cota mayor que 1 no garantiza nada
#
# Tomemos una celda lineal de dos unidades con
#
# $$W_{hh} = \begin{bmatrix} 0 & 5 \\ 0 & 0 \end{bmatrix}, \qquad \sigma_{\max} = 5, \qquad
# W_{hh}^2 = 0 .$$
#
# **Pregunta.** ¿Cuál es la norma de $\partial h^{(t)}/\partial h^{(k)}$ con retardos 0, 1, 2 y 3?
#
# <details><summary>Respuesta</summary>
#
# 1, 5, 0 y 0. La segunda unidad alimenta a la primera, y nada alimenta a la segunda: lo que había
# en ella desaparece a los dos pasos. La cota es $5^{t-k}$.
#
# </details>

# %%
nilpotent = jnp.array([[0.0, 5.0], [0.0, 0.0]])


def linear(h, x_t):
    return nilpotent @ h + x_t, h


start = jnp.zeros(2)
log_norms = gradlab.jacobian_log_norms(linear, jnp.ones((3, 2)), initial_carry=start)
np.exp(log_norms[3, ::-1]).round(4)  # t = 3, k = 3, 2, 1, 0

# %% [markdown] lang="en"
# ## What to remember
#
# - $\partial h^{(t)}/\partial h^{(k)}$ is a product of step Jacobians,
#   $J^{(i)} = \mathrm{diag}(\varphi')\, W_{hh}$.
# - $\gamma\, \sigma_{\max}(W_{hh}) < 1$ makes gradients vanish; above 1 they may do either.
# - Weights stretch, saturation shrinks: what happens has to be measured.
#
# Next: [6. Vanishing and exploding gradients](06_vanishing.ipynb).

# %% [markdown] lang="es"
# ## Para recordar
#
# - $\partial h^{(t)}/\partial h^{(k)}$ es un producto de jacobianas de un paso,
#   $J^{(i)} = \mathrm{diag}(\varphi')\, W_{hh}$.
# - Con $\gamma\, \sigma_{\max}(W_{hh}) < 1$ los gradientes se desvanecen; por encima de 1 puede
#   ocurrir cualquiera de las dos cosas.
# - Los pesos estiran y la saturación encoge: hay que medir lo que ocurre.
#
# Siguiente: [6. Gradientes que se desvanecen y que explotan](06_vanishing.ipynb).
