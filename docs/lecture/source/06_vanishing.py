# %% [markdown] lang="en"
# # 6. Vanishing and exploding gradients
#
# **What decides whether a gradient vanishes or explodes on its way back through time?**
#
# The short answer of this section: the gain of the recurrent weights, together with how far the
# activation saturates.

# %% [markdown] lang="es"
# # 6. Gradientes que se desvanecen y que explotan
#
# **¿De qué depende que un gradiente se desvanezca o explote al retroceder en el tiempo?**
#
# La respuesta breve de esta sección: de la ganancia de los pesos recurrentes y de cuánto se satura
# la función de activación.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

import gradlab

# Colours that colour-blind readers tell apart.
plt.rcParams["axes.prop_cycle"] = plt.cycler(color=["#0072b2", "#e69f00", "#333333", "#cc79a7"])
n, T, seeds = 64, 60, range(4)
inputs = jax.random.normal(jax.random.key(0), (T, 4))


def network(gain, seed=0, activation=nnx.tanh):
    start = nnx.initializers.normal(gain / np.sqrt(n))  # entries from N(0, gain²/n)
    rngs = nnx.Rngs(seed)
    return nnx.SimpleCell(4, n, activation_fn=activation, recurrent_kernel_init=start, rngs=rngs)


def linear(u):
    return u


# %% lang="en" tags=["hide-cell"]
K, ROW, MAP_NORM = "k (steps)", "t (steps)", "‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖"
LAG, NORM = "lag t − k (steps)", "mean ‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖"
GAIN, RATE = "gain g", "decay rate (decades per step)"
LINEAR, TANH, WEAK, STRONG = "linear", "tanh", "tanh, weak inputs", "tanh, inputs of variance 1"
AT_LAG, ONE_NORM = "lag {} steps", "norm, typical vector"

# %% lang="es" tags=["hide-cell"]
K, ROW, MAP_NORM = "k (pasos)", "t (pasos)", "‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖"
LAG, NORM = "retardo t − k (pasos)", "‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖ media"
GAIN, RATE = "ganancia g", "tasa de decaimiento\n(décadas por paso)"
LINEAR, TANH, WEAK, STRONG = (
    "lineal",
    "tanh",
    "tanh, entradas débiles",
    "tanh, entradas de varianza 1",
)
AT_LAG, ONE_NORM = "retardo de {} pasos", "norma, vector típico"

# %% [markdown] lang="en"
# ## A product of t − k matrices
#
# With $h^{(t)} = \tanh\!\left(W_{hh}\, h^{(t-1)} + W_{xh}\, x^{(t)} + b\right)$ the chain rule
# gives
#
# $$
# \frac{\partial h^{(t)}}{\partial h^{(k)}} = \prod_{j=k+1}^{t} \operatorname{diag}\!\left(1 -
# \left(h^{(j)}\right)^2\right) W_{hh}
# $$
#
# The later factors stand on the left. Since $1 - h^2 \le 1$,
#
# $$
# \left\lVert \frac{\partial h^{(t)}}{\partial h^{(k)}} \right\rVert \le \lVert W_{hh}
# \rVert^{\,t-k} .
# $$
#
# The number of factors is the lag $t - k$, so the norm changes about exponentially with the lag. We
# draw $W_{hh}$ with independent entries of variance $g^2/n$. The number $g$ is the **gain**: a
# random vector becomes about $g$ times as long when $W_{hh}$ is applied.

# %% [markdown] lang="es"
# ## Un producto de t − k matrices
#
# Con $h^{(t)} = \tanh\!\left(W_{hh}\, h^{(t-1)} + W_{xh}\, x^{(t)} + b\right)$, la regla de la
# cadena da
#
# $$
# \frac{\partial h^{(t)}}{\partial h^{(k)}} = \prod_{j=k+1}^{t} \operatorname{diag}\!\left(1 -
# \left(h^{(j)}\right)^2\right) W_{hh}
# $$
#
# Los factores posteriores van a la izquierda. Como $1 - h^2 \le 1$,
#
# $$
# \left\lVert \frac{\partial h^{(t)}}{\partial h^{(k)}} \right\rVert \le \lVert W_{hh}
# \rVert^{\,t-k} .
# $$
#
# Hay tantos factores como pasos tiene el retardo $t - k$, de modo que la norma cambia con él de
# forma aproximadamente exponencial. Generamos los elementos de $W_{hh}$ al azar, independientes y
# con varianza $g^2/n$. El número $g$ es la **ganancia**: al aplicar $W_{hh}$, la longitud de un
# vector aleatorio se multiplica aproximadamente por $g$.

