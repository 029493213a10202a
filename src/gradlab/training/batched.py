"""Points of one program trained together: one as it is, several vmapped.

Training calls one compiled loop for any number of steps, so where a run is cut (to log, to measure,
to write a checkpoint) costs no compilation and changes no number.
"""

from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gradlab.probes import Measurement
from gradlab.training.program import Hyperparameters, Program, State
from gradlab.training.telemetry import Telemetry

Tree = TypeVar("Tree")


class BatchedProgram:
    """A program with the hyperparameters of the points that it trains together.

    States and telemetry have a leading axis "points", unless there is only one.
    """

    def __init__(self, program: Program, hyperparameters: Sequence[Hyperparameters]) -> None:
        """Take the points' hyperparameters, one mapping each."""
        self.program = program
        self.alone = len(hyperparameters) == 1
        self._by_point = hyperparameters
        self._stacked = hyperparameters[0] if self.alone else stack(hyperparameters)

    def initialise(self) -> State:
        """Return the points' first states."""
        return _initialise(self.program, self.alone, self._stacked)

    def join(self, states: Sequence[State]) -> State:
        """Stack the points' states, one each."""
        return states[0] if self.alone else stack(states)

    def advance(self, state: State, steps: int, limit: int) -> tuple[State, Telemetry]:
        """Train for some steps, at most `limit`; only another `limit` is compiled anew.

        Returns:
            The states, and each update's telemetry in NumPy: (points, steps).
        """
        state, telemetry = _advance(self.program, self.alone, limit, self._stacked, state, steps)
        return state, jax.tree.map(lambda x: np.asarray(x)[..., :steps], telemetry)

    def evaluate(self, state: State) -> dict[str, Float[np.ndarray, "*points"]]:
        """Return the points' metrics on the held-out sequences, in NumPy."""
        return jax.tree.map(np.asarray, _evaluate(self.program, self.alone, state))

    def measure(self, state: State, index: int) -> Measurement:
        """Run the probes on one point."""
        return self.program.measure(self._by_point[index], self.member(state, index))

    def member(self, tree: Tree, index: int) -> Tree:
        """Return one point's part of states, telemetry or metrics."""
        return tree if self.alone else jax.tree.map(lambda x: x[index], tree)


def stack(trees: Sequence[Tree]) -> Tree:
    """Stack trees of the same structure along a new leading axis "points"."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@partial(jax.jit, static_argnums=(0, 1))
def _initialise(program: Program, alone: bool, hyperparameters: Hyperparameters) -> State:
    return (program.initialise if alone else jax.vmap(program.initialise))(hyperparameters)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _advance(
    program: Program,
    alone: bool,
    limit: int,
    hyperparameters: Hyperparameters,
    state: State,
    steps: Int[Array, ""],
) -> tuple[State, Telemetry]:
    def update(hyperparameters: Hyperparameters, state: State) -> tuple[State, Telemetry]:
        state, telemetry = program.advance(hyperparameters, state, 1)
        return state, jax.tree.map(lambda x: x[0], telemetry)

    updates = update if alone else jax.vmap(update)

    def step(index: Array, carry: tuple[State, Telemetry]) -> tuple[State, Telemetry]:
        state, history = carry
        state, telemetry = updates(hyperparameters, state)
        return state, jax.tree.map(lambda all, x: all.at[..., index].set(x), history, telemetry)

    form = jax.eval_shape(updates, hyperparameters, state)[1]
    empty = jax.tree.map(lambda x: jnp.zeros((*x.shape, limit), x.dtype), form)
    return jax.lax.fori_loop(0, steps, step, (state, empty))


@partial(jax.jit, static_argnums=(0, 1))
def _evaluate(program: Program, alone: bool, state: State) -> dict[str, Float[Array, "*points"]]:
    return (program.evaluate if alone else jax.vmap(program.evaluate))(state)
