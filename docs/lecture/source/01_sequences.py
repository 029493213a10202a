# %% [markdown] lang="en"
# # 1. Sequences
#
# **Which tasks have sequences as input or output, and at which steps is the loss due?**
#
# A sequence is a list of vectors in order, $x^{(1)}, x^{(2)}, \dots, x^{(T)}$. The index $t$ is
# the step. A recurrent network reads one vector a step, keeps a hidden state $h^{(t)}$, and may
# answer with $y^{(t)}$:
#
# $$h^{(t)} = f\big(x^{(t)}, h^{(t-1)}\big), \qquad y^{(t)} = W_{hy}\, h^{(t)} + b_y.$$
#
# The function $f$ and its weights are the same at every step. Hence one network reads sequences of
# any length.

# %% [markdown] lang="es"
# # 1. Secuencias
#
# **¿En qué tareas la entrada o la salida es una secuencia, y en qué pasos se evalúa la pérdida?**
#
# Una secuencia es una lista ordenada de vectores, $x^{(1)}, x^{(2)}, \dots, x^{(T)}$. El índice
# $t$ es el paso. Una red recurrente lee un vector en cada paso, mantiene un estado oculto
# $h^{(t)}$ y puede responder con $y^{(t)}$:
#
# $$h^{(t)} = f\big(x^{(t)}, h^{(t-1)}\big), \qquad y^{(t)} = W_{hy}\, h^{(t)} + b_y.$$
#
# La función $f$ y sus pesos son los mismos en todos los pasos. Por eso una misma red lee
# secuencias de cualquier longitud.

# %%
import tempfile

import jax
import matplotlib.pyplot as plt
import pandas as pd

import gradlab
from gradlab.tasks.copying import copying
from gradlab.tasks.cue import cue
from gradlab.tasks.echo import echo
from gradlab.tasks.temporal_order import temporal_order

# %% [markdown] lang="en"
# ## Four kinds of task
#
# The kinds differ in the steps that read an input and in the steps that answer. Each column below
# is a step: the input $x^{(t)}$ below, the state $h^{(t)}$ in the middle, the answer $y^{(t)}$
# above.

# %% [markdown] lang="es"
# ## Cuatro tipos de tarea
#
# Los tipos se distinguen por los pasos que leen una entrada y por los pasos que responden. Cada
# columna de la figura es un paso: la entrada $x^{(t)}$ abajo, el estado $h^{(t)}$ en el centro y
# la respuesta $y^{(t)}$ arriba.

# %% lang="en" tags=["hide-cell"]
KINDS = [
    "many-to-one",
    "one-to-many",
    "many-to-many, synchronised",
    "many-to-many, delayed",
]

# %% lang="es" tags=["hide-cell"]
KINDS = [
    "muchos a uno",
    "uno a muchos",
    "muchos a muchos, sincronizada",
    "muchos a muchos, con retardo",
]

# %% name="kinds"
COLOURS = {"x": "#cfe3f3", "h": "#e4e4e4", "y": "#fbe3b5"}
# Of each kind the steps that read and those that answer.
STEPS = [("1234", "4"), ("1", "1234"), ("1234", "1234"), ("12", "34")]


def draw_box(ax, letter, t, row):
    box = {"boxstyle": "round,pad=0.35", "edgecolor": "0.3"}
    box["facecolor"] = COLOURS[letter]
    ax.text(t, row, f"${letter}^{{({t})}}$", ha="center", va="center", bbox=box)


