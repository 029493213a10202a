# %% [markdown] lang="en"
# # 7. Clipping and truncation
#
# **Which part of the gradient does clipping take away, and which part truncation?**
#
# Both are often named together, as remedies for gradients. They do different things, and neither
# makes a vanished gradient come back.

# %% [markdown] lang="es"
# # 7. Recorte por umbral y retropropagación truncada
#
# **¿Qué parte del gradiente quita el recorte, y cuál el truncamiento?**
#
# Los dos remedios suelen mencionarse juntos. Hacen cosas distintas, y ninguno recupera un gradiente
# que se ha desvanecido.

# %%
import tempfile

import jax
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

import gradlab

# Colours that colour-blind readers tell apart.
BLUE, ORANGE, GREY = "#0072b2", "#e69f00", "#333333"
n, T = 32, 30
x = jax.random.normal(jax.random.key(0), (T, 4))

# %% lang="en" tags=["hide-cell"]
LAG, TERM = "lag t − k (steps)", "norm of the terms of a lag"
FULL, CLIPPED, TRUNCATED = "full gradient", "clipped, θ = {}", "truncated, K = {}"
THRESHOLD, WINDOW, ANGLE = "threshold θ ÷ ‖g‖", "window K (steps)", "angle to g (degrees)"
KEPT, SIZE = "norm ÷ ‖g‖", "norm"
UPDATE, LOSS, GUESS = "update", "loss ÷ that of a guess", "guessing"
EXPLODING, VANISHING, UNCLIPPED = "gain 3, delay 4", "gain 0.5, delay 15", "no clipping"

# %% lang="es" tags=["hide-cell"]
LAG, TERM = "retardo t − k (pasos)", "norma de los términos\nde un retardo"
FULL, CLIPPED, TRUNCATED = "gradiente completo", "recortado, θ = {}", "truncado, K = {}"
THRESHOLD, WINDOW, ANGLE = "umbral θ ÷ ‖g‖", "ventana K (pasos)", "ángulo con g (grados)"
KEPT, SIZE = "norma ÷ ‖g‖", "norma"
UPDATE, LOSS, GUESS = "actualización", "pérdida ÷ la del azar", "al azar"
EXPLODING, VANISHING, UNCLIPPED = "ganancia 3, retardo 4", "ganancia 0.5, retardo 15", "sin recorte"

# %% [markdown] lang="en"
# ## Two operations
#
# Backpropagation through time is a double sum; we sort its terms by their lag $j = t - k$:
#
# $$
# g = \frac{\partial L}{\partial W} = \sum_{t}\sum_{k \le t} \frac{\partial L^{(t)}}{\partial
# h^{(t)}}\, \frac{\partial h^{(t)}}{\partial h^{(k)}}\, \frac{\partial^{+} h^{(k)}}{\partial W} =
# \sum_{j=0}^{T-1} c_j .
# $$
#
# $\partial^{+}$ is the immediate derivative, with $h^{(k-1)}$ held fixed; $c_j$ is the sum of all
# terms of lag $j$.
#
# | | clipping with threshold $\theta$ | truncation with window $K$ |
# | --- | --- | --- |
# | result | $g \cdot \min(1,\ \theta / \lVert g \rVert)$ | $\sum_{j<K} c_j$ |
# | size | at most $\theta$ | whatever the kept terms give |
# | direction | that of $g$ | in general another one |
# | lags | all, each scaled by the same factor | those below $K$, unchanged |
# | made for | gradients that explode | memory and time |
#
# Here $\lVert g \rVert$ is the norm of the gradient of all weights together. Clipping each entry by
# itself, which libraries also offer, does change the direction. And here every loss looks back over
# $K$ steps. Many training loops instead cut the sequence into chunks of $K$ steps and keep the
# state but no gradient between them; a loss then sees back to the start of its chunk, at most $K$
# steps.

