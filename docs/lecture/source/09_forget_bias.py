# %% [markdown] lang="en"
# # 9. The forget bias
#
# **How far does an LSTM reach before it has learnt anything, and how much of that is one number?**
#
# One often reads that the LSTM solves the problem of vanishing gradients. Whether it does so at the
# start of training depends on the bias $b_f$ of its forget gate.

# %% [markdown] lang="es"
# # 9. El sesgo de olvido
#
# **¿Hasta dónde llega una LSTM antes de aprender nada, y cuánto de eso depende de un solo número?**
#
# A menudo se lee que la LSTM resuelve el problema de los gradientes que se desvanecen. Que lo haga
# al comienzo del entrenamiento depende del sesgo $b_f$ de su compuerta de olvido.

# %%
import tempfile

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from flax import nnx

import gradlab

# Colours that colour-blind readers tell apart.
BLUE, ORANGE, GREY, PINK = "#0072b2", "#e69f00", "#333333", "#cc79a7"
plt.rcParams["axes.prop_cycle"] = plt.cycler(color=[BLUE, ORANGE, GREY, PINK])
LOOKS = {0: (ORANGE, "-"), 1: (GREY, "-."), 3: (PINK, ":")}  # by forget bias
n, T = 32, 60
x = jax.random.normal(jax.random.key(0), (T, 4))


def lstm(forget_bias, seed=0, input_bias=0.0, **weights):
    cell = nnx.OptimizedLSTMCell(4, n, rngs=nnx.Rngs(seed), **weights)
    biases = np.zeros((4, n))  # of i, f, g, o
    biases[0], biases[1] = input_bias, forget_bias
    cell.dense_h.bias[...] = jax.numpy.asarray(biases.ravel(), dtype="float32")
    return cell


def log_norms(cell, part, inputs=x):
    return np.asarray(gradlab.jacobian_log_norms(cell, inputs, of=part, wrt=part))


# %% lang="en" tags=["hide-cell"]
LAG, NORM, BIAS = "lag t − k (steps)", "mean norm", "forget bias $b_f$"
K_STEPS, T_STEPS = "k (steps)", "t (steps)"
RATE, MEASURED, ALONE = "decay rate (decades per step)", "measured", "log₁₀ σ($b_f$)"
REACH = "horizon (steps)"
TANH, LSTM_AT, CHRONO = "tanh RNN, orthogonal", "LSTM, $b_f$ = {}", "LSTM, chrono"
BIG, SMALL = "inputs x", "inputs 0.3 x"
UPDATE, LOSS = "update", "loss ÷ that of a guess"

# %% lang="es" tags=["hide-cell"]
LAG, NORM, BIAS = "retardo t − k (pasos)", "norma media", "sesgo de olvido $b_f$"
K_STEPS, T_STEPS = "k (pasos)", "t (pasos)"
RATE, MEASURED, ALONE = "tasa (décadas por paso)", "medida", "log₁₀ σ($b_f$)"
REACH = "horizonte (pasos)"
TANH, LSTM_AT, CHRONO = "RNN tanh, ortogonal", "LSTM, $b_f$ = {}", "LSTM, chrono"
BIG, SMALL = "entradas x", "entradas 0.3 x"
UPDATE, LOSS = "actualización", "pérdida ÷ la del azar"

# %% [markdown] lang="en"
# ## A gate at rest
#
# At the start the forget gate is $f = \sigma(W_f x + U_f h + b_f)$ with random weights; it moves
# around $\sigma(b_f)$. Along the cell path the gradient is multiplied by $f$ at every step. If the
# weights were zero,
#
# $$\frac{\partial c^{(t)}}{\partial c^{(k)}} = \sigma(b_f)^{\,t-k}\, I .$$
#
# With $b_f = 0$ the gate is at ½: **the cell state is halved at every step**. We check the formula
# on cells whose weights are zero, and list what it says for a lag of 20.

# %% [markdown] lang="es"
# ## Una compuerta en reposo
#
# Al comienzo, la compuerta de olvido es $f = \sigma(W_f x + U_f h + b_f)$ con pesos aleatorios y se
# mueve alrededor de $\sigma(b_f)$. En el camino por la celda el gradiente se multiplica por $f$ en
# cada paso. Si los pesos fueran cero,
#
# $$\frac{\partial c^{(t)}}{\partial c^{(k)}} = \sigma(b_f)^{\,t-k}\, I .$$
#
# Con $b_f = 0$ la compuerta está en ½: **el estado de celda se reduce a la mitad en cada paso**.
# Comprobamos la fórmula con celdas de pesos nulos y vemos qué dice para un retardo de 20.


