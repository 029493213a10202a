"""Parts of one's own: a task, an initialiser, a cell, a probe and a figure.

conf/ gives each of them a name; README.md goes through them one by one.
"""

import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx
from jaxtyping import Array, Float, Key
from matplotlib.figure import Figure
from pydantic import Field

from gradlab.config import Count, NonNegative
from gradlab.figures.style import Drawn
from gradlab.probes import Measurement, ProbeInput, labelled
from gradlab.records import load_metrics
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import draw_test_batch, last_step_batch


def latch(length: Count = 20, noise: NonNegative = 0.2, test_size: Count = 500) -> Task:
    """Say at the last step which sign the first input had (Bengio, Simard & Frasconi 1994).

    Args:
        length: steps of a sequence.
        noise: standard deviation of the noise on every input.
        test_size: number of held-out sequences.
    """

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        class_key, noise_key = jax.random.split(key)
        classes = jax.random.randint(class_key, (batch_size,), 0, 2)
        signs = (2 * classes - 1)[:, None, None]
        shown = jax.nn.one_hot(0, length)[:, None]  # at the first step
        inputs = signs * shown + noise * jax.random.normal(noise_key, (batch_size, length, 1))
        return last_step_batch(inputs, classes, jnp.full(batch_size, length))

    test = draw_test_batch(sample, test_size)
    return Task(features=1, outputs=2, sample=sample, test=test, baseline=math.log(2))


def rotations(
    key: Key[Array, ""], shape: tuple[int, int], dtype: Any = jnp.float32, turn: NonNegative = 0.3
) -> Float[Array, "n n"]:
    """Draw an orthogonal matrix that turns planes of pairs of units by angles up to ± `turn`."""
    neighbours = jnp.arange(shape[0] - 1)
    angles = jax.random.uniform(key, neighbours.shape, minval=-turn, maxval=turn)
    upper = jnp.diag(jnp.where(neighbours % 2 == 0, angles, 0), 1)
    return jax.scipy.linalg.expm(upper - upper.T).astype(dtype)


class Antisymmetric(nnx.SimpleCell):
    """The antisymmetric RNN of Chang, Chen, Haber & Chi 2019, without its gate.

    h⁽ᵗ⁾ = h⁽ᵗ⁻¹⁾ + ε tanh(W_xh x⁽ᵗ⁾ + (W − Wᵀ) h⁽ᵗ⁻¹⁾ + b)
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        epsilon: Annotated[float, Field(gt=0)] = 0.1,
        **options: Any,
    ) -> None:
        """Draw the weights of Flax's cell, with its options; `epsilon` is ε."""
        super().__init__(in_features, hidden_features, **options)
        self.epsilon = epsilon

    def __call__(
        self, carry: Float[Array, "*batch n"], inputs: Float[Array, "*batch features"]
    ) -> tuple[Array, Array]:
        """Return h⁽ᵗ⁾ twice: as the new carry and as the output."""
        matrix = self.dense_h.kernel[...]
        h = carry + self.epsilon * jnp.tanh(self.dense_i(inputs) + carry @ (matrix - matrix.T))
        return h, h


def dimension(probed: ProbeInput, *, name: str) -> Measurement:
    """Measure how many directions the states use: (Σλ)² / Σλ², λ of their covariance over time."""
    start = probed.cell.initialize_carry(probed.inputs.shape[-1:], nnx.Rngs(0))
    run = jax.vmap(lambda inputs: jax.lax.scan(probed.cell, start, inputs)[1])
    states = np.asarray(run(probed.inputs))
    spectra = [
        np.linalg.eigvalsh(np.cov(states[i, :length], rowvar=False))
        for i, length in enumerate(probed.lengths)
    ]
    ratios = [np.sum(spectrum) ** 2 / np.sum(spectrum**2) for spectrum in spectra]
    array = labelled(ratios, ("sample",), {}, long_name="dimension of the states", units="1")
    return Measurement({f"{name}/mean": float(np.mean(ratios))}, {f"{name}_ratio": array})


def dimension_figure(runs: pd.DataFrame) -> Drawn:
    """Draw the dimension over training: a line for each gain and ε, the mean over seeds."""
    columns = {"init.gain": "gain", "model.cell.epsilon": "epsilon", "path": "path"}
    points = runs[list(columns)].rename(columns=columns)
    rows = pd.concat(
        load_metrics(path).assign(gain=gain, epsilon=epsilon)
        for gain, epsilon, path in points.itertuples(index=False)
    )
    measured = rows.dropna(subset="dimension/mean")
    table = measured.groupby(["gain", "epsilon", "train/step"], as_index=False)[
        "dimension/mean"
    ].mean()
    figure = Figure(figsize=(4.5, 3), layout="constrained")
    axes = figure.add_subplot(xlabel="training step (updates)", ylabel="dimension of the states")
    for (gain, epsilon), line in table.groupby(["gain", "epsilon"]):
        label = f"gain {gain:g}, ε = {epsilon:g}"
        axes.plot(line["train/step"], line["dimension/mean"], label=label)
    axes.legend()
    return Drawn(figure, table)