# %% [markdown] lang="en"
# ## Measured: three gains, four seeds
#
# Each line is the mean of the log norm over all pairs $(t, k)$ of a lag and over four seeds; the
# band reaches from the lowest seed to the highest. A dot marks the **horizon**, the lag at which
# the mean norm has fallen to $1/e$.

# %% [markdown] lang="es"
# ## La medición: tres ganancias, cuatro semillas
#
# Cada línea es la media del logaritmo de la norma sobre todos los pares $(t, k)$ de un mismo
# retardo y sobre cuatro semillas; la banda va de la semilla más baja a la más alta. El punto señala
# el **horizonte**: el retardo en el que la norma media ha caído a $1/e$.

# %% name="gains"
figure, axes = plt.subplots(1, 2, figsize=(7, 3.2), sharey=True, layout="constrained")
for ax, activation, title in zip(axes, [linear, nnx.tanh], [LINEAR, TANH], strict=True):
    for gain, dash in [(0.6, "--"), (1.0, "-"), (1.4, ":")]:
        maps = [gradlab.jacobian_log_norms(network(gain, s, activation), inputs) for s in seeds]
        gradlab.draw_decay(np.stack(maps), ax, linestyle=dash, label=f"g = {gain}")
    ax.set(title=title, xlabel=LAG, ylabel=NORM if ax is axes[0] else "")
    ax.axhline(0, color="0.6", linewidth=0.8)
axes[1].get_legend().remove()
plt.show()

# %% [markdown] lang="en"
# In the linear network the gradient vanishes at $g = 0.6$ and explodes at $g = 1.4$. At $g = 1$ it
# grows about a hundredfold in 60 steps, little beside the other two. With the same weights and a
# tanh it always vanishes, even at $g = 1.4$.
#
# **Question.** The bound says: if $\lVert W_{hh} \rVert < 1$, the gradient vanishes. Does the
# gradient explode if $\lVert W_{hh} \rVert > 1$?
#
# <details>
# <summary>Answer</summary>
#
# No. The bound is one-sided. A Gaussian $W_{hh}$ of gain $g$ has $\lVert W_{hh} \rVert \approx 2g$
# for large $n$, so at $g = 0.6$ its norm is about 1.2, and the gradient vanishes all the same. In
# the linear network the eigenvalues decide over long lags: the largest comes to $g$ in modulus for
# large $n$ and is on average 1.05 $g$ for 64 units (0.68 below, for $g = 0.6$). Under a tanh each
# step also shrinks the vector by $1 - h^2$.
#
# </details>

# %% [markdown] lang="es"
# En la red lineal el gradiente se desvanece con $g = 0.6$ y explota con $g = 1.4$. Con $g = 1$
# crece unas cien veces en 60 pasos, poco al lado de los otros dos casos. Con los mismos pesos y una
# tanh se desvanece siempre, incluso con $g = 1.4$.
#
# **Pregunta.** La cota dice: si $\lVert W_{hh} \rVert < 1$, el gradiente se desvanece. ¿Explota si
# $\lVert W_{hh} \rVert > 1$?
#
# <details>
# <summary>Respuesta</summary>
#
# No: la cota solo vale en un sentido. Una $W_{hh}$ gaussiana de ganancia $g$ tiene
# $\lVert W_{hh} \rVert \approx 2g$ si $n$ es grande; con $g = 0.6$ su norma es de alrededor de 1.2
# y aun así el gradiente se desvanece. En la red lineal, a retardos largos deciden los valores
# propios: el módulo del mayor tiende a $g$ si $n$ es grande y es en promedio 1.05 $g$ con
# 64 unidades (0.68 más abajo, con $g = 0.6$). Con la
# tanh, además, cada paso encoge el vector por $1 - h^2$.
#
# </details>

# %%
W = np.asarray(network(0.6).dense_h.kernel[...])
print(f"norm {np.linalg.norm(W, 2):.2f}, largest eigenvalue {abs(np.linalg.eigvals(W)).max():.2f}")