# %%
def sigmoid(u):
    return 1 / (1 + np.exp(-np.asarray(u, dtype=float)))


zeros = nnx.initializers.zeros
for b in [-2, 0, 1, 3, 6]:
    cell = lstm(b, kernel_init=zeros, recurrent_kernel_init=zeros)
    measured = np.exp(log_norms(cell, "c")[20, 0])
    gate = sigmoid(b)
    print(f"b_f = {b:2}: σ = {gate:.3f}, at lag 20 {measured:.3g}, σ²⁰ = {gate**20:.3g}")

# %% [markdown] lang="en"
# **Question.** Which forget bias lets half of the gradient through over 100 steps of the cell path?
#
# <details>
# <summary>Answer</summary>
#
# $\sigma(b_f)^{100} = \tfrac12$ gives $\sigma(b_f) = 2^{-1/100} \approx 0.9931$ and
# $b_f = \ln \frac{0.9931}{0.0069} \approx 5.0$. For large $b_f$ the gate falls short of 1 by about
# $e^{-b_f}$, so the memory lasts about $e^{b_f}$ steps.
#
# </details>

# %% [markdown] lang="es"
# **Pregunta.** ¿Con qué sesgo de olvido queda la mitad del gradiente tras 100 pasos del camino por
# la celda?
#
# <details>
# <summary>Respuesta</summary>
#
# De $\sigma(b_f)^{100} = \tfrac12$ se obtiene $\sigma(b_f) = 2^{-1/100} \approx 0.9931$ y
# $b_f = \ln \frac{0.9931}{0.0069} \approx 5.0$. Si $b_f$ es grande, a la compuerta le falta
# alrededor de $e^{-b_f}$ para llegar a 1, de modo que la memoria dura unos $e^{b_f}$ pasos.
#
# </details>

# %% [markdown] lang="en"
# ## Measured, with random weights
#
# Now the weights are those that Flax draws (orthogonal on $h$), two seeds, inputs of variance 1.
# We measure the decay rate and the horizon of $\partial c^{(t)}/\partial c^{(k)}$.

# %% [markdown] lang="es"
# ## La medición, con pesos aleatorios
#
# Ahora los pesos son los que genera Flax (ortogonales los que multiplican a $h$), con dos semillas
# y entradas de varianza 1. Medimos la tasa de decaimiento y el horizonte de
# $\partial c^{(t)}/\partial c^{(k)}$.

# %% name="rates"
biases = np.array([-2, -1, 0, 1, 2, 3, 4, 6])
profiles = np.array(
    [[gradlab.lag_profile(log_norms(lstm(b, s), "c")) for s in range(2)] for b in biases]
)  # [bias, seed, lag]
rates = np.apply_along_axis(gradlab.decay_rate, -1, profiles) / np.log(10)
horizons = np.apply_along_axis(gradlab.horizon, -1, profiles).mean(axis=1)
figure, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
axes[0].plot(biases, rates.mean(axis=1), marker="o", label=MEASURED)
axes[0].fill_between(biases, rates.min(axis=1), rates.max(axis=1), alpha=0.2)
axes[0].plot(biases, np.log10(sigmoid(biases)), "--", label=ALONE)
axes[0].axhline(0, color="0.6", linewidth=0.8)
axes[0].set(xlabel=BIAS, ylabel=RATE)
axes[0].legend(loc="lower right")
axes[1].plot(biases, horizons, marker="o")
axes[1].plot(biases, -1 / np.log(sigmoid(biases)), "--")
axes[1].set(xlabel=BIAS, ylabel=REACH, xlim=axes[0].get_xlim(), ylim=(0.3, T), yscale="log")
print({int(b): round(float(h), 1) for b, h in zip(biases, horizons, strict=True)})
plt.show()

# %% [markdown] lang="en"
# The dashed lines are the formula of the cell path alone. The measured rate lies above it: by three
# tenths of a decade a step at $b_f = -2$, by a few hundredths at 1 and 2. The gates move with the
# input, and the norm is that of the direction that is forgotten least. From 4 on the rate is
# positive: what is hardly forgotten feeds back through $h$ and the gates, and the gradient grows.
# (A horizon of inf says that the mean norm does not fall to $1/e$ within 60 steps; it is not
# drawn.)
#
# **Question.** Then why not start every LSTM with a forget bias of 6?
#
# <details>
# <summary>Answer</summary>
#
# The cell state would add up everything it reads for some $e^6 \approx 400$ steps, noise too, and
# its gradients grow here. How long the memory should be depends on the task; section "Time scales
# of the task" below has a start that gives each unit a length of its own.
#
# </details>

