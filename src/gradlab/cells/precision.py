"""A cell run in another floating-point type than that of its weights.

The cast stands at the cell's boundary, so cells need to know nothing of it, yours neither.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from gradlab.cells.gating import Gates, gates
from gradlab.cells.recurrence import AdjointRule, as_partial, step_by_step, unroll

BITS = 16  # of a half-precision number
OWN = ("definition", "dtype", "has_complex")


class InPrecision(nnx.RNNCellBase):
    """A cell that keeps its state and computes its steps in one type, its weights in their own.

    At every step weights, state and input are rounded to the type, the cell takes its step, and the
    new state and the output are rounded. The weights are this module's, under the cell's own
    names, so training changes them in their own type: with float32 weights this is the mixed
    precision with master weights of Micikevicius et al. 2018, and the gradient of a weight is a
    sum over steps in float32.

    A cell with complex numbers, which have no half type, is rounded too, but takes its steps in
    complex64 and float32: weights, input, output and both parts of the state are numbers that the
    type has. (With float16, those below its smallest normal number, 2⁻¹⁴, are 0.)

    Modes such as `eval()` must be set on the cell before it is wrapped.

    A compiled step may keep what lies between two operations in float32 (on a CPU it does), so it
    is at least as precise as the type; its state is rounded after every step.

    Example:
        >>> from gradlab.cells.precision import InPrecision
        >>> half = InPrecision(nnx.SimpleCell(3, 8, rngs=nnx.Rngs(0)), "bfloat16")
        >>> h, output = half(half.initialize_carry((3,), nnx.Rngs(0)), jnp.ones(3))
        >>> str(h.dtype), str(half.dense_h.kernel.dtype)
        ('bfloat16', 'float32')
    """

    def __init__(self, cell: nnx.RNNCellBase, dtype: str, features: int = 1) -> None:
        """Take over a cell's variables.

        Args:
            cell: any Flax recurrent cell.
            dtype: "bfloat16", "float16", "float32" or, with JAX's 64-bit types, "float64".
            features: size of an input, for a cell whose initial carry depends on it.

        Raises:
            ValueError: a variable of the cell has a name that this class uses.
        """
        self.definition, variables = nnx.split(cell)
        if taken := [x for x in map(str, variables) if x in OWN or hasattr(type(self), x)]:
            raise ValueError(
                f"model.dtype={dtype} needs other names than {', '.join(taken)} for variables of "
                f"{type(cell).__name__}: gradlab uses them."
            )
        for name in variables:
            setattr(self, str(name), nnx.data(getattr(cell, str(name))))
        # Flax's name for what a module computes in: the engine's certificate sets it to float64.
        self.dtype = jnp.dtype(dtype)
        start = jax.eval_shape(lambda: cell.initialize_carry((features,), nnx.Rngs(0)))
        self.has_complex = any(map(jnp.iscomplexobj, jax.tree.leaves((variables, start))))

    def __call__(
        self, carry: PyTree, inputs: Float[Array, "*batch features"]
    ) -> tuple[PyTree, Array]:
        """Return the rounded state and output of the cell's step from rounded numbers."""
        new, output = self.rounded()(self.round(carry), self.round(inputs))
        return self.round(new), self.round(output)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Any = None,
    ) -> PyTree:
        """Return the cell's initial carry, rounded."""
        chosen = {} if carry_init is None else {"carry_init": carry_init}
        return self.round(self.plain().initialize_carry(input_shape, rngs, **chosen))

    @property
    def num_feature_axes(self) -> int:
        """The number of feature axes of one input, as Flax's cells define it."""
        return self.plain().num_feature_axes

    def plain(self) -> nnx.RNNCellBase:
        """Return the cell itself, in the type of its weights."""
        return nnx.merge(self.definition, nnx.split(self)[1])

    def rounded(self) -> nnx.RNNCellBase:
        """Return the cell with rounded weights, each layer computing in this type."""
        cell = nnx.merge(self.definition, self.round(nnx.split(self)[1]))
        for _, module in nnx.iter_modules(cell):
            if vars(module).get("dtype") is not None and not self._rounds_wide:
                setattr(module, "dtype", self.dtype)  # noqa: B010 # float32 in Flax's SimpleCell
        return cell

    def round(self, numbers: PyTree) -> PyTree:
        """Return a pytree with its floating-point and complex numbers rounded."""
        return jax.tree.map(self._round, numbers)

    @property
    def _rounds_wide(self) -> bool:
        """Return whether rounded numbers are kept in float32 and complex64."""
        return self.has_complex and jnp.finfo(self.dtype).bits == BITS

    def _round(self, x: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        is_complex = jnp.iscomplexobj(x)
        if not self._rounds_wide:
            return x.astype(
                jnp.promote_types(self.dtype, jnp.complex64) if is_complex else self.dtype
            )
        limits = jnp.finfo(self.dtype)

        def part(x: Array) -> Array:
            return jax.lax.reduce_precision(x, int(limits.nexp), int(limits.nmant))

        return jax.lax.complex(part(x.real), part(x.imag)) if is_complex else part(x)


def plain_cell(cell: nnx.RNNCellBase) -> nnx.RNNCellBase:
    """Return a cell without the type that it is run in, if it is run in one of its own."""
    return cell.plain() if isinstance(cell, InPrecision) else cell


def is_half(cell: Any) -> bool:
    """Return whether a cell is run in bfloat16 or float16."""
    return isinstance(cell, InPrecision) and jnp.finfo(cell.dtype).bits == BITS


@gates.register
def _(cell: InPrecision, carry: PyTree, inputs: Array) -> Gates:
    return gates(cell.rounded(), cell.round(carry), cell.round(inputs))


@unroll.register
def _(
    cell: InPrecision,
    carry: PyTree,
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[PyTree, Array]:
    """Run in half precision by steps, which are what is measured; else as the cell runs.

    By steps, the gradient of the weights adds up in their own type, and no scan adds logarithms or
    products of many steps in half precision. A rule for the adjoint sees it in float32, in which
    its norm neither under- nor overflows.
    """
    carry, inputs = cell.round(carry), cell.round(inputs)
    if not is_half(cell):
        return unroll(cell.rounded(), carry, inputs, on_adjoint)
    rule = None if on_adjoint is None else Partial(_in_float32, as_partial(on_adjoint))
    return step_by_step(cell, carry, inputs, rule)


def _in_float32(rule: Partial, adjoint: PyTree) -> PyTree:
    def wide(x: Array) -> Array:
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

    return jax.tree.map(
        lambda x, old: x.astype(old.dtype), rule(jax.tree.map(wide, adjoint)), adjoint
    )