# %% [markdown] lang="en"
# ## The map: every pair (t, k)
#
# A curve over the lag is a mean. The map shows every pair: row $t$, column $k$; blue is a norm
# below 1, red above. The colour scale ends at factors of 100.

# %% [markdown] lang="es"
# ## El mapa: todos los pares (t, k)
#
# Una curva en función del retardo es una media. El mapa muestra todos los pares: fila $t$, columna
# $k$; el azul es una norma menor que 1 y el rojo, una mayor. La escala de color llega a factores de
# 100.

# %% name="map"
figure, axes = plt.subplots(1, 3, figsize=(7, 2.6), layout="constrained")
for ax, gain in zip(axes, [1.0, 1.8, 2.5], strict=True):
    gradlab.draw_map(gradlab.jacobian_log_norms(network(gain), inputs), ax)
    ax.set(title=f"tanh, g = {gain}", xlabel=K, ylabel=ROW if ax is axes[0] else "")
    ax.images[0].set_clim(-np.log(100), np.log(100))
    ax.images[0].colorbar.remove()
bar = figure.colorbar(
    axes[2].images[0], ax=axes, extend="both", ticks=np.log([0.01, 0.1, 1, 10, 100])
)
bar.set_ticklabels(["0.01", "0.1", "1", "10", "100"])
bar.set_label(MAP_NORM)
plt.show()

# %% [markdown] lang="en"
# On the diagonal $t = k$ the norm is 1. Away from it the colour depends mostly on the distance from
# the diagonal, which is the lag; that is why a curve over the lag is a fair summary. The stripes
# are steps at which the network was saturated more, or less, than usual.

# %% [markdown] lang="es"
# En la diagonal $t = k$ la norma es 1. Lejos de ella el color depende sobre todo de la distancia a
# la diagonal, que es el retardo; por eso una curva en función del retardo es un buen resumen. Las
# franjas son pasos en los que la red estaba más o menos saturada que de costumbre.

# %% [markdown] lang="en"
# ## A closed form to check the measurement
#
# Take a linear network and $W_{hh} = g\,Q$ with $Q$ orthogonal. Then $(gQ)^{t-k}$ has all singular
# values equal to $g^{\,t-k}$, so the norm is **exactly** $g^{\,t-k}$. We compare it with what is
# measured, for all pairs.

# %% [markdown] lang="es"
# ## Una expresión cerrada para comprobar la medición
#
# Consideremos una red lineal con $W_{hh} = g\,Q$ y $Q$ ortogonal. Todos los valores singulares de
# $(gQ)^{t-k}$ son $g^{\,t-k}$, de modo que la norma es **exactamente** $g^{\,t-k}$. La comparamos
# con la medida, para todos los pares.

# %%
lags = np.subtract.outer(np.arange(T + 1), np.arange(T + 1))  # [t, k] is t − k
for gain in [0.5, 0.9, 1.0, 1.1, 2.0]:
    start = nnx.initializers.orthogonal(gain)
    cell = nnx.SimpleCell(4, n, activation_fn=linear, recurrent_kernel_init=start, rngs=nnx.Rngs(0))
    log_norms = np.asarray(gradlab.jacobian_log_norms(cell, inputs))
    error = abs(log_norms - lags * np.log(gain))[lags >= 0].max()
    print(f"g = {gain}: norm {np.exp(log_norms[T, 0]):.3g} at lag {T}, log error ≤ {error:.0e}")

# %% [markdown] lang="en"
# ## The decay rate against the gain
#
# The **decay rate** is the slope of the log norm against the lag, in decades (factors of 10) per
# step. It is negative where gradients vanish and positive where they explode. We measure it for a
# linear network, for a tanh network driven by weak inputs ($0.3\,x$), and for one driven by inputs
# of variance 1. The norm here is that of a typical vector (`norm="rms"`):
# $\lVert\cdot\rVert_F / \sqrt{n}$.

# %% [markdown] lang="es"
# ## La tasa de decaimiento según la ganancia
#
# La **tasa de decaimiento** es la pendiente del logaritmo de la norma en función del retardo, en
# décadas (factores de 10) por paso. Es negativa donde el gradiente se desvanece y positiva donde
# explota. La medimos en una red lineal, en una red tanh con entradas débiles ($0.3\,x$) y en otra
# con entradas de varianza 1. La norma es aquí la de un vector típico (`norm="rms"`):
# $\lVert\cdot\rVert_F / \sqrt{n}$.