def draw_arrow(ax, start, end):
    style = {"arrowstyle": "-|>", "color": "0.3", "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=style)


figure, axes = plt.subplots(2, 2, figsize=(7, 4.6), layout="constrained")
for ax, kind, (reads, answers) in zip(axes.flat, KINDS, STEPS, strict=True):
    for t in (1, 2, 3, 4):
        draw_box(ax, "h", t, 1)
        if t > 1:
            draw_arrow(ax, (t - 0.68, 1), (t - 0.32, 1))
        if str(t) in reads:
            draw_box(ax, "x", t, 0)
            draw_arrow(ax, (t, 0.26), (t, 0.74))
        if str(t) in answers:
            draw_box(ax, "y", t, 2)
            draw_arrow(ax, (t, 1.26), (t, 1.74))
    ax.set(title=kind, xlim=(0.5, 4.5), ylim=(-0.4, 2.4))
    ax.axis("off")

# %% [markdown] lang="en"
# **Question.** Which kind is each of these: the sentiment of a review; a caption for a picture;
# the next character of a text; a translation?
#
# <details><summary>Answer</summary>
#
# The sentiment is many-to-one, and the caption is one-to-many. The next character is asked for at
# every step: many-to-many, synchronised. A translation is many-to-many, delayed: its first word may
# depend on the last word of the sentence.
#
# </details>

# %% [markdown] lang="es"
# **Pregunta.** ¿De qué tipo es cada una de estas tareas: la opinión que expresa una reseña, la
# descripción de una imagen, el siguiente carácter de un texto, una traducción?
#
# <details><summary>Respuesta</summary>
#
# La opinión es una tarea muchos a uno y la descripción, una tarea uno a muchos. El siguiente
# carácter se pide en cada paso: muchos a muchos, sincronizada. Una traducción es muchos a muchos,
# con retardo: su primera palabra puede depender de la última palabra de la frase original.
#
# </details>

# %% [markdown] lang="en"
# ## One task of each kind
#
# | kind | task | the question |
# | --- | --- | --- |
# | many-to-one | `temporal_order` | In which order did two symbols, each A or B, come? |
# | one-to-many | `cue` | Oscillate at the frequency that the first input names. |
# | many-to-many, synchronised | `echo` | Which bit was shown three steps ago? |
# | many-to-many, delayed | `copying` | Repeat three symbols after a wait and a signal. |
#
# A task is a function. The object that it returns draws batches of `inputs`, `targets` and
# `weights`.

# %% [markdown] lang="es"
# ## Una tarea de cada tipo
#
# | tipo | tarea | qué se pide |
# | --- | --- | --- |
# | muchos a uno | `temporal_order` | ¿En qué orden aparecieron dos símbolos, cada uno A o B? |
# | uno a muchos | `cue` | Oscilar a la frecuencia que indica la primera entrada. |
# | muchos a muchos, sincronizada | `echo` | ¿Qué bit se mostró hace tres pasos? |
# | muchos a muchos, con retardo | `copying` | Repetir tres símbolos tras una espera y una señal. |
#
# Una tarea es una función. El objeto que devuelve genera lotes de entradas (`inputs`), objetivos
# (`targets`) y ponderaciones de cada paso en la pérdida (`weights`).

# %%
OPTIONS = {
    "temporal_order": {"length": 20},
    "cue": {"length": 20, "frequencies": (0.05, 0.1, 0.15, 0.2)},
    "echo": {"length": 20, "delay": 3},
    "copying": {"length": 5, "items": 3, "symbols": 4},
}
BUILDERS = [temporal_order, cue, echo, copying]
tasks = {build.__name__: build(**OPTIONS[build.__name__]) for build in BUILDERS}
batches = {
    name: jax.jit(task.sample, static_argnums=1)(jax.random.key(1), 1)
    for name, task in tasks.items()
}
for name, batch in batches.items():
    print(f"{name:15} {batch.inputs.shape!s:12} {batch.targets.shape}")

# %% [markdown] lang="en"
# Inputs have the shape (batch, steps, features), and a batch here has one sequence. A target is a
# class (a whole number) or a vector of values, at every step. The next figure shows a sequence of
# each task: what is read, what is to be answered, and the weight $w^{(t)}$ of each step in the
# loss.

# %% [markdown] lang="es"
# Las entradas tienen la forma (lote, pasos, componentes); aquí el lote contiene una sola secuencia.
# El objetivo es, en cada paso, una clase (un número entero) o un vector de valores. La figura
# siguiente muestra una secuencia de cada tarea: qué se lee, qué se debe responder y la ponderación
# $w^{(t)}$ de cada paso en la pérdida.

# %% lang="en" tags=["hide-cell"]
ROWS, STEP = ["$w^{(t)}$", "target", "input"], "step t"

# %% lang="es" tags=["hide-cell"]
ROWS, STEP = ["$w^{(t)}$", "objetivo", "entrada"], "paso t"


# %% name="examples"
def show(ax, values):
    """Draw (rows, steps) as an image: 0 is white, 1 is black."""
    rows, steps = values.shape
    extent = (0.5, steps + 0.5, rows - 0.5, -0.5)
    ax.imshow(values, cmap="Greys", vmin=0, vmax=1, aspect="auto", extent=extent)
    ax.set_yticks(range(0, rows, 1 + rows // 5))


figure, axes = plt.subplots(
    3, 4, figsize=(7, 4), sharex="col", height_ratios=[2, 4, 4], layout="constrained"
)
for (top, middle, bottom), (name, batch) in zip(axes.T, batches.items(), strict=True):
    inputs, target, weights = batch.inputs[0], batch.targets[0], batch.weights[0]
    show(top, weights[None])
    show(bottom, inputs.T)
    if target.ndim == 2:  # values
        middle.plot(range(1, len(target) + 1), target, color="black", marker=".")
    else:  # classes, where the loss is due
        show(middle, jax.nn.one_hot(target, tasks[name].outputs).T * weights)
    top.set(title=name, yticks=[])
    bottom.set(xlabel=STEP)
for ax, row in zip(axes[:, 0], ROWS, strict=True):
    ax.set_ylabel(row)
figure.align_ylabels(axes[:, 0])

# %% [markdown] lang="en"
# In `temporal_order` the rows 0 and 1 of the input are the symbols A and B, rows 2 to 5 are
# distractors, and the loss is due at the last step alone. In `echo` the first three steps have no
# weight, because there is nothing to repeat yet. In `copying` the class 0 means "blank", and the
# last row of the input is the signal to answer.

# %% [markdown] lang="es"
# En `temporal_order` las filas 0 y 1 de la entrada son los símbolos A y B, las filas 2 a 5 son
# distractores, y la pérdida se evalúa solo en el último paso. En `echo` los tres primeros pasos no
# cuentan, porque todavía no hay nada que repetir. En `copying` la clase 0 significa «en blanco», y
# la última fila de la entrada es la señal de responder.

# %% [markdown] lang="en"
# ## Where the loss is due
#
# A loss is due at each step of positive weight $w^{(t)}$. The loss of a sequence is their weighted
# mean:
#
# $$L = \frac{\sum_t w^{(t)} L^{(t)}}{\sum_t w^{(t)}}, \qquad
# L^{(t)} = \begin{cases} -\ln p^{(t)}_{\text{target}} & \text{for classes,} \\
# \big(y^{(t)} - \text{target}^{(t)}\big)^2 & \text{for a value.} \end{cases}$$
#
# Here $p^{(t)}$ is the softmax of $y^{(t)}$. What an answer needs may lie many steps back. The
# gradient of $L^{(t)}$ has to come back over all of these steps.

# %% [markdown] lang="es"
# ## Dónde se evalúa la pérdida
#
# Cada paso con ponderación $w^{(t)}$ positiva tiene una pérdida. La pérdida de la secuencia es la
# media ponderada de las de sus pasos:
#
# $$L = \frac{\sum_t w^{(t)} L^{(t)}}{\sum_t w^{(t)}}, \qquad
# L^{(t)} = \begin{cases} -\ln p^{(t)}_{\text{objetivo}} & \text{para clases,} \\
# \big(y^{(t)} - \text{objetivo}^{(t)}\big)^2 & \text{para un valor.} \end{cases}$$
#
# Aquí $p^{(t)}$ es la softmax de $y^{(t)}$. Lo que se necesita para responder puede estar muchos
# pasos atrás. El gradiente de $L^{(t)}$ tiene que retroceder todos esos pasos.

# %%
for name, batch in batches.items():
    due = [t + 1 for t, weight in enumerate(batch.weights[0]) if weight > 0]
    print(f"{name:15} t = {due[0]} … {due[-1]}   (T = {len(batch.weights[0])})")

# %% [markdown] lang="en"
# ## The loss to beat
#
# A loss says little by itself. We compare it with the loss of a trivial answer, which each task
# knows as its `baseline`: for these tasks, that of the best answer that ignores the input.

# %% [markdown] lang="es"
# ## La pérdida de referencia
#
# Una pérdida, por sí sola, dice poco. La comparamos con la de una respuesta trivial, que cada tarea
# guarda en `baseline`: en estas tareas, la de la mejor respuesta que no tiene en cuenta la entrada.

# %%
for name, task in tasks.items():
    print(f"{name:15} {task.baseline:.3f}")

# %% [markdown] lang="en"
# **Question.** The value of `temporal_order` is 1.386 and that of `echo` 0.693. Where do they come
# from? And why is it 0.5 for `cue`?
#
# <details><summary>Answer</summary>
#
# Two symbols, each A or B, make four classes that are equally probable; a guess costs $\ln 4$ nats.
# A bit has two values: $\ln 2$. The targets of `cue` are sines over whole cycles; the best constant
# answer is 0, with the squared error $\overline{\sin^2} = \tfrac12$.
#
# </details>

# %% [markdown] lang="es"
# **Pregunta.** El valor de `temporal_order` es 1.386 y el de `echo` es 0.693. ¿De dónde salen? ¿Y
# por qué en `cue` es 0.5?
#
# <details><summary>Respuesta</summary>
#
# Dos símbolos, cada uno A o B, forman cuatro clases igual de probables; adivinar cuesta $\ln 4$
# nats. Un bit tiene dos valores: $\ln 2$. Los objetivos de `cue` son senos a lo largo de ciclos
# completos; la mejor respuesta constante es 0, con error cuadrático $\overline{\sin^2} = \tfrac12$.
#
# </details>

# %% [markdown] lang="en"
# ## A small network learns each of them
#
# `gradlab.sweep` trains a tanh network with 32 hidden units: 800 updates a task. The default is
# Adam, with 32 sequences an update.

# %% [markdown] lang="es"
# ## Una red pequeña aprende las cuatro
#
# `gradlab.sweep` entrena una red tanh de 32 unidades ocultas: 800 actualizaciones por tarea. Por
# defecto usa Adam, con 32 secuencias por actualización.


# %% tags=["remove-output"]
def train(name):
    options = {f"task.{key}": value for key, value in OPTIONS[name].items()}
    options |= {"init": "orthogonal", "train.steps": 800, "probe": (), "wandb": "disabled"}
    folder = tempfile.mkdtemp()  # of the records
    return gradlab.sweep(task=name, folder=folder, **options)


runs = pd.concat([train(name) for name in tasks], keys=tasks, names=["task", ""])

# %%
results = runs.droplevel(1)[["eval/baseline", "eval/loss", "eval/accuracy"]]
results.assign(ratio=results["eval/loss"] / results["eval/baseline"]).round(5)

# %% lang="en" tags=["hide-cell"]
RATIO, TO_BEAT = "held-out loss ÷ loss to beat", "nothing learnt"

# %% lang="es" tags=["hide-cell"]
RATIO, TO_BEAT = "pérdida en datos nuevos ÷ pérdida de referencia", "nada aprendido"

# %% name="learnt"
figure, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
ax.plot(results["eval/loss"] / results["eval/baseline"], range(4), "o", color="black")
ax.axvline(1, color="0.5", linestyle="--", label=TO_BEAT)
ax.set(xscale="log", xlabel=RATIO, ylim=(3.5, -0.5))
ax.set_yticks(range(4), KINDS)
ax.grid(axis="x", alpha=0.4)
_ = ax.legend(loc="lower left")

# %% [markdown] lang="en"
# All four are far below their loss to beat on sequences that were not trained on. These sequences
# are short. The next sections show what happens to the gradient on longer ones.
#
# **Question.** A network has 91 % of the answers right in a `copying` task of 100 waiting steps and
# ten items. Has it learnt anything about the items?
#
# <details><summary>Answer</summary>
#
# No. Of the $100 + 2 \cdot 10 = 120$ steps, 110 ask for a blank: whoever always answers "blank" has
# $110/120 \approx 92\,\%$ right. This is why this task is judged by its loss against the
# loss to beat, or by the share of sequences without any error.
#
# </details>

# %% [markdown] lang="es"
# Las cuatro quedan muy por debajo de su pérdida de referencia en secuencias que no se usaron para
# entrenar. Son secuencias cortas. Las secciones siguientes muestran qué le ocurre al gradiente en
# secuencias más largas.
#
# **Pregunta.** Una red acierta el 91 % de las respuestas de una tarea `copying` con 100 pasos de
# espera y diez símbolos. ¿Ha aprendido algo sobre los símbolos?
#
# <details><summary>Respuesta</summary>
#
# No. De los $100 + 2 \cdot 10 = 120$ pasos, 110 piden «en blanco»: quien siempre responde «en
# blanco» acierta $110/120 \approx 92\,\%$. Por eso esta tarea se juzga por la pérdida frente a la
# de referencia, o por la proporción de secuencias sin ningún error.
#
# </details>

# %% [markdown] lang="en"
# ## What to remember
#
# - The kind of a task says which steps read an input and which steps answer.
# - The weights $w^{(t)}$ say where the loss is due; a loss means something beside the loss to beat.
# - One network, with one set of weights, serves all kinds and all lengths.
#
# Next: [2. Unrolled in time](02_unrolled.ipynb).

# %% [markdown] lang="es"
# ## Para recordar
#
# - El tipo de tarea indica qué pasos leen una entrada y qué pasos responden.
# - Las ponderaciones $w^{(t)}$ indican dónde se evalúa la pérdida; una pérdida solo dice algo junto
#   a la de referencia.
# - Una sola red, con los mismos pesos, sirve para todos los tipos y todas las longitudes.
#
# Siguiente: [2. La red desplegada en el tiempo](02_unrolled.ipynb).