# %% [markdown] lang="es"
# ## Dos operaciones
#
# La retropropagación a través del tiempo es una suma doble; ordenamos sus términos por su retardo
# $j = t - k$:
#
# $$
# g = \frac{\partial L}{\partial W} = \sum_{t}\sum_{k \le t} \frac{\partial L^{(t)}}{\partial
# h^{(t)}}\, \frac{\partial h^{(t)}}{\partial h^{(k)}}\, \frac{\partial^{+} h^{(k)}}{\partial W} =
# \sum_{j=0}^{T-1} c_j .
# $$
#
# $\partial^{+}$ es la derivada inmediata, con $h^{(k-1)}$ fijo; $c_j$ es la suma de todos los
# términos de retardo $j$.
#
# | | recorte con umbral $\theta$ | truncamiento con ventana $K$ |
# | --- | --- | --- |
# | resultado | $g \cdot \min(1,\ \theta / \lVert g \rVert)$ | $\sum_{j<K} c_j$ |
# | tamaño | a lo sumo $\theta$ | el que den los términos que quedan |
# | dirección | la de $g$ | en general, otra |
# | retardos | todos, multiplicados por el mismo factor | los menores que $K$, intactos |
# | sirve para | gradientes que explotan | ahorrar memoria y tiempo |
#
# Aquí $\lVert g \rVert$ es la norma del gradiente de todos los pesos juntos. Recortar cada entrada
# por separado, que las bibliotecas también ofrecen, sí cambia la dirección. Y aquí cada pérdida
# retrocede $K$ pasos. Muchos entrenamientos cortan en cambio la secuencia en trozos de $K$ pasos y
# pasan de uno a otro el estado, pero no el gradiente; una pérdida retrocede entonces hasta el
# comienzo de su trozo, como mucho $K$ pasos.

# %% [markdown] lang="en"
# ## One measured gradient, term by term
#
# A tanh network shall repeat, at every step, the first feature of the input of eight steps ago (0
# in the first eight). `backpropagate` returns the sums $c_j$ for $W_{hh}$. We check that they add
# up to the gradient that JAX computes.

# %% [markdown] lang="es"
# ## Un gradiente medido, término a término
#
# Una red tanh debe repetir en cada paso la primera componente de la entrada de hace ocho pasos (0
# en los ocho primeros). `backpropagate` devuelve las sumas $c_j$ para $W_{hh}$. Comprobamos que su
# suma es el gradiente que calcula JAX.

# %%
readout = jax.random.normal(jax.random.key(1), (n,)) / np.sqrt(n)
targets = jax.numpy.concatenate([np.zeros(8), x[:-8, 0]])


def loss(h, target):
    return (h @ readout - target) ** 2


def network(gain):
    start = nnx.initializers.orthogonal(gain)
    return nnx.SimpleCell(4, n, recurrent_kernel_init=start, rngs=nnx.Rngs(0))


def terms_by_lag(cell, loss=loss, targets=targets):
    terms = gradlab.backpropagate(cell, x, loss, targets)
    return np.asarray(terms.by_lag["dense_h.kernel"]) * np.exp(float(terms.log_scale))


def total_loss(cell):
    states = nnx.RNN(cell)(x[None])[0]
    return jax.vmap(loss)(states, targets).sum()


cell = network(1.6)
c = terms_by_lag(cell)  # (lags, n, n)
g = c.sum(axis=0)
with_jax = nnx.grad(total_loss)(cell).dense_h.kernel[...]
print(f"norm of g: {np.linalg.norm(g):.2f}, farthest from JAX's: {abs(g - with_jax).max():.1e}")

# %% [markdown] lang="en"
# ## Before, clipped, truncated
#
# Threshold $\theta = 20$, window $K = 5$.

# %% [markdown] lang="es"
# ## Antes, recortado, truncado
#
# Umbral $\theta = 20$, ventana $K = 5$.


# %% name="terms"
def clip(c, threshold):
    return c * min(1, threshold / np.linalg.norm(c.sum(axis=0)))


def truncate(c, window):
    return np.where(np.arange(len(c))[:, None, None] < window, c, 0)


def angle(a, b):  # degrees
    cosine = np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b))
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def draw_terms(threshold, window):
    versions = {FULL: c, CLIPPED.format(threshold): clip(c, threshold)}
    versions[TRUNCATED.format(window)] = truncate(c, window)
    figure, axes = plt.subplots(1, 3, figsize=(7, 2.8), sharey=True, layout="constrained")
    for ax, (name, terms), colour in zip(axes, versions.items(), [GREY, BLUE, ORANGE], strict=True):
        ax.bar(range(T), [np.linalg.norm(c_j) for c_j in terms], color=colour)
        total = terms.sum(axis=0)
        ax.set(title=f"{name}\n{SIZE} {np.linalg.norm(total):.1f}, {angle(total, g):.0f}°")
        ax.set(xlabel=LAG)
    axes[0].set(ylabel=TERM)
    return figure