# %% [markdown] lang="es"
# Las líneas discontinuas son la fórmula del camino por la celda, por sí solo. La tasa medida queda
# por encima: tres décimas de década por paso con $b_f = -2$; unas centésimas con 1 y con 2. Las
# compuertas se mueven con la entrada, y la norma es la de la dirección que menos se olvida. A
# partir de 4 la tasa es positiva: lo que apenas se olvida vuelve a entrar por $h$ y las compuertas,
# y el gradiente crece. (Un horizonte inf indica que la norma media no cae a $1/e$ en 60 pasos; no
# se dibuja.)
#
# **Pregunta.** Entonces, ¿por qué no empezar siempre con un sesgo de olvido de 6?
#
# <details>
# <summary>Respuesta</summary>
#
# El estado de celda acumularía todo lo que lee durante unos $e^6 \approx 400$ pasos, también el
# ruido, y aquí sus gradientes crecen. Cuánto debe durar la memoria depende de la tarea; el apartado
# «Escalas de tiempo de la tarea», más abajo, muestra una inicialización que da a cada unidad una
# duración distinta.
#
# </details>

# %% [markdown] lang="en"
# ## An LSTM against a tanh network
#
# A tanh RNN whose $W_{hh}$ starts orthogonal, and LSTMs of three forget biases: who reaches farther
# before training? For the LSTM we take its better half, $\partial c/\partial c$.

# %% [markdown] lang="es"
# ## Una LSTM frente a una red tanh
#
# Una RNN tanh con $W_{hh}$ ortogonal al comienzo, y varias LSTM con tres sesgos de olvido: ¿cuál
# llega más lejos antes de entrenar? De la LSTM tomamos su mejor mitad, $\partial c/\partial c$.

# %% name="against_rnn"
orthogonal = nnx.initializers.orthogonal()
rnn = nnx.SimpleCell(4, n, recurrent_kernel_init=orthogonal, rngs=nnx.Rngs(0))
figure, axes = plt.subplots(1, 2, figsize=(7, 3.8), sharey=True, layout="constrained")
rows = []
for ax, size, title in zip(axes, [1.0, 0.3], [BIG, SMALL], strict=True):
    maps = {TANH: log_norms(rnn, "h", size * x)}
    maps |= {LSTM_AT.format(b): log_norms(lstm(b), "c", size * x) for b in (0, 1, 3)}
    looks = [(BLUE, "--"), *LOOKS.values()]
    for (name, log_norm), (colour, dash) in zip(maps.items(), looks, strict=True):
        profile = gradlab.lag_profile(log_norm)
        ax.plot(profile / np.log(10), dash, color=colour, label=name)
        rate = gradlab.decay_rate(profile) / np.log(10)
        rows.append((title, name.replace("$", ""), rate, gradlab.horizon(profile)))
    ax.set(title=title, xlabel=LAG)
    ax.yaxis.set_major_formatter("$10^{{{x:.0f}}}$")
axes[0].set(ylabel=NORM)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
plt.show()

# %%
pd.DataFrame(rows, columns=["", "", RATE, REACH]).round(3)

# %% [markdown] lang="en"
# With $b_f = 0$ the LSTM forgets **sooner** than the tanh network, at both sizes of the inputs.
# With $b_f = 1$ it reaches farther where the inputs saturate the tanh, and a little less far where
# they do not saturate it. With $b_f = 3$ the gradient does not vanish within 60 steps.
#
# **Question.** Does this show that LSTMs with $b_f = 0$ are useless?
#
# <details>
# <summary>Answer</summary>
#
# No. These are gradients before training. Training may open the gates, if the task gives it a
# gradient to do so with. Short lags do, and may lead on to longer ones; a task whose shortest lag
# is long gives next to nothing. The measurement below tries one.
#
# </details>

# %% [markdown] lang="es"
# Con $b_f = 0$ la LSTM olvida **antes** que la red tanh, con entradas de ambos tamaños. Con
# $b_f = 1$ llega más lejos donde las entradas saturan la tanh, y un poco menos donde no la saturan.
# Con $b_f = 3$ el gradiente no se desvanece en 60 pasos.
#
# **Pregunta.** ¿Demuestra esto que las LSTM con $b_f = 0$ no sirven?
#
# <details>
# <summary>Respuesta</summary>
#
# No. Son gradientes de antes de entrenar. El entrenamiento puede abrir las compuertas si la tarea
# le da un gradiente con que hacerlo. Los retardos cortos se lo dan y pueden llevar a otros más
# largos; una tarea cuyo retardo mínimo es largo no da casi nada. La medición siguiente prueba una.
#
# </details>

