"""A training run as pure functions of its hyperparameters, compiled once for all of one shape.

Seed, gain, learning rate and threshold come in as arguments (`config.traced`), so points that
differ in nothing else call the same compiled program.
"""

import json
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from gradlab import config as configuration
from gradlab.config import ConfigError
from gradlab.jacobian.flat_cell import Span, flatten_cell
from gradlab.models import Network, build_network
from gradlab.probes import Measurement, ProbeInput, measure
from gradlab.tasks import Batch, Task
from gradlab.training import truncated
from gradlab.training.gradients import Objective, gradients, segment_objective, sequence_objective
from gradlab.training.losses import losses, metrics, weighted_mean
from gradlab.training.telemetry import Telemetry, observe

Hyperparameters = Mapping[str, Float[Array, ""] | Int[Array, ""]]

COMPILED_SECTIONS = (
    "model",
    "init",
    "bias",
    "task",
    "optim",
    "clip",
    "tbptt",
    "regulariser",
    "train",
    "probe",
)


class State(NamedTuple):
    """Everything that training changes."""

    parameters: nnx.State
    optimiser: PyTree
    key: Key[Array, ""]
    step: Int[Array, ""]
    diverged: Bool[Array, ""]
    carry: PyTree  # between updates on segments of a sequence; else None