figure = draw_terms(20, 5)
plt.show()

# %% [markdown] lang="en"
# Clipping has scaled every bar by the same factor, and the angle to $g$ is 0. Truncation has left
# the first five bars as they were and removed the others; the gradient points in another direction.
#
# **Question.** May the truncated gradient be longer than the full one?
#
# <details>
# <summary>Answer</summary>
#
# Yes. The terms are vectors and may cancel: if $c_{10}$ points against $c_0$, leaving it out makes
# the sum longer. Truncation is no bound on the size. The next figure has the norm for each window.
#
# </details>

# %% [markdown] lang="es"
# El recorte ha multiplicado todas las barras por el mismo factor y el ángulo con $g$ es 0. El
# truncamiento ha dejado las cinco primeras barras como estaban y ha quitado las demás; el gradiente
# apunta en otra dirección.
#
# **Pregunta.** ¿Puede el gradiente truncado ser más largo que el completo?
#
# <details>
# <summary>Respuesta</summary>
#
# Sí. Los términos son vectores y pueden cancelarse: si $c_{10}$ apunta en contra de $c_0$, quitarlo
# alarga la suma. El truncamiento no acota el tamaño. La figura siguiente muestra la norma para cada
# ventana.
#
# </details>

# %% [markdown] lang="en"
# ## Size and direction
#
# For each threshold and each window we measure what becomes of the size and of the direction.
# `gradlab.truncation(c)` computes the cosine for all windows at once.

# %% [markdown] lang="es"
# ## Tamaño y dirección
#
# Medimos, para cada umbral y cada ventana, qué ocurre con el tamaño y con la dirección.
# `gradlab.truncation(c)` calcula el coseno de todas las ventanas a la vez.

# %% name="angles"
fractions, windows = np.linspace(0.05, 1.5, 30), np.arange(1, T + 1)
clipped = [clip(c, f * np.linalg.norm(g)).sum(axis=0) for f in fractions]
truncated = [truncate(c, K).sum(axis=0) for K in windows]
cosines = np.cos(np.radians([angle(v, g) for v in truncated]))
print(f"largest difference of cosines: {abs(cosines - gradlab.truncation(c).cosine).max():.0e}")
figure, axes = plt.subplots(2, 2, figsize=(7, 3.8), sharex="col", layout="constrained")
sides = [(fractions, clipped, BLUE, THRESHOLD), (windows, truncated, ORANGE, WINDOW)]
for (top, bottom), (values, kept, colour, label) in zip(axes.T, sides, strict=True):
    top.plot(values, [np.linalg.norm(v) / np.linalg.norm(g) for v in kept], color=colour)
    bottom.plot(values, [angle(v, g) for v in kept], color=colour)
    top.set(ylim=(0, 1.3))
    bottom.set(ylim=(-3, 90), xlabel=label)
axes[0, 0].set(ylabel=KEPT)
axes[1, 0].set(ylabel=ANGLE)
plt.show()

# %% [markdown] lang="en"
# ## Gradients that vanish: nothing to scale up
#
# Now only the last step has a loss, and the answer lies 20 steps back. With gain 0.5 the gradient
# vanishes on the way. `gradlab.credit` gives each lag's share of the gradient, which sums to 1. We
# compare the share of lags of 10 or more before and after clipping to a tenth of the norm.

# %% [markdown] lang="es"
# ## Gradientes que se desvanecen: no queda nada que agrandar
#
# Ahora solo el último paso tiene pérdida, y la respuesta está 20 pasos atrás. Con ganancia 0.5 el
# gradiente se desvanece por el camino. `gradlab.credit` da la parte de cada retardo en el
# gradiente; las partes suman 1. Comparamos la de los retardos de 10 o más antes y después de
# recortar a una décima parte de la norma.