# %% [markdown] lang="en"
# ## What training makes of it
#
# The task is to repeat a bit 20 steps later. Adam, learning rate 0.01, 300 updates, two seeds.

# %% [markdown] lang="es"
# ## Qué cambia con el entrenamiento
#
# La tarea es repetir un bit 20 pasos después. Adam, tasa de aprendizaje 0.01, 300 actualizaciones,
# dos semillas.

# %% tags=["hide-output"]
runs = gradlab.sweep(
    model="lstm",
    bias="forget",
    task="echo",
    wandb="disabled",
    folder=tempfile.mkdtemp() + "/sweep",
    seed=range(2),
    probe=(),
    **{"model.hidden_size": 32, "bias.value": [0, 1, 3], "optim.learning_rate": 0.01},
    **{"task.length": 30, "task.delay": 20, "task.test_size": 200},
    **{"train.steps": 300},
)

# %% name="training"
figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for path, b, seed in zip(runs["path"], runs["bias.value"], runs["seed"], strict=True):
    course = gradlab.load_metrics(path).dropna(subset=["train/loss"])
    colour, dash = LOOKS[int(b)]
    label = LSTM_AT.format(int(b)) if seed == 0 else None
    loss = course["train/loss"] / np.log(2)
    ax.plot(course["train/step"], loss, dash, color=colour, label=label)
ax.set(xlabel=UPDATE, ylabel=LOSS)
ax.legend()
plt.show()

# %%
runs.groupby("bias.value")[["eval/loss", "eval/accuracy"]].mean().round(3)

# %% [markdown] lang="en"
# With $b_f = 0$ the networks stay at guessing for all 300 updates. With 1 and 3 they get seven bits
# in ten right, and their loss is about 20 % below that of a guess. The task is the same for all;
# the start alone differs.

# %% [markdown] lang="es"
# Con $b_f = 0$ las redes no superan el azar durante las 300 actualizaciones. Con 1 y con 3 aciertan
# siete de cada diez bits, y su pérdida es alrededor de un 20 % menor que la del azar. La tarea es
# la misma para todas; solo cambia la inicialización.

# %% [markdown] lang="en"
# ## Which default does your library have?
#
# | library | forget bias at the start |
# | --- | --- |
# | Flax (`nnx.OptimizedLSTMCell`) | 0 |
# | PyTorch (`torch.nn.LSTM`) | two biases are added, each uniform in $\pm 1/\sqrt{n}$: mean 0 |
# | Keras (`keras.layers.LSTM`) | 1 (`unit_forget_bias=True`) |
# | Haiku (`haiku.LSTM`) | 1: it computes $\sigma(\cdot + 1)$ |
#
# (Flax 0.12, PyTorch 2.13 and Keras 3.15 as installed; Haiku as in its source.) The same line of a
# paper, "an LSTM of 128 units", is therefore not the same network in all of them. Jozefowicz,
# Zaremba & Sutskever (2015) recommend 1. **gradlab's default is 0**, Flax's own start;
# `bias=forget bias.value=1` sets it ([why](../../decisions.md)).

# %% [markdown] lang="es"
# ## ¿Qué valor por defecto tiene cada biblioteca?
#
# | biblioteca | sesgo de olvido inicial |
# | --- | --- |
# | Flax (`nnx.OptimizedLSTMCell`) | 0 |
# | PyTorch (`torch.nn.LSTM`) | suma de dos sesgos uniformes en $\pm 1/\sqrt{n}$: media 0 |
# | Keras (`keras.layers.LSTM`) | 1 (`unit_forget_bias=True`) |
# | Haiku (`haiku.LSTM`) | 1: calcula $\sigma(\cdot + 1)$ |
#
# (Flax 0.12, PyTorch 2.13 y Keras 3.15 tal como se instalan; Haiku según su código.) La misma frase
# de un artículo, «una LSTM de 128 unidades», no designa por tanto la misma red en todas.
# Jozefowicz, Zaremba y Sutskever (2015) recomiendan 1. **El valor por defecto de gradlab es 0**, la
# inicialización del propio Flax; con `bias=forget bias.value=1` se cambia ([por
# qué](../../decisions.md)).

# %%
fresh = nnx.OptimizedLSTMCell(4, n, rngs=nnx.Rngs(0)).dense_h.bias[...]
print("Flax, b_f:", set(np.asarray(fresh[n : 2 * n]).tolist()))

