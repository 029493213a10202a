"""Any recurrent cell as a pure step on a flat state vector, and as an argument of `jax.jit`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, PyTree

from gradlab.jacobian.carry import CarryForm, FlatState, is_complex, is_inexact
from gradlab.jacobian.closure import Closure, closure_convert
from gradlab.jacobian.initial import first_sample, initial_state
from gradlab.jacobian.linearity import Dependence, dependence
from gradlab.jacobian.pure_step import PureStep, leaves_by_path, output_index, pure_step

StepFunction = Callable[[PyTree, Array], tuple[PyTree, Any]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FlatCell:
    """A cell whose state is one vector of n numbers, beside what derivatives hold fixed.

    Attributes:
        form: the cell's own carry.
        has_batch: whether `initial` holds a state for each sample of a batch.
        advance: s⁽ᵗ⁾ from (parameters, s⁽ᵗ⁻¹⁾, x⁽ᵗ⁾).
        differentiate: the step Jacobian J⁽ᵗ⁾, (n, n), from the same.
        parameters: the weights of a Flax cell, or those that were handed over beside a function.
        initial: s⁽⁰⁾.
        is_holomorphic: whether the carry has complex numbers only, and a step takes no conjugate,
            real or imaginary part of them, so that a step Jacobian is a complex matrix.
    """

    form: CarryForm = field(metadata={"static": True})
    has_batch: bool = field(metadata={"static": True})
    advance: Closure
    differentiate: Closure
    parameters: PyTree
    initial: FlatState
    is_holomorphic: bool = field(metadata={"static": True}, default=False)

    @property
    def example(self) -> FlatState:
        """The initial state, of the first sample if there are several."""
        return first_sample(self.initial) if self.has_batch else self.initial

    def step(self, state: FlatState, x: Float[Array, "features"]) -> FlatState:
        """Return the state after a step."""
        return self.advance(self.parameters, state, x)

    def jacobian(self, state: FlatState, x: Float[Array, "features"]) -> Float[Array, "n n"]:
        """Return the step Jacobian, in the cell's own precision; NaN if a state is not finite."""
        jacobian = self.differentiate(self.parameters, state, x)
        return jnp.where(self.stays_finite(state, x), jacobian, jnp.nan)

    def stays_finite(self, state: FlatState, x: Float[Array, "features"]) -> Bool[Array, ""]:
        """Return whether the state is finite before and after a step.

        If it is not, there is no derivative, whatever the cell's rules say: jax.nn.relu has the
        slope 0 at NaN.
        """
        both = jnp.stack([state.vector, self.step(state, x).vector])
        return jnp.isfinite(both).all()

    @property
    def dimensions(self) -> int:
        """The number of singular values of a step: complex ones count once if it is holomorphic."""
        whole = (0, self.form.size)
        return self.form.numbers(whole) if self.is_holomorphic else self.form.size

    def carry(self, state: FlatState) -> PyTree:
        """Return a state as the cell's own carry."""
        return self.form.join(state.vector, state.held[0])

    def map_samples(
        self, measure: Callable[..., Any], *data: PyTree, samples: int | None = None
    ) -> Any:
        """Return measure(cell, *data) of one sample, or of every sample of a batch.

        Args:
            measure: takes this cell, with the initial state of the sample, and the sample's data.
            data: arrays, (batch, ...) each where the cell has a batch.
            samples: the number of samples that run at once; by default one after the other.
        """
        if not self.has_batch:
            return measure(self, *data)

        def measure_sample(sample: tuple[Any, ...]) -> Any:
            return measure(replace(self, has_batch=False, initial=sample[0]), *sample[1:])

        return jax.lax.map(measure_sample, (self.initial, *data), batch_size=samples)

    def each_sample(self, inputs: Float[Array, "*batch T features"]) -> Iterator[tuple[Any, Array]]:
        """Yield this cell with the initial state of each sample of a batch, and its inputs."""
        if not self.has_batch:
            yield self, inputs
            return
        for index, sample in enumerate(inputs):
            initial = jax.tree.map(lambda x, i=index: x[i], self.initial)
            yield replace(self, has_batch=False, initial=initial), sample


