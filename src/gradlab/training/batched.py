"""Points of one program trained together: one as it is, several vmapped.

Training calls one compiled loop for any number of steps, so where a run is cut (to log, to measure,
to write a checkpoint) costs no compilation and changes no number.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from gradlab.jacobian.together import log_norms_together
from gradlab.probes import Measurement
from gradlab.tasks import Batch
from gradlab.training.program import Hyperparameters, Program, State, has_ended
from gradlab.training.telemetry import Telemetry

MEASURING = 0.3  # of a device's memory that maps may take beside the points that are trained
MEMORY = 2**33  # bytes that they may take at most

Tree = TypeVar("Tree")


class BatchedProgram:
    """A program with the hyperparameters of the points that it trains together.

    States and telemetry have a leading axis "points", unless there is only one.
    """

    def __init__(self, program: Program, hyperparameters: Sequence[Hyperparameters]) -> None:
        """Take the points' hyperparameters, one mapping each."""
        self.program = program
        self.single = len(hyperparameters) == 1
        self._by_point = hyperparameters
        self._stacked = hyperparameters[0] if self.single else stack(hyperparameters)
        self._maps: tuple[Any, dict[tuple[Any, ...], Any]] = None, {}  # of parameters, by kind

    def initialise(self) -> State:
        """Return the points' first states."""
        return _initialise(self.program, self.single, self._stacked)

    def stack(self, states: Sequence[State]) -> State:
        """Join the points' states, one each."""
        return states[0] if self.single else stack(states)

    def advance(self, state: State, count: int, limit: int) -> tuple[State, Telemetry]:
        """Train for a number of updates, at most `limit`; only a new `limit` compiles again.

        Returns:
            The states, and each update's telemetry in NumPy: (points, steps).
        """
        self._maps = None, {}  # of weights that may go
        state, telemetry = _advance(self.program, self.single, limit, self._stacked, state, count)
        return state, jax.tree.map(lambda x: np.asarray(x)[..., :count], telemetry)

    def evaluate(self, state: State) -> dict[str, Float[np.ndarray, "*points"]]:
        """Return the points' metrics on the held-out sequences, in NumPy."""
        row = _evaluate(self.program, self.single, self.program.held_out, state)
        return jax.tree.map(np.asarray, row)

    def start_row(self, state: State, index: int) -> dict[str, float]:
        """Return one point's `Program.start_row`."""
        return self.program.start_row(self._by_point[index], self.state_of(state, index))

    def measure(self, state: State, index: int) -> Measurement:
        """Run the probes on one point.

        On an accelerator the first point that asks for a map has those of all points measured: a
        map is a chain of small products, so one takes about as long as a hundred side by side.
        """
        is_alone = self.single or jax.default_backend() == "cpu"
        shared = None if is_alone else partial(self._shared_map, state, index)
        return self.program.measure(self._by_point[index], self.state_of(state, index), shared)

    def _shared_map(
        self, state: State, index: int, **part: Any
    ) -> Float[np.ndarray, "batch t k"] | None:
        if self._maps[0] is not state.parameters:
            self._maps = state.parameters, {}
        known, kind = self._maps[1], tuple(part.items())
        if kind not in known:
            known[kind] = self._measure_maps(state, part)
        return None if known[kind] is None else known[kind][index]

    def _measure_maps(
        self, state: State, part: dict[str, Any]
    ) -> Float[np.ndarray, "points batch t k"] | None:
        def split(state: State) -> tuple[nnx.GraphDef, nnx.State]:
            return nnx.split(self.program.merge(state.parameters, state.constants).cell)

        definition, _ = split(self.state_of(state, 0))
        states = jax.vmap(lambda state: split(state)[1])(state)
        probed, stride = self.program.probed, self.program.config.probe["stride"]
        (device,) = state.step.devices()
        room = MEASURING * (device.memory_stats() or {}).get("bytes_limit", np.inf)
        return log_norms_together(
            definition,
            states,
            probed.inputs,
            **part,
            stride=stride,
            lengths=probed.lengths,
            memory_budget=int(min(MEMORY, room)),
        )

    def member(self, tree: Tree, index: int) -> Tree:
        """Return one point's part of telemetry or metrics."""
        return tree if self.single else jax.tree.map(lambda x: x[index], tree)

    def state_of(self, state: State, index: int) -> State:
        """Return one point's state, in one call: an accelerator is slow to begin each."""
        return state if self.single else _at(state, index)


def stack(trees: Sequence[Tree]) -> Tree:
    """Stack trees of the same structure along a new leading axis "points"."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@jax.jit
def _at(state: State, index: Int[Array, ""]) -> State:
    return jax.tree.map(lambda x: x[index], state)


@partial(jax.jit, static_argnums=(0, 1))
def _initialise(program: Program, single: bool, hyperparameters: Hyperparameters) -> State:
    return (program.initialise if single else jax.vmap(program.initialise))(hyperparameters)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _advance(
    program: Program,
    single: bool,
    limit: int,
    hyperparameters: Hyperparameters,
    state: State,
    count: Int[Array, ""],
) -> tuple[State, Telemetry]:
    def update(hyperparameters: Hyperparameters, state: State) -> tuple[State, Telemetry]:
        state, telemetry = program.advance(hyperparameters, state, 1)
        return state, jax.tree.map(lambda x: x[0], telemetry)

    updates = update if single else jax.vmap(update)

    def goes_on(carry: tuple[Array, State, Telemetry]) -> Array:
        index, state, _ = carry
        return (index < count) & ~jnp.all(has_ended(state))

    def step(carry: tuple[Array, State, Telemetry]) -> tuple[Array, State, Telemetry]:
        index, state, history = carry
        state, telemetry = updates(hyperparameters, state)
        history = jax.tree.map(lambda past, x: past.at[..., index].set(x), history, telemetry)
        return index + 1, state, history

    shapes = jax.eval_shape(updates, hyperparameters, state)[1]
    empty = jax.tree.map(lambda x: jnp.zeros((*x.shape, limit), x.dtype), shapes)
    _, state, history = jax.lax.while_loop(goes_on, step, (jnp.array(0), state, empty))
    return state, history


@partial(jax.jit, static_argnums=(0, 1))
def _evaluate(
    program: Program, single: bool, held_out: dict[str, Batch], state: State
) -> dict[str, Float[Array, "*points"]]:
    evaluate = partial(program.evaluate_on, held_out)
    return (evaluate if single else jax.vmap(evaluate))(state)