# %% [markdown] lang="en"
# ## Time scales of the task
#
# A unit whose gate is at $1 - 1/\tau$ remembers for about $\tau$ steps. The chrono initialisation
# (Tallec & Ollivier, 2018) gives each unit a time scale of its own, up to the longest lag
# $T_{\max}$ that is to be kept:
#
# $$b_f = \ln u, \quad u \sim U(1, T_{\max} - 1), \qquad b_i = -b_f ,$$
#
# since $\sigma(\ln u) = 1 - \frac{1}{1+u}$. It needs one number that one often knows: how long the
# lags are. Below $T_{\max} = 60$, the length of the sequence.

# %% [markdown] lang="es"
# ## Escalas de tiempo de la tarea
#
# Una unidad cuya compuerta está en $1 - 1/\tau$ recuerda durante unos $\tau$ pasos. La
# inicialización chrono (Tallec y Ollivier, 2018) da a cada unidad una escala de tiempo propia,
# hasta el mayor retardo $T_{\max}$ que se quiere conservar:
#
# $$b_f = \ln u, \quad u \sim U(1, T_{\max} - 1), \qquad b_i = -b_f ,$$
#
# ya que $\sigma(\ln u) = 1 - \frac{1}{1+u}$. Requiere un número que a menudo se conoce: cuán largos
# son los retardos. Aquí abajo $T_{\max} = 60$, la longitud de la secuencia.

# %% name="chrono"
u = np.random.default_rng(0).uniform(1, T - 1, n)
starts = {LSTM_AT.format(b): lstm(b) for b in (0, 1, 3)}
starts[CHRONO] = lstm(np.log(u), input_bias=-np.log(u))
figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
looks = [*LOOKS.values(), (BLUE, "--")]
for (name, cell), (colour, dash) in zip(starts.items(), looks, strict=True):
    of_c = log_norms(cell, "c")
    gradlab.draw_decay(of_c, ax, color=colour, linestyle=dash, label=name)
    decades = of_c[T, 0] / np.log(10)
    print(f"{name.replace('$', '')}: 10^{decades:.1f} over {T} steps")
ax.set(xlabel=LAG, ylabel=NORM)
plt.show()

# %% [markdown] lang="en"
# ## Try it: the forget bias

# %% [markdown] lang="es"
# ## Para probar: el sesgo de olvido


# %% name="slider"
def draw(b):
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
    maps = {part: log_norms(lstm(b), part) for part in "ch"}
    gradlab.draw_map(maps["c"], axes[0])
    axes[0].images[0].set_clim(-np.log(100), np.log(100))
    axes[0].images[0].colorbar.set_label("")
    axes[0].set(title=f"∂c⁽ᵗ⁾/∂c⁽ᵏ⁾, $b_f$ = {b}", xlabel=K_STEPS, ylabel=T_STEPS)
    for part, dash in [("c", "-"), ("h", "--")]:
        profile = gradlab.lag_profile(maps[part]) / np.log(10)
        axes[1].plot(profile, dash, label=f"∂{part}⁽ᵗ⁾/∂{part}⁽ᵏ⁾")
    axes[1].plot(np.arange(T + 1) * np.log10(sigmoid(b)), ":", label="$σ(b_f)^{t-k}$")
    axes[1].set(xlabel=LAG, ylabel=NORM, ylim=(-20, 3))
    axes[1].yaxis.set_major_formatter("$10^{{{x:.0f}}}$")
    axes[1].legend(loc="lower left")
    return figure


gradlab.figures.Slider(draw, [-2, 0, 1, 2, 3, 6], label="b_f", start=0)

# %% [markdown] lang="en"
# ## What to remember
#
# 1. With $b_f = 0$ the cell state is halved at every step: such an LSTM starts with a shorter reach
#    than an orthogonal tanh network.
# 2. The decay rate at the start rises with $b_f$ about as $\log \sigma(b_f)$ does; from about 4 on
#    the other paths made the gradient grow here.
# 3. Say which forget bias you used. Libraries differ.
#
# Next: [10. Exercises](10_exercises.ipynb).

# %% [markdown] lang="es"
# ## Para recordar
#
# 1. Con $b_f = 0$ el estado de celda se reduce a la mitad en cada paso: una LSTM así llega, al
#    comienzo, menos lejos que una red tanh ortogonal.
# 2. La tasa de decaimiento inicial crece con $b_f$ más o menos como $\log \sigma(b_f)$; a partir de
#    4, aproximadamente, aquí los otros caminos hicieron crecer el gradiente.
# 3. Conviene decir qué sesgo de olvido se ha usado: las bibliotecas difieren.
#
# Siguiente: [10. Ejercicios](10_exercises.ipynb).
