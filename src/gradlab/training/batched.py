"""Points of one program that take their steps together: one as it is, several vmapped.

Pieces of training of any length call one compiled loop, so where a run is cut (to log, to measure,
to keep a checkpoint) costs no compilation and changes no number.
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
    """Training of the points that a program and their hyperparameters stand for.

    States and what updates saw have a leading axis "points", unless there is only one.
    """

    def __init__(self, program: Program, hyperparameters: Sequence[Hyperparameters]) -> None:
        """Stack the hyperparameters of several points."""
        self.program = program
        self.alone = len(hyperparameters) == 1
        self._each = hyperparameters
        self._numbers = hyperparameters[0] if self.alone else stack(hyperparameters)

    def initialise(self) -> State:
        """Every point's first state."""
        return _initialise(self.program, self.alone, self._numbers)

    def join(self, states: Sequence[State]) -> State:
        """States of the points, one each, as one."""
        return states[0] if self.alone else stack(states)

    def advance(self, state: State, steps: int, limit: int) -> tuple[State, Telemetry]:
        """Train for some steps, at most `limit`; only another `limit` is compiled anew.

        Returns:
            The states, and what each update saw, in NumPy: (points, steps).
        """
        state, seen = _advance(self.program, self.alone, limit, self._numbers, state, steps)
        return state, jax.tree.map(lambda x: np.asarray(x)[..., :steps], seen)

    def evaluate(self, state: State) -> dict[str, Float[np.ndarray, "*points"]]:
        """Every point's metrics on the held-out sequences, in NumPy."""
        return jax.tree.map(np.asarray, _evaluate(self.program, self.alone, state))

    def measure(self, state: State, index: int) -> Measurement:
        """What the probes find on one point."""
        return self.program.measure(self._each[index], self.member(state, index))

    def member(self, tree: Tree, index: int) -> Tree:
        """One point's part of states, of what updates saw, or of metrics."""
        return tree if self.alone else jax.tree.map(lambda x: x[index], tree)


def stack(trees: Sequence[Tree]) -> Tree:
    """Trees of the same form as one tree, whose arrays have a leading axis "points"."""
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
        state, seen = program.advance(hyperparameters, state, 1)
        return state, jax.tree.map(lambda x: x[0], seen)

    updates = update if alone else jax.vmap(update)

    def one(index: Array, carry: tuple[State, Telemetry]) -> tuple[State, Telemetry]:
        state, seen = carry
        state, new = updates(hyperparameters, state)
        return state, jax.tree.map(lambda all, x: all.at[..., index].set(x), seen, new)

    form = jax.eval_shape(updates, hyperparameters, state)[1]
    unseen = jax.tree.map(lambda x: jnp.zeros((*x.shape, limit), x.dtype), form)
    return jax.lax.fori_loop(0, steps, one, (state, unseen))


@partial(jax.jit, static_argnums=(0, 1))
def _evaluate(program: Program, alone: bool, state: State) -> dict[str, Float[Array, "*points"]]:
    return (program.evaluate if alone else jax.vmap(program.evaluate))(state)
