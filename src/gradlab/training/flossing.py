"""Gradient flossing: before training, weights change so that Lyapunov exponents come nearer to 0.

+init/floss=lyapunov flosses whatever network `init` and `bias` have drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from gradlab.components import ConfigError
from gradlab.config import Count, Positive
from gradlab.jacobian import lyapunov_exponents
from gradlab.tasks import Batch, used_steps

Parameters = TypeVar("Parameters")
Sample = Callable[[Key[Array, ""], int], Batch]


@dataclass(frozen=True)
class Flossing:
    """Gradient flossing before training (Engelken 2023, arXiv:2312.17306).

    Adam minimises the mean of λᵢ² over the largest exponents, over new training sequences at every
    update. All weights of the cell change, the readout's do not. (The author's code does this with
    75 of 80 exponents, 55 steps, 500 updates and the rate 0.001. Its exponents leave out the first
    16 of these steps.) The exponents as drawn and after flossing, on held-out sequences, stand in
    the first row of a run's metrics and in its summary.

    Args:
        exponents: how many are flossed, from the largest down; at most the size of the carry.
        updates: number of updates.
        learning_rate: of Adam.
        sequences: number of sequences of an update.
        steps: an exponent is over so many steps from the start of a sequence; None: all.

    Example:
        >>> from gradlab.training.flossing import Flossing
        >>> Flossing(exponents=5, updates=100).learning_rate
        0.001
    """

    exponents: Count = 10
    updates: Count = 500
    learning_rate: Positive = 1e-3
    sequences: Count = 1
    steps: Count | None = None

    def __call__(
        self, cell: nnx.RNNCellBase, sample: Sample, key: Key[Array, ""]
    ) -> nnx.RNNCellBase:
        """Return a flossed copy of a cell.

        Args:
            cell: the cell as it was drawn.
            sample: the task's, which draws training sequences.
            key: of the sequences.

        Raises:
            ConfigError: its step has no second derivatives or stops gradients, or its carry has
                fewer numbers.
        """
        self._check(cell, sample, key)
        definition, parameters, constants = nnx.split(cell, nnx.Param, ...)  # type: ignore[misc]

        def rates(parameters: nnx.State, key: Key[Array, ""]) -> Float[Array, "sequences k"]:
            flossed = nnx.merge(definition, parameters, constants)
            inputs, lengths = self._measured(sample(key, self.sequences))
            return lyapunov_exponents(flossed, inputs, count=self.exponents, lengths=lengths)

        try:
            flossed = floss(parameters, rates, key, self.updates, self.learning_rate)
        except (ValueError, TypeError) as error:
            if not any(word in str(error) for word in ("differentiation", "custom_")):
                raise
            reason = str(error).splitlines()[0].rstrip(".")
            raise ConfigError(
                f"init.floss needs second derivatives of the step of {type(cell).__name__}, which "
                f"has none ({reason}): leave out +init/floss."
            ) from error
        return nnx.merge(definition, flossed, constants)

    def _check(self, cell: nnx.RNNCellBase, sample: Sample, key: Key[Array, ""]) -> None:
        name = type(cell).__name__
        inputs = jax.eval_shape(lambda: sample(key, self.sequences).inputs[0, 0])
        carry = jax.eval_shape(lambda: cell.initialize_carry(inputs.shape, nnx.Rngs(0)))
        if self.exponents > (size := sum(x.size for x in jax.tree.leaves(carry))):
            raise ConfigError(
                f"init.floss.exponents must be at most {size}, the numbers in the carry of {name}; "
                f"got {self.exponents}."
            )
        step = jax.make_jaxpr(lambda carry, x: cell(carry, x))(carry, inputs)
        if "stop_gradient" in str(step):
            raise ConfigError(
                f"init.floss needs the whole derivative of the exponents, and the step of {name} "
                "stops some: leave out +init/floss (or, of an mLSTM, model.cell.stabilise=false)."
            )

    def row(
        self, drawn: nnx.RNNCellBase, flossed: nnx.RNNCellBase, batch: Batch
    ) -> dict[str, float]:
        """Return what flossing did, by names of metrics: means over the sequences.

        Raises:
            ConfigError: an exponent of the network as drawn is not finite, so that it has no
                gradient; or no update had a finite gradient.
        """
        if all(map(np.array_equal, *(jax.tree.leaves(nnx.state(x)) for x in (drawn, flossed)))):
            raise ConfigError(
                "init.floss changed nothing: no update had a finite gradient; give fewer "
                "init.floss.exponents."
            )
        inputs, lengths = self._measured(batch)
        row: dict[str, float] = {}
        for name, cell in (("before", drawn), ("after", flossed)):
            exponents = lyapunov_exponents(cell, inputs, count=self.exponents, lengths=lengths)
            means = np.asarray(exponents).mean(axis=0)
            if not (finite := np.isfinite(means)).all():
                first = int(np.argmin(finite))
                raise ConfigError(
                    f"exponent {first + 1} is {means[first]} {name} flossing, and only finite ones "
                    "can be flossed. A direction is lost where ReLUs are off or units saturate: "
                    + (f"give init.floss.exponents={first}." if first else "leave out +init/floss.")
                )
            row[f"floss/{name}/mean_abs"] = float(np.abs(means).mean())
            row |= {f"floss/{name}/exponent_{i}": float(x) for i, x in enumerate(means, 1)}
        return row

    def _measured(
        self, batch: Batch
    ) -> tuple[Float[Array, "sequences steps features"], Int[Array, "sequences"]]:
        """Return the inputs that exponents are over, and how many steps each sequence has there."""
        lengths = used_steps(batch.inputs, batch.weights)
        inputs = batch.inputs[:, : self.steps]
        return inputs, jnp.minimum(lengths, inputs.shape[1])


def floss(
    parameters: Parameters,
    rates: Callable[[Parameters, Key[Array, ""]], Float[Array, "..."]],
    key: Key[Array, ""],
    updates: int,
    learning_rate: float,
) -> Parameters:
    """Minimise the mean of λᵢ² by Adam, and return the parameters.

    An update whose gradient is not finite is left out.

    Args:
        parameters: a pytree of weights.
        rates: (parameters, key) -> the λᵢ, on sequences drawn with the key.
        key: of all updates.
        updates: their number.
        learning_rate: of Adam.
    """
    optimiser = optax.apply_if_finite(optax.adam(learning_rate), max_consecutive_errors=updates)

    def objective(parameters: Parameters, key: Key[Array, ""]) -> Float[Array, ""]:
        return jnp.mean(rates(parameters, key) ** 2)

    def update(
        carry: tuple[Parameters, optax.OptState], key: Key[Array, ""]
    ) -> tuple[tuple[Parameters, optax.OptState], None]:
        parameters, state = carry
        changes, state = optimiser.update(jax.grad(objective)(parameters, key), state)
        return (optax.apply_updates(parameters, changes), state), None

    start = (parameters, optimiser.init(parameters))
    (parameters, _), _ = jax.lax.scan(update, start, jax.random.split(key, updates))
    return parameters


def check_flossing(flossing: Any) -> None:
    """Check what `init.floss` builds.

    Raises:
        ConfigError: it is no Flossing.
    """
    if not isinstance(flossing, Flossing | None):
        raise ConfigError(
            "init.floss._target_ must return a gradlab.training.flossing.Flossing; it returned a "
            f"{type(flossing).__name__}."
        )


def flossing_entries(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return what the first row of a run says of flossing; nothing if there was none."""
    first = rows[0] if rows else {}
    return {name: x for name, x in first.items() if name.startswith("floss/")}
