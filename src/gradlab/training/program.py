"""A training run as pure functions of its hyperparameters, compiled once for all of one shape.

Seed, gain, learning rate and threshold come in as arguments (`identity.traced`), so points that
differ in nothing else call the same compiled program.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from gradlab.cells.precision import plain_cell
from gradlab.components import ConfigError, build
from gradlab.config import Config
from gradlab.identity import traced
from gradlab.initialisers import draw_matrix
from gradlab.jacobian.carry import CarryForm
from gradlab.jacobian.flat_cell import carry_form
from gradlab.models import Network, build_network
from gradlab.probes import Measurement, ProbeInput, SharedMaps, run_probes
from gradlab.tasks import Batch, Task
from gradlab.tasks.checks import check_task
from gradlab.tasks.other_lengths import tasks_of_lengths, without_test_lengths
from gradlab.training import truncated
from gradlab.training.checks import check_probe, check_rule
from gradlab.training.flossing import check_flossing
from gradlab.training.gradients import (
    Objective,
    Scale,
    clip_memory,
    gradients,
    one,
    segment_objective,
    sequence_objective,
)
from gradlab.training.held_state import check_state_is_held
from gradlab.training.loss_scaling import check_loss_scaling
from gradlab.training.losses import (
    check_objective,
    half_sum,
    losses,
    metrics,
    total_weight,
    weighted_mean,
)
from gradlab.training.precision import in_float32, in_types_of_network, types_of
from gradlab.training.source_key import SourceKey
from gradlab.training.stopping import check_stop_rule, observe_batch
from gradlab.training.telemetry import Telemetry, observe, overflows

FLOSSING = 2  # what a point's key is folded with for it; 0 and 1 would be those of weights and data
SCALES: Mapping[str, Scale] = {"mean": one, "half_sum": half_sum}  # of train.objective
Hyperparameters = Mapping[str, Float[Array, ""] | Int[Array, ""]]


class State(NamedTuple):
    """Everything that training changes, and the variables that it holds."""

    parameters: nnx.State
    optimiser: PyTree
    key: Key[Array, ""]
    step: Int[Array, ""]
    diverged: Bool[Array, ""]
    carry: PyTree  # between updates on segments of a sequence; else None
    constants: nnx.State  # variables of the network that are no parameters, such as a mask
    stopped: Bool[Array, ""]  # by the rule of train.stop
    stop: PyTree  # that rule's state; None without a rule
    clip: PyTree  # state of the clipping rule; no arrays if it keeps none
    loss_scale: PyTree  # that of train.loss_scale; None without a rule


class Program:
    """A training run that is compiled once for all points of a group; its methods are pure.

    Programs whose configs differ in traced values only are equal, so JAX compiles them once, unless
    a function that the config names has been defined anew since (`SourceKey`).
    """

    @in_float32
    def __init__(self, config: Config) -> None:
        """Build the task and the network's shape; nothing is compiled before the first call.

        Args:
            config: of any point of the group. Its traced values are never read: methods take them
                as `hyperparameters`.

        Raises:
            ConfigError: the parts do not fit together: the cell is no recurrent cell or changes a
                state of its own, the task's sequences cannot be trained on, or the model or the
                task lacks a carry part, stride or window that the config names.
        """
        self.config = config
        self._key = SourceKey(config)
        component, lengths = without_test_lengths(config.task)
        self.task: Task = build(component)
        check_task(self.task, config.task["_target_"], config.train.batch_size)
        others = tasks_of_lengths(component, lengths, self.task)
        self.judged = {"": self.task} | {f"length_{n}/": task for n, task in others.items()}
        if config.model.decoder and not self.task.has_answer_flag:
            raise ConfigError(
                "model.decoder=true needs a task whose last input says when to answer, such as "
                f"task=reversal; got {config.task['_target_']}."
            )
        check_rule("optim", self._build("optim", hyperparameters_of(config)))
        check_rule("clip", self._build("clip", hyperparameters_of(config)))
        with types_of(config.model.dtype):
            abstract = nnx.eval_shape(
                partial(self._network, hyperparameters_of(config)), jax.random.key(0)
            )
            self.definition, _, self.constants = _split(abstract)
            plain, name = plain_cell(abstract.cell), config.model.cell["_target_"]
            check_state_is_held(plain, self.task.features, name)
            form, self.output_leaf = _carry_and_output(abstract.cell, self.task.features)
        check_probe(config.probe, form, self.task)
        self.length = self.task.test.inputs.shape[1]
        self.window, self.stride = truncated.check(config.tbptt, self.task.test.weights)
        self.by_segment = config.tbptt.update == "segment"
        self.stop_rule = build(config.train.stop) if config.train.stop else None
        check_stop_rule(self.stop_rule, self.task, self.by_segment)
        self.loss_scaling = build(config.train.loss_scale) if config.train.loss_scale else None
        check_loss_scaling(self.loss_scaling)
        check_objective(config.train.objective, self.task)
        self.flossing = build(config.init["floss"]) if "floss" in config.init else None
        check_flossing(self.flossing)
        if self.flossing:
            self.abstract_state()  # which raises what flossing cannot do
        if regulariser := build(config.regulariser):
            regulariser.check(abstract.cell, self.window < self.length)

    def __eq__(self, other: object) -> bool:
        """Return whether both compile to the same program."""
        return isinstance(other, Program) and self._key == other._key

    def __hash__(self) -> int:
        """Return the hash of what is compiled."""
        return hash(self._key)

    @in_types_of_network
    def abstract_state(self) -> State:
        """Return the shapes and types of a point's state; nothing is computed."""
        state: State = jax.eval_shape(self.initialise, hyperparameters_of(self.config))
        return state

    @partial(jax.jit, static_argnums=0)
    def initialise(self, hyperparameters: Hyperparameters) -> State:
        """Draw the parameters of a point and set up its optimiser.

        The point has diverged already where the squares of its weights overflow.
        """
        point_key = jax.random.key(hyperparameters["seed"])
        weights_key, data_key = jax.random.split(point_key)
        network = self._network(hyperparameters, weights_key)
        if self.flossing:
            floss_key = jax.random.fold_in(point_key, FLOSSING)
            network.cell = self.flossing(network.cell, self.sample, floss_key)
        _, parameters, constants = _split(network)
        optimiser = self._build("optim", hyperparameters).init(parameters)
        shape = (self.config.train.batch_size, self.length, self.task.features)
        carry = network.initial_carry(jnp.zeros(shape)) if self.by_segment else None
        diverged = overflows(parameters)
        return State(
            parameters,
            optimiser,
            data_key,
            jnp.array(0),
            diverged,
            carry,
            constants,
            stopped=jnp.array(False),
            stop=self.stop_rule.init() if self.stop_rule else None,
            clip=clip_memory(self._build("clip", hyperparameters), parameters),
            loss_scale=self.loss_scaling.init() if self.loss_scaling else None,
        )

    @partial(jax.jit, static_argnums=(0, 3))
    def advance(
        self, hyperparameters: Hyperparameters, state: State, steps: int
    ) -> tuple[State, Telemetry]:
        """Train for a number of updates.

        At the first loss, gradient or weight that is not finite (`telemetry.observe` has the
        rule), the last finite state is kept and marked as diverged, and no further update is made;
        nor is one after the update that ends training by the rule of `train.stop`. An update that
        `train.loss_scale` skips changes neither weights nor optimiser nor clipping rule; the count
        of updates, the data, the state between segments and the rule of `train.stop` go on.

        Returns:
            The new state, and the telemetry of each update (steps,).
        """
        optimiser = self._build("optim", hyperparameters)
        clip = self._build("clip", hyperparameters)

        def update(state: State, _: None) -> tuple[State, Telemetry]:
            key, batch, objective = self._objective(hyperparameters, state)
            scale = state.loss_scale.scale if self.loss_scaling else None
            aux, gradient, clip_state = gradients(
                objective, state.parameters, clip, state.clip, scale
            )
            change, optimiser_state = optimiser.update(
                gradient.clipped, state.optimiser, state.parameters
            )
            parameters = optax.apply_updates(state.parameters, change)
            changed = parameters, optimiser_state, clip_state
            loss_scale, skips = None, None
            if self.loss_scaling:
                before = state.parameters, state.optimiser, state.clip
                changed, loss_scale, skips = self.loss_scaling.apply(
                    state.loss_scale, aux.loss, gradient, before, changed
                )
            parameters, optimiser_state, clip_state = changed
            telemetry = observe(state.step + 1, aux, gradient, parameters, scale, skips)
            stopped, stop = self._stops(state, aux.outputs, batch)
            after = State(
                parameters,
                optimiser_state,
                key,
                state.step + 1,
                state.diverged,
                aux.carry,
                state.constants,
                stopped,
                stop,
                clip_state,
                loss_scale,
            )
            ended, diverges = has_ended(state), telemetry.nonfinite > 0
            held = state._replace(diverged=state.diverged | (diverges & ~ended))
            kept = jax.tree.map(partial(jnp.where, ended | diverges), held, after)
            return kept, telemetry._replace(update=jnp.where(ended, 0, telemetry.update))

        return jax.lax.scan(update, state, None, length=steps)

    def merge(self, parameters: nnx.State, constants: nnx.State | None = None) -> Network:
        """Return the network with these parameters, and with a state's constants if it has any."""
        return nnx.merge(
            self.definition, parameters, self.constants if constants is None else constants
        )

    def sample(self, key: Key[Array, ""], count: int) -> Batch:
        """Draw training sequences, in 32 bits whatever the network's type."""
        with jax.enable_x64(False):
            return self.task.sample(key, count)

    def loss(
        self, parameters: nnx.State, batch: Batch, constants: nnx.State | None = None
    ) -> Float[Array, ""]:
        """Return the mean loss over the weighted steps: cross entropy (nats) or squared error."""
        outputs = self.merge(parameters, constants)(batch.inputs)
        return weighted_mean(losses(outputs, batch.targets), batch)

    def evaluate(self, state: State) -> dict[str, Float[Array, ""]]:
        """Return the loss and error metrics on the held-out sequences.

        Those at `task.test_lengths` are named "eval/length_100/loss" and so on.
        """
        return self.evaluate_on(self.held_out, state)

    @property
    def held_out(self) -> dict[str, Batch]:
        """The held-out sequences, by what their metrics are called after "eval/"."""
        return {place: task.test for place, task in self.judged.items()}

    @partial(jax.jit, static_argnums=0)
    def evaluate_on(self, held_out: dict[str, Batch], state: State) -> dict[str, Float[Array, ""]]:
        """Evaluate a state; `held_out` is an argument, since constants are compiled in.

        Args:
            held_out: the property of that name.
            state: of a point.
        """
        network = self.merge(state.parameters, state.constants)
        row: dict[str, Array] = {}
        for place, batch in held_out.items():
            found = metrics(network(batch.inputs), self.judged[place]._replace(test=batch))
            row |= {f"eval/{place}{k.removeprefix('eval/')}": x for k, x in found.items()}
        return row

    @property
    def probed(self) -> Batch:
        """The first held-out sequences, which probes see."""
        samples = self.config.probe["samples"]
        return jax.tree.map(lambda x: x[:samples], self.task.test)

    def measure(
        self, hyperparameters: Hyperparameters, state: State, shared_maps: SharedMaps | None = None
    ) -> Measurement:
        """Run every configured probe; `shared_maps` as in `ProbeInput`."""
        probe, batch = self.config.probe, self.probed
        return run_probes(
            probe,
            ProbeInput(
                cell=self.merge(state.parameters, state.constants).cell,
                inputs=batch.inputs,
                lengths=batch.lengths,
                loss=Partial(self._loss_of_carry, state.parameters),
                targets=(batch.targets, batch.weights / total_weight(batch)),
                stride=probe["stride"],
                grad_norm=lambda: float(self._grad_norm(state, batch)),
                threshold=self._global_norm_threshold(hyperparameters),
                shared_maps=shared_maps,
            ),
        )

    def start_row(self, hyperparameters: Hyperparameters, state: State) -> dict[str, float]:
        """Return what flossing did to a network as it was drawn, on the sequences probed.

        Args:
            hyperparameters: the point's.
            state: its first.
        """
        if not self.flossing:
            return {}
        weights_key, _ = jax.random.split(jax.random.key(hyperparameters["seed"]))
        drawn = self._network(hyperparameters, weights_key)
        flossed = self.merge(state.parameters, state.constants)
        return self.flossing.row(drawn.cell, flossed.cell, self.probed)

    def _stops(
        self, state: State, outputs: Float[Array, "batch time o"], batch: Batch
    ) -> tuple[Bool[Array, ""], PyTree]:
        """Return whether an update ends training by the rule of train.stop, and its new state."""
        if self.stop_rule is None:
            return state.stopped, None
        seen = observe_batch(outputs, batch, self.task.tolerance, self.stop_rule.judged)
        stop, stopped = self.stop_rule.update(state.stop, seen)
        return stopped, stop

    def _objective(
        self, hyperparameters: Hyperparameters, state: State
    ) -> tuple[Key[Array, ""], Batch, Objective]:
        """Return the next PRNG key, and this update's sequences and objective."""
        key, batch_key = jax.random.split(state.key)
        batch = self.sample(batch_key, self.config.train.batch_size)
        scale = SCALES[self.config.train.objective]
        if self.by_segment:
            count = -(-self.length // self.stride)
            segment = state.step % count
            key = jnp.where(segment == count - 1, key, state.key)
            of_network = segment_objective(
                batch, segment, state.carry, self.window, self.stride, scale
            )
        else:
            regulariser = self._build("regulariser", hyperparameters)
            of_network = sequence_objective(batch, regulariser, self.window, self.stride, scale)
        merge = partial(self.merge, constants=state.constants)
        return key, batch, lambda parameters, rule: of_network(merge(parameters), rule)

    @partial(jax.jit, static_argnums=0)
    def _grad_norm(self, state: State, batch: Batch) -> Float[Array, ""]:
        return optax.tree.norm(jax.grad(self.loss)(state.parameters, batch, state.constants))

    def _loss_of_carry(
        self, parameters: nnx.State, carry: PyTree, target: tuple[Array, Array]
    ) -> Float[Array, ""]:
        """Return one step's part of the mean loss.

        Raises:
            ConfigError: the readout reads an output that is no part of the carry.
        """
        if self.output_leaf is None:
            model = self.config.model
            has_skips = model.num_layers > 1 and model.skip != "none"
            name = f"model.skip={model.skip}" if has_skips else model.cell["_target_"]
            raise ConfigError(
                "a probe of the loss needs a cell whose output is a part of its carry, as h is; "
                f"that of {name} is none: leave out the probes adjoint and contribution."
            )
        network = self.merge(parameters)
        hidden = jax.tree.leaves(carry)[self.output_leaf]
        return target[1] * losses(network.readout(hidden), target[0])

    def _network(self, hyperparameters: Hyperparameters, key: Key[Array, ""]) -> Network:
        section = self._section("init", hyperparameters)
        section.pop("floss", None)
        initialiser = partial(draw_matrix, section)
        bias_rule = partial(build, self._section("bias", hyperparameters))
        sizes = (self.task.features, self.task.outputs)
        return build_network(self.config.model, initialiser, bias_rule, *sizes, key)

    def _global_norm_threshold(self, hyperparameters: Hyperparameters) -> float:
        clip = self._section("clip", hyperparameters)
        by_global_norm = clip["_target_"] == "gradlab.clipping.global_norm"
        return float(clip["threshold"]) if by_global_norm else float("inf")

    def _build(self, section: str, hyperparameters: Hyperparameters) -> Any:
        return build(self._section(section, hyperparameters))

    def _section(self, section: str, hyperparameters: Hyperparameters) -> dict[str, Any]:
        prefix = f"{section}."
        values = {
            k.removeprefix(prefix): v for k, v in hyperparameters.items() if k.startswith(prefix)
        }
        return getattr(self.config, section) | values


def has_ended(state: State) -> Bool[Array, "*points"]:
    """Return whether a state changes no more."""
    return state.diverged | state.stopped


def hyperparameters_of(config: Config) -> Hyperparameters:
    """Return a checked config's traced values as arrays: reals in float32, the seed in uint32."""
    kinds = {float: jnp.float32, int: jnp.uint32}
    return {k: jnp.asarray(v, kinds[type(v)]) for k, v in traced(config).items()}


def _split(network: Network) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    definition, parameters, constants = nnx.split(network, nnx.Param, ...)  # type: ignore[misc]
    return definition, parameters, constants


def _carry_and_output(cell: nnx.RNNCellBase, features: int) -> tuple[CarryForm, int | None]:
    """Return the form of a cell's carry, and which leaf of it is the cell's output, if one is.

    Nothing is computed; the cell's arrays may be abstract.
    """
    definition, variables = nnx.split(cell)
    traced_facts: list[tuple[CarryForm, int | None]] = []

    def trace(variables: nnx.State) -> None:
        traced_facts.append(carry_form(nnx.merge(definition, variables), features))

    jax.eval_shape(trace, variables)
    return traced_facts[0]