# %%
is_last = jax.numpy.arange(T) == T - 1
last = (jax.numpy.full(T, x[T - 21, 0]), is_last)  # target and weight of each step


def last_loss(h, target):
    return target[1] * loss(h, target[0])


for gain in [0.5, 1.0, 2.5]:
    late = terms_by_lag(network(gain), last_loss, last)
    norm = np.linalg.norm(late.sum(axis=0))
    versions = {"share": late, "clipped": clip(late, norm / 10), "K = 10": truncate(late, 10)}
    shares = {name: gradlab.credit(v).share[10:].sum() for name, v in versions.items()}
    print(f"gain {gain}: norm {norm:.2g};", *(f"{k} {v:.3g}" for k, v in shares.items()))

# %% [markdown] lang="en"
# The share stays the same, whatever it is: the factor $\min(1, \theta/\lVert g \rVert)$ is common
# to all lags, and it is never above 1.
#
# **Question.** Would it help to scale small gradients **up** to a norm of $\theta$?
#
# <details>
# <summary>Answer</summary>
#
# It would change the size of the update, as a larger learning rate does (Adam does about that). The
# share of the long lags would stay as small as it is: the update would still be made of short lags.
# What helps is a Jacobian that shrinks less: another start, or another architecture (section 8).
#
# </details>

# %% [markdown] lang="es"
# La parte no cambia, sea cual sea: el factor $\min(1, \theta/\lVert g \rVert)$ es común a todos los
# retardos y nunca supera 1.
#
# **Pregunta.** ¿Serviría **agrandar** los gradientes pequeños hasta una norma $\theta$?
#
# <details>
# <summary>Respuesta</summary>
#
# Cambiaría el tamaño de la actualización, como una tasa de aprendizaje mayor (Adam hace algo
# parecido). La parte de los retardos largos seguiría siendo igual de pequeña: la actualización se
# compondría de retardos cortos. Lo que ayuda es una jacobiana que encoja menos: otra inicialización
# u otra arquitectura (sección 8).
#
# </details>

# %% [markdown] lang="en"
# ## Training with and without a threshold
#
# Two tasks of repeating a bit after a delay, plain gradient descent and three thresholds. With the
# start on the left the gradient explodes (gain 3, a delay of 4 steps, learning rate 1, four seeds);
# with that on the right it vanishes (gain 0.5, a delay of 15 steps, learning rate 0.1, one seed).

# %% [markdown] lang="es"
# ## Entrenar con umbral y sin él
#
# Dos tareas de repetir un bit tras un retardo, con descenso por gradiente simple y tres umbrales.
# Con la inicialización de la izquierda el gradiente explota (ganancia 3, retardo de 4 pasos, tasa
# de aprendizaje 1, cuatro semillas); con la de la derecha se desvanece (ganancia 0.5, retardo de 15
# pasos, tasa de aprendizaje 0.1, una semilla).


# %% tags=["hide-output"]
def train(gain, delay, rate, seeds):
    return gradlab.sweep(
        model="rnn",
        task="echo",
        clip="global_norm",
        optim="sgd",
        wandb="disabled",
        folder=tempfile.mkdtemp() + "/sweep",
        seed=range(seeds),
        **{"task.length": 20, "task.delay": delay, "init.gain": gain, "train.steps": 400},
        **{"clip.threshold": [0.1, 1, np.inf], "optim.learning_rate": rate},
        **{"model.hidden_size": 32, "task.test_size": 500, "probe": ()},
    )


runs = {EXPLODING: train(3, 4, 1.0, seeds=4), VANISHING: train(0.5, 15, 0.1, seeds=1)}

# %% name="training"
figure, axes = plt.subplots(1, 2, figsize=(7, 3), sharey=True, layout="constrained")
looks = {0.1: (BLUE, ":"), 1.0: (ORANGE, "-"), np.inf: (GREY, "--")}
for ax, (title, table) in zip(axes, runs.items(), strict=True):
    for path, threshold in zip(table["path"], table["clip.threshold"], strict=True):
        course = gradlab.load_metrics(path).dropna(subset=["train/loss"])
        colour, dash = looks[threshold]
        label = UNCLIPPED if np.isinf(threshold) else f"θ = {threshold:g}"
        ax.plot(
            course["train/step"], course["train/loss"] / np.log(2), dash, color=colour, label=label
        )
    ax.axhline(1, color="0.6", linewidth=0.8)
    ax.set(title=title, xlabel=UPDATE, yscale="log")