class Program:
    """One compiled training run. Its methods are pure; it holds what is the same for a group."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Build the task and the network's shape; nothing is compiled before the first call.

        Raises:
            ConfigError: the parts do not fit together (a cell that is none, a carry part, a stride
                or a window that the model or the task does not have).
        """
        self.config = config
        self.task: Task = configuration.build(config["task"])
        if config["model"]["decoder"] and not self.task.has_answer_flag:
            raise ConfigError(
                "model.decoder=true needs a task whose last input says when to answer, such as "
                f"task=reversal; got {config['task']['_target_']}."
            )
        abstract = nnx.eval_shape(
            partial(self._network, hyperparameters_of(config)), jax.random.key(0)
        )
        self.definition, _, self.constants = _split(abstract)
        self.output = _check_probe(config["probe"], abstract, self.task)
        self.length = self.task.test.inputs.shape[1]
        self.window, self.stride = truncated.check(config["tbptt"], self.task.test.weights)
        self.by_segment = config["tbptt"]["update"] == "segment"
        if regulariser := configuration.build(config["regulariser"]):
            regulariser.check(abstract.cell, self.window < self.length)

    @partial(jax.jit, static_argnums=0)
    def initialise(self, hyperparameters: Hyperparameters) -> State:
        """Draw the parameters of a point and set up its optimiser."""
        weights_key, data_key = jax.random.split(jax.random.key(hyperparameters["seed"]))
        network = self._network(hyperparameters, weights_key)
        parameters = _split(network)[1]
        optimiser = self._component("optim", hyperparameters).init(parameters)
        shape = (self.config["train"]["batch_size"], self.length, self.task.features)
        carry = network.initial_carry(jnp.zeros(shape)) if self.by_segment else None
        return State(parameters, optimiser, data_key, jnp.array(0), jnp.array(False), carry)

    @partial(jax.jit, static_argnums=(0, 3))
    def advance(
        self, hyperparameters: Hyperparameters, state: State, steps: int
    ) -> tuple[State, Telemetry]:
        """Train for some updates.

        The state stays the last whose loss, gradient and weights were all finite: an update that
        would break that is not made, nor is any after it.
        """
        optimiser = self._component("optim", hyperparameters)
        clip = self._component("clip", hyperparameters)

        def update(state: State, _: None) -> tuple[State, Telemetry]:
            key, objective = self._objective(hyperparameters, state)
            found, gradient = gradients(objective, state.parameters, clip)
            change, moments = optimiser.update(gradient.clipped, state.optimiser, state.parameters)
            parameters = optax.apply_updates(state.parameters, change)
            seen = observe(state.step + 1, found, gradient, parameters)
            diverged = seen.nonfinite > 0
            new = State(parameters, moments, key, state.step + 1, diverged, found.carry)
            kept = state._replace(diverged=diverged)
            return jax.tree.map(partial(jnp.where, diverged), kept, new), seen

        return jax.lax.scan(update, state, None, length=steps)

    def _objective(
        self, hyperparameters: Hyperparameters, state: State
    ) -> tuple[Key[Array, ""], Objective]:
        """What the next update learns from, and the key that the update after it draws from."""
        key, batch_key = jax.random.split(state.key)
        batch = self.task.sample(batch_key, self.config["train"]["batch_size"])
        if self.by_segment:
            count = -(-self.length // self.stride)
            segment = state.step % count
            key = jnp.where(segment == count - 1, key, state.key)
            of_network = segment_objective(batch, segment, state.carry, self.window, self.stride)
        else:
            regulariser = self._component("regulariser", hyperparameters)
            of_network = sequence_objective(batch, regulariser, self.window, self.stride)
        return key, lambda parameters, rule: of_network(self.merge(parameters), rule)

    def loss(self, parameters: nnx.State, batch: Batch) -> Float[Array, ""]:
        """Mean loss over the weighted steps: cross entropy (nats) or squared error."""
        return weighted_mean(losses(self.merge(parameters)(batch.inputs), batch.targets), batch)

    @partial(jax.jit, static_argnums=0)
    def evaluate(self, state: State) -> dict[str, Float[Array, ""]]:
        """Loss, and how much is wrong, on the held-out sequences."""
        outputs = self.merge(state.parameters)(self.task.test.inputs)
        return metrics(outputs, self.task)

    def measure(self, hyperparameters: Hyperparameters, state: State) -> Measurement:
        """Every probe that conf/probe switches on, on the first held-out sequences."""
        probe, batch = self.config["probe"], self.task.test
        batch = jax.tree.map(lambda x: x[: probe["samples"]], batch)
        return measure(
            probe,
            ProbeInput(
                cell=self.merge(state.parameters).cell,
                inputs=batch.inputs,
                loss=Partial(self._loss_of_carry, state.parameters),
                targets=(batch.targets, batch.weights / jnp.sum(batch.weights)),
                stride=probe["stride"],
                grad_norm=lambda: float(self._grad_norm(state.parameters, batch)),
                threshold=self._global_norm_threshold(hyperparameters),
            ),
        )

    @partial(jax.jit, static_argnums=0)
    def _grad_norm(self, parameters: nnx.State, batch: Batch) -> Float[Array, ""]:
        return optax.tree.norm(jax.grad(self.loss)(parameters, batch))

    def _loss_of_carry(
        self, parameters: nnx.State, carry: PyTree, target: tuple[Array, Array]
    ) -> Float[Array, ""]:
        """One step's part of the mean loss, of a cell whose output is its state h."""
        network = self.merge(parameters)
        output = ravel_pytree(carry)[0][slice(*self.output)]
        return target[1] * losses(network.readout(output), target[0])

    def _network(self, hyperparameters: Hyperparameters, key: Key[Array, ""]) -> Network:
        initialiser, bias_rule = (
            partial(configuration.build, self._values(section, hyperparameters))
            for section in ("init", "bias")
        )
        sizes = (self.task.features, self.task.outputs)
        return build_network(self.config["model"], initialiser, bias_rule, *sizes, key)

    def merge(self, parameters: nnx.State) -> Network:
        """The network with these parameters."""
        return nnx.merge(self.definition, parameters, self.constants)

    def _global_norm_threshold(self, hyperparameters: Hyperparameters) -> float:
        clip = self._values("clip", hyperparameters)
        by_global_norm = clip["_target_"] == "gradlab.clipping.global_norm"
        return float(clip["threshold"]) if by_global_norm else float("inf")

    def _component(self, section: str, hyperparameters: Hyperparameters) -> Any:
        return configuration.build(self._values(section, hyperparameters))

    def _values(self, section: str, hyperparameters: Hyperparameters) -> dict[str, Any]:
        prefix = f"{section}."
        given = {
            k.removeprefix(prefix): v for k, v in hyperparameters.items() if k.startswith(prefix)
        }
        return self.config[section] | given


def hyperparameters_of(config: Mapping[str, Any]) -> Hyperparameters:
    """Return a checked config's traced values as arrays: reals in float32, the seed in uint32."""
    kinds = {float: jnp.float32, int: jnp.uint32}
    return {k: jnp.asarray(v, kinds[type(v)]) for k, v in configuration.traced(config).items()}


def program_for(config: Mapping[str, Any]) -> Program:
    """Return the program of a checked config; points that differ in traced values share one."""
    return _program(program_key(config))


def program_key(config: Mapping[str, Any]) -> str:
    """Return what is compiled, as text: the config less its traced values and bookkeeping."""
    hyperparameters = configuration.traced(config)
    recipe = {
        section: {
            k: v for k, v in config[section].items() if f"{section}.{k}" not in hyperparameters
        }
        for section in COMPILED_SECTIONS
    }
    return json.dumps([recipe, sorted(hyperparameters)], sort_keys=True)


@lru_cache(maxsize=64)
def _program(key: str) -> Program:
    recipe, hyperparameters = json.loads(key)
    for name in hyperparameters:
        section, _, entry = name.rpartition(".")
        if section:
            recipe[section][entry] = 1.0  # stands in for any value: programs never read it
    return Program(recipe | {"seed": 0})


def _split(network: Network) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    definition, parameters, constants = nnx.split(network, nnx.Param, ...)  # type: ignore[misc]
    return definition, parameters, constants


def _check_probe(probe: Mapping[str, Any], network: Network, task: Task) -> Span:
    """Refuse probes that do not fit; where in the flat carry the network's readout looks."""
    flat = flatten_cell(network.cell, task.features)
    for name, component in probe.items():
        for end in ("of", "wrt"):
            if name not in configuration.PROBE_SETTINGS and end in component:
                try:
                    flat.span(component[end], f"probe.{name}.{end}")
                except ValueError as error:
                    raise ConfigError(str(error)) from error
    length = task.test.inputs.shape[1]
    if probe["stride"] > length:
        raise ConfigError(
            f"probe.stride must be at most the task's {length} steps; got {probe['stride']}."
        )
    return flat.span("h" if any(f".{part}".endswith(".h") for part in flat.spans) else None, "")