def flatten_cell(
    cell: nnx.RNNCellBase | Callable[..., Any],
    inputs: Float[Array, "*batch T features"] | jax.ShapeDtypeStruct,
    initial_carry: PyTree | None = None,
    parameters: PyTree | None = None,
    *,
    jacobian: Callable[..., Any] | None = None,
) -> FlatCell:
    """Return a Flax cell, or a function step(carry, x) -> (carry, y), as a step on a vector.

    The cell is traced at each call, so it is measured as it is now.

    Args:
        cell: the cell or function; it must take one sample, without a batch axis.
        inputs: (time, features) or (batch, time, features).
        initial_carry: the state s⁽⁰⁾ of one sample, shared by a batch, or of every sample, with
            the batch's leading axis; by default the cell's own.
        parameters: the weights of a plain function, which is then step(parameters, carry, x).
        jacobian: takes the derivative, jax.jacrev; by default jax.jacfwd where a cell allows it.

    Raises:
        ValueError: the inputs or the initial carry do not fit, a step returns another carry, or
            a jax.custom_vjp in it is not linear.
        TypeError: the cell is no cell and no function.
    """
    check_inputs(inputs)
    x = jax.ShapeDtypeStruct(inputs.shape[-1:], inputs.dtype)
    batch = inputs.shape[0] if len(inputs.shape) == 3 else None
    pure = pure_step(cell, parameters)
    carry, is_batched = initial_state(pure, x, batch, initial_carry)
    example = first_sample(carry) if is_batched else carry
    if isinstance(cell, nnx.Module):
        _check_complex_inputs(x, pure.parameters, carry)
    form = CarryForm.of(example, _names_of_pair(cell, pure, example, x))

    def flatten(carry: PyTree, own: PyTree) -> FlatState:
        vector, held = form.split(carry)
        return FlatState(vector, (held, own))

    def advance(parameters: PyTree, state: FlatState, x: Array) -> FlatState:
        held, own = state.held
        return flatten(*pure.step(parameters, own, form.join(state.vector, held), x)[:2])

    def differentiate(parameters: PyTree, state: FlatState, x: Array) -> Array:
        def step(vector: Array) -> Array:
            return advance(parameters, state._replace(vector=vector), x).vector

        return (jacobian or _forward_or_reverse)(step)(state.vector)

    initial = flatten(example, pure.own)
    arguments = (pure.parameters, initial, x)
    advance_closure = closure_convert(advance, *arguments)
    jacobian_closure = closure_convert(differentiate, *arguments)
    if is_batched:
        initial = jax.vmap(lambda carry: flatten(carry, pure.own))(carry)
    elif batch is not None:
        initial = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (batch, *leaf.shape)), initial)
    return FlatCell(
        form,
        batch is not None,
        advance_closure,
        jacobian_closure,
        pure.parameters,
        initial,
        _is_holomorphic(form, pure, example, x),
    )


def carry_form(cell: nnx.RNNCellBase, features: int) -> tuple[CarryForm, int | None]:
    """Return the form of a Flax cell's own carry, and which leaf of it is the output, if one is."""
    x, pure = jax.ShapeDtypeStruct((features,), jnp.float32), pure_step(cell, None)
    carry, _ = initial_state(pure, x, None, None)
    form = CarryForm.of(carry, _names_of_pair(cell, pure, carry, x))
    return form, output_index(pure, carry, x)


def _check_complex_inputs(x: jax.ShapeDtypeStruct, *arrays: PyTree) -> None:
    """Check that a Flax cell does not cast complex inputs to the type of its real weights."""
    if is_complex(x) and not any(map(is_complex, jax.tree.leaves(arrays))):
        raise ValueError(
            "complex inputs are not measured with a cell of real numbers, which would drop their "
            "imaginary parts: pass real and imaginary parts apart."
        )