# %%
gains = np.array([0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.3, 2.6])
cases = {LINEAR: (linear, 1.0), WEAK: (nnx.tanh, 0.3), STRONG: (nnx.tanh, 1.0)}


def profile(gain, seed, activation, size):  # in nats, by lag
    cell = network(gain, seed, activation)
    return gradlab.lag_profile(gradlab.jacobian_log_norms(cell, size * inputs, norm="rms"))


profiles = {
    name: np.array([[profile(g, s, *case) for s in seeds] for g in gains])
    for name, case in cases.items()
}  # [gain, seed, lag]
rates = {
    name: np.apply_along_axis(gradlab.decay_rate, -1, p) / np.log(10)
    for name, p in profiles.items()
}

# %% name="crossing"
figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for (name, rate), marker in zip(rates.items(), "os^", strict=True):
    mean = rate.mean(axis=1)
    ax.plot(gains, mean, marker=marker, label=name)
    ax.fill_between(gains, rate.min(axis=1), rate.max(axis=1), alpha=0.2)
    print(f"{name}: 0 at g = {np.interp(0, mean, gains):.2f}")
ax.plot(gains, np.log10(gains), color="0.3", linestyle=":", label="log₁₀ g")
ax.axhline(0, color="0.6", linewidth=0.8)
ax.set(xlabel=GAIN, ylabel=RATE)
ax.legend()
plt.show()

# %% [markdown] lang="en"
# The linear network follows $\log_{10} g$ and crosses zero at $g = 0.95$, since the largest
# eigenvalue of 64 units lies a little above $g$; for large $n$ it is at 1. The tanh networks cross
# later: the stronger the inputs, the later. "Gradients explode above gain 1" therefore holds
# for the linear network only.
#
# **Question.** Why do larger inputs make the gradient vanish sooner, although they do not change
# $W_{hh}$?
#
# <details>
# <summary>Answer</summary>
#
# They saturate the units. Where $|h|$ is near 1 the slope $1 - h^2$ of the tanh is near 0, and this
# slope multiplies the gradient at every step. The gain that keeps the gradient must make up for the
# slopes.
#
# </details>

# %% [markdown] lang="es"
# La red lineal sigue $\log_{10} g$ y cruza el cero en $g = 0.95$, porque con 64 unidades el mayor
# valor propio queda algo por encima de $g$; si $n$ es grande, lo cruza en 1. Las redes tanh lo
# cruzan después, y tanto más tarde cuanto mayores son las entradas. Decir que «el gradiente explota
# si la ganancia supera 1» solo es cierto, por tanto, en la red lineal.
#
# **Pregunta.** ¿Por qué el gradiente se desvanece antes con entradas mayores, si estas no cambian
# $W_{hh}$?
#
# <details>
# <summary>Respuesta</summary>
#
# Porque saturan las unidades. Donde $|h|$ se acerca a 1, la pendiente $1 - h^2$ de la tanh se
# acerca a 0, y esa pendiente multiplica al gradiente en cada paso. La ganancia que conserva el
# gradiente tiene que compensar las pendientes.
#
# </details>

# %% [markdown] lang="en"
# ## Saturation, counted
#
# If units and weights were independent, the squared length of a vector would be multiplied by
# $\chi = g^2 \,\overline{(1 - h^2)^2}$ a step, so the rate would be $\tfrac12 \log_{10} \chi$. We
# run the network in NumPy and compare.

# %% [markdown] lang="es"
# ## La saturación en números
#
# Si las unidades y los pesos fueran independientes, el cuadrado de la longitud de un vector se
# multiplicaría en cada paso por $\chi = g^2 \,\overline{(1 - h^2)^2}$, y la tasa sería
# $\tfrac12 \log_{10} \chi$. Ejecutamos la red en NumPy y comparamos.


# %%
def mean_squared_slope(cell, x):
    W_hh, W_xh = (np.asarray(layer.kernel[...]) for layer in (cell.dense_h, cell.dense_i))
    h, slopes = np.zeros(n), []
    for x_t in np.asarray(x):
        h = np.tanh(h @ W_hh + x_t @ W_xh)
        slopes.append((1 - h**2) ** 2)
    return np.mean(slopes)