axes[0].set(ylabel=LOSS)
handles, labels = axes[1].get_legend_handles_labels()
unique = dict(zip(labels, handles, strict=True))
axes[1].legend(unique.values(), unique.keys())
plt.show()

# %%
for title, table in runs.items():
    table["solved"] = table["eval/error_rate"] < 0.01
    columns = ["eval/loss", "eval/accuracy", "solved"]
    print(title, table.groupby("clip.threshold")[columns].mean().round(3), sep="\n", end="\n\n")

# %% [markdown] lang="en"
# Left: without clipping no network learns; their losses end at about ten times that of a guess.
# With $\theta = 1$ two of four solve the task. With $\theta = 0.1$ none does within 400 updates,
# but all get nine bits in ten right and still improve: small updates are slow. Training at gain 3
# is chaotic, so the numbers change a little from one machine to another.
#
# Right: at every threshold the loss stays at that of a guess.
#
# **Question.** A colleague's loss does not fall, and the gradient's norm is always below the
# threshold. Does a smaller threshold help?
#
# <details>
# <summary>Answer</summary>
#
# No. A smaller threshold can only make updates smaller. First measure which lags the gradient comes
# from, as above.
#
# </details>

# %% [markdown] lang="es"
# A la izquierda, sin recorte no aprende ninguna red: la pérdida termina en unas diez veces la del
# azar. Con $\theta = 1$ dos de las cuatro resuelven la tarea. Con $\theta = 0.1$ no la resuelve
# ninguna en 400 actualizaciones, pero todas aciertan nueve de cada diez bits y siguen mejorando:
# con actualizaciones pequeñas se avanza despacio. El entrenamiento con ganancia 3 es caótico, de
# modo que los números cambian un poco de una máquina a otra.
#
# A la derecha, con todos los umbrales la pérdida se queda en la del azar.
#
# **Pregunta.** La pérdida de la red de una compañera no baja, y la norma del gradiente está siempre
# por debajo del umbral. ¿Ayuda un umbral menor?
#
# <details>
# <summary>Respuesta</summary>
#
# No. Un umbral menor solo puede hacer más pequeñas las actualizaciones. Primero hay que medir de
# qué retardos procede el gradiente, como más arriba.
#
# </details>

# %% [markdown] lang="en"
# ## Try it: the threshold
#
# The same gradient as before; the window stays at 5.

# %% [markdown] lang="es"
# ## Para probar: el umbral
#
# El mismo gradiente de antes; la ventana queda en 5.

# %%
gradlab.figures.Slider(lambda θ: draw_terms(θ, 5), [5, 10, 20, 40, 80], label="θ", start=20)

# %% [markdown] lang="en"
# ## Try it: the window
#
# Now the threshold stays at 20.

# %% [markdown] lang="es"
# ## Para probar: la ventana
#
# Ahora el umbral queda en 20.

# %%
gradlab.figures.Slider(lambda K: draw_terms(20, K), [1, 3, 5, 8, 15, 30], label="K", start=5)

# %% [markdown] lang="en"
# ## What to remember
#
# 1. Clipping bounds the size. It keeps the direction and every lag's share.
# 2. Truncation drops the lags from $K$ on. It changes the direction, and does not bound the size.
# 3. Clipping helps against gradients that explode. Against gradients that vanish neither helps:
#    what is not there cannot be kept.
#
# Next: [8. The gates of the LSTM](08_gates.ipynb), an architecture whose gradient need not shrink.

# %% [markdown] lang="es"
# ## Para recordar
#
# 1. El recorte acota el tamaño. Conserva la dirección y la parte de cada retardo.
# 2. El truncamiento quita los retardos a partir de $K$. Cambia la dirección y no acota el tamaño.
# 3. El recorte sirve contra los gradientes que explotan. Contra los que se desvanecen no sirve
#    ninguno de los dos: no se puede conservar lo que no está.
#
# Siguiente: [8. Las compuertas de la LSTM](08_gates.ipynb), una arquitectura cuyo gradiente no
# tiene por qué encogerse.