def _names_of_pair(
    cell: Any, pure: PureStep, carry: PyTree, x: jax.ShapeDtypeStruct
) -> tuple[str, str]:
    """Return the names of a pair's parts: the one that a step returns as its output is h.

    Where neither is, a Flax cell's are (c, h), as in Flax's LSTM; a function's have no names.
    """
    leaves = jax.tree.leaves(carry)
    is_pair = type(carry) in (tuple, list) and len(leaves) == len(carry) == 2
    is_pair = is_pair and all(map(is_inexact, leaves))
    output = output_index(pure, carry, x) if is_pair else None
    if output is None:
        return ("c", "h") if isinstance(cell, nnx.Module) else ("0", "1")
    return ("h", "c") if output == 0 else ("c", "h")


def _is_holomorphic(
    form: CarryForm, pure: PureStep, carry: PyTree, x: jax.ShapeDtypeStruct
) -> bool:
    """Return whether the derivative of a step is a complex-linear function of complex numbers."""
    numbers, held = form.differentiated(carry)
    if not all(map(is_complex, numbers)):
        return False

    def push_forward(
        tangents: list[Array], numbers: list[Array], arguments: PyTree, x: Array
    ) -> list[Array]:
        parameters, own, held = arguments

        def step(numbers: list[Array]) -> list[Array]:
            after = pure.step(parameters, own, form.carry(numbers, held), x)[0]
            return form.differentiated(after)[0]

        return jax.jvp(step, (numbers,), (tangents,))[1]

    try:
        found = dependence(push_forward, numbers, numbers, (pure.parameters, pure.own, held), x)
    except TypeError as error:
        if not _needs_reverse_mode(error):
            raise
        return False
    return found <= Dependence.COMPLEX_LINEAR


def _forward_or_reverse(step: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Return the Jacobian in forward mode; in reverse mode if a jax.custom_vjp allows no other."""

    def jacobian(vector: Float[Array, "n"]) -> Float[Array, "n n"]:
        try:
            return jax.jacfwd(step)(vector)
        except TypeError as error:
            if not _needs_reverse_mode(error):
                raise
        check_linear(lambda adjoint, vector: jax.vjp(step, vector)[1](adjoint), vector, vector)
        return jax.jacrev(step)(vector)

    return jacobian


def _needs_reverse_mode(error: TypeError) -> bool:
    return "custom_vjp" in str(error)


def check_linear(pull_back: Callable[..., Any], adjoint: PyTree, *arguments: PyTree) -> None:
    """Check that a step's backward pass is a linear function of the adjoint.

    Args:
        pull_back: takes the adjoint and the arguments.
        adjoint, arguments: examples.

    Raises:
        ValueError: it is not: a jax.custom_vjp clips the adjoint, say.
    """
    if dependence(pull_back, adjoint, *arguments) == Dependence.NONLINEAR:
        raise ValueError(
            "the step has a jax.custom_vjp whose backward rule is not linear in the gradient that "
            "it is given (it clips or normalises it, say): such a step has no Jacobian. Measure it "
            "without that rule."
        )


def split_weights(
    parameters: PyTree,
) -> tuple[dict[str, Array], Callable[[dict[str, Array]], PyTree]]:
    """Return the real and complex arrays of a cell, and a function that puts others in their place.

    Args:
        parameters: the cell's arrays, as `FlatCell.parameters` or a gradient holds them.

    Returns:
        The weights by dotted path ("dense_h.kernel"; a lone array is "weights"), and
        rebuild(weights), which returns parameters with these weights.
    """
    arrays, structure = leaves_by_path(parameters), jax.tree.structure(parameters)
    weights = {path or "weights": array for path, array in arrays.items() if is_inexact(array)}

    def rebuild(others: dict[str, Array]) -> PyTree:
        leaves = [others.get(path or "weights", array) for path, array in arrays.items()]
        return jax.tree.unflatten(structure, leaves)

    return weights, rebuild


def check_inputs(inputs: Array | jax.ShapeDtypeStruct) -> None:
    """Check that inputs are (time, features) or (batch, time, features).

    Raises:
        ValueError: they have another rank, or no time step.
    """
    if len(inputs.shape) not in (2, 3):
        raise ValueError(
            "inputs must be (time, features) or (batch, time, features); "
            f"got an array of shape {inputs.shape}."
        )
    if inputs.shape[-2] < 1:
        raise ValueError(
            f"inputs must have at least one time step; got an array of shape {inputs.shape}."
        )