print(" gain   mean (1 − h²)²   ½ log₁₀ χ   measured rate")
for gain, measured in list(zip(gains, rates[STRONG], strict=True))[1::2]:
    slope = np.mean([mean_squared_slope(network(gain, s), inputs) for s in seeds])
    predicted = 0.5 * np.log10(gain**2 * slope)
    print(f"{gain:5.2f} {slope:16.3f} {predicted:11.3f} {measured.mean():15.3f}")

# %% [markdown] lang="en"
# ## The length of the sequence
#
# A rate is per step. Over a lag of $\tau$ steps it becomes a factor $10^{\text{rate}\cdot\tau}$, so
# the longer the lag, the narrower the range of gains whose gradients keep their size. The lines
# show the same networks (inputs of variance 1) at four lags; the grey band is a factor of 10 up or
# down.

# %% [markdown] lang="es"
# ## La longitud de la secuencia
#
# La tasa es por paso. En un retardo de $\tau$ pasos se convierte en un factor
# $10^{\text{tasa}\cdot\tau}$; cuanto más largo es el retardo, más estrecho es el intervalo de
# ganancias cuyos gradientes conservan su tamaño. Las líneas muestran las mismas redes (entradas de
# varianza 1) para cuatro retardos; la franja gris es un factor de 10 hacia arriba o hacia abajo.

# %% name="length"
figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
for lag, marker in zip([5, 10, 20, 50], "os^D", strict=True):
    decades = profiles[STRONG][:, :, lag].mean(axis=1) / np.log(10)
    ax.plot(gains, decades, marker=marker, label=AT_LAG.format(lag))
    low, high = np.interp([-1, 1], decades, gains, right=np.inf)  # inf: beyond what we measured
    print(f"lag {lag:2}: within a factor of 10 from g = {low:.2f} to {high:.2f}")
ax.axhspan(-1, 1, color="0.85")
ax.set(xlabel=GAIN, ylabel=ONE_NORM, yticks=range(-30, 11, 10))
ax.yaxis.set_major_formatter("$10^{{{x:.0f}}}$")
ax.legend()
plt.show()

# %% [markdown] lang="en"
# ## Try it: the gain
#
# The map and the curve of one tanh network (inputs of variance 1) as its gain changes.

# %% [markdown] lang="es"
# ## Para probar: la ganancia
#
# El mapa y la curva de una red tanh (entradas de varianza 1) al cambiar su ganancia.


# %% name="slider"
def draw(gain):
    log_norms = gradlab.jacobian_log_norms(network(gain), inputs)
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
    gradlab.draw_map(log_norms, axes[0])
    axes[0].images[0].set_clim(-np.log(100), np.log(100))
    axes[0].images[0].colorbar.set_label("")
    gradlab.draw_decay(log_norms, axes[1])
    axes[0].set(title=f"g = {gain}", xlabel=K, ylabel=ROW)
    axes[1].set(xlabel=LAG, ylabel=NORM, ylim=(-20 * np.log(10), 5 * np.log(10)))
    return figure


gradlab.figures.Slider(draw, [0.5, 1.0, 1.4, 1.8, 2.2, 3.0], label=GAIN, start=1.0)

# %% [markdown] lang="en"
# ## What to remember
#
# 1. The gradient over a lag is a product of as many Jacobians as the lag has steps, so it changes
#    about exponentially with the lag.
# 2. In a large linear network the crossing from vanishing to exploding is at gain 1. Saturation
#    moves it up: with inputs of variance 1 it lay near 1.9 here.
# 3. The longer the lag, the narrower the range of gains that keep the gradient's size.
#
# Next: [7. Clipping and truncation](07_clipping_and_truncation.ipynb), two remedies that are often
# taken for one.

# %% [markdown] lang="es"
# ## Para recordar
#
# 1. El gradiente a través de un retardo es un producto de tantas jacobianas como pasos tiene el
#    retardo; por eso cambia con él de forma aproximadamente exponencial.
# 2. En una red lineal grande, el paso de desvanecerse a explotar está en la ganancia 1. La
#    saturación lo desplaza hacia arriba: aquí, con entradas de varianza 1, estuvo cerca de 1.9.
# 3. Cuanto más largo es el retardo, más estrecho es el intervalo de ganancias que conservan el
#    tamaño del gradiente.
#
# Siguiente: [7. Recorte por umbral y retropropagación truncada](07_clipping_and_truncation.ipynb),
# dos remedios que a menudo se confunden.
