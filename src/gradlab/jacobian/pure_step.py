"""A cell, or a function of somebody's, as a pure function of its weights and of its own state."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen, nnx
from flax.errors import TraceContextError
from jax import Array
from jax.tree_util import keystr, tree_flatten_with_path
from jaxtyping import PyTree

from gradlab.jacobian.arguments import first_line, is_plain
from gradlab.jacobian.carry import described
from gradlab.jacobian.closure import equal_results, passed_on


class PureStep(NamedTuple):
    """A step without side effects.

    Attributes:
        step: (parameters, own, carry, x) -> (carry, own, output).
        parameters: weights that are known by name; a plain function may read others besides.
        own: integers and random keys that a Flax cell keeps outside its carry, such as the count
            of a dropout layer's draws.
        carry_of: the cell's own initial carry, from (parameters, number of features); None if it
            has none.
    """

    step: Callable[[PyTree, PyTree, PyTree, Array], tuple[PyTree, PyTree, PyTree]]
    parameters: PyTree
    own: PyTree
    carry_of: Callable[[PyTree, int], PyTree] | None


def pure_step(cell: nnx.RNNCellBase | Callable[..., Any], parameters: PyTree | None) -> PureStep:
    """Return a Flax cell, step(carry, x) or, with parameters, step(parameters, carry, x), as pure.

    Raises:
        TypeError: it is none of these.
    """
    check_kind(cell)
    if (axes := _feature_axes(cell)) != 1:
        raise TypeError(
            f"an input of {type(cell).__name__} has {axes} axes of features, and "
            "inputs here are (time, features): pass a function that reshapes x, and initial_carry."
        )
    _check_takes(cell, 2 if parameters is None else 3)
    if not isinstance(cell, nnx.Module):
        return _of_function(cell, parameters)
    return _of_module(cell)


def check_kind(cell: Any) -> None:
    """Check that a cell is a Flax cell or a function, and no class, network or foreign layer.

    Raises:
        TypeError: it is none; the message says what to pass instead.
    """
    origins = {base.__module__ for base in type(cell).__mro__}
    if isinstance(cell, type):
        is_flax = issubclass(cell, nnx.Module)
        example = f", such as {cell.__name__}(3, 16, rngs=nnx.Rngs(0))" if is_flax else ""
        wrong = f"{cell.__name__} is a class: pass an instance{example}"
    elif isinstance(cell, linen.Module):
        wrong = (
            "a Linen cell's weights lie outside it: pass a function, "
            "lambda carry, x: cell.apply(variables, carry, x), and its initial_carry"
        )
    elif isinstance(cell, nnx.RNN):
        wrong = "flax.nnx.RNN runs a cell over a sequence: pass the cell, rnn.cell"
    elif isinstance(cell, nnx.Bidirectional):
        wrong = (
            "flax.nnx.Bidirectional runs two cells over a sequence, one of them backwards: pass "
            "one of them, such as bidirectional.forward_rnn.cell"
        )
    elif any(origin.partition(".")[0] == "torch" for origin in origins):
        wrong = (
            f"{type(cell).__name__} is a torch module, which JAX cannot differentiate: pass "
            "gradlab.from_torch(module), a Flax cell with its weights"
        )
    elif any(origin.partition(".")[0] == "keras" for origin in origins):
        wrong = (
            f"{type(cell).__name__} is a Keras layer: pass gradlab.from_keras(layer), a Flax cell "
            "with its weights"
        )
    elif any(origin.startswith("equinox.nn") for origin in origins):
        wrong = (
            f"an Equinox {type(cell).__name__} takes (x, carry) and returns no pair: pass a "
            "function step(carry, x) that calls it and returns (carry, y), and its initial_carry"
        )
    elif not callable(cell):
        wrong = f"got {type(cell).__name__}"
    else:
        return
    raise TypeError(
        f"cell must be a flax.nnx recurrent cell or a function step(carry, x) -> (carry, y); "
        f"{wrong}."
    )


def _check_takes(cell: Any, count: int) -> None:
    """Check that a cell can be called with a carry and an input, and parameters before them."""
    if isinstance(cell, nnx.Module) and count == 3:
        raise ValueError("parameters are those of a plain function; a Flax cell holds its own.")
    try:
        signature = inspect.signature(cell)
    except (TypeError, ValueError):  # of a function that has none
        return
    try:
        signature.bind(*range(count))
    except TypeError as error:
        names = "(carry, x)" if count == 2 else "(parameters, carry, x)"
        hint = ": pass its cell, .cell" if hasattr(cell, "cell") else ""
        raise TypeError(
            f"cell must take {names}, as a step; {_name(cell)} takes {signature}{hint}."
        ) from error


def _name(cell: Any) -> str:
    function = cell.func if isinstance(cell, partial) else cell
    return getattr(function, "__name__", None) or type(function).__name__


def _feature_axes(cell: Any) -> int:
    try:
        return getattr(cell, "num_feature_axes", 1)
    except NotImplementedError:  # nnx.RNNCellBase leaves it to its subclasses
        return 1


def _of_function(function: Callable[..., Any], parameters: PyTree | None) -> PureStep:
    def step(
        parameters: PyTree | None, own: PyTree, carry: PyTree, x: Array
    ) -> tuple[PyTree, PyTree, PyTree]:
        leading = () if parameters is None else (parameters,)
        carry, output = _run(function, leading, carry, x)
        return carry, own, output

    return PureStep(step, parameters, (), None)


def _of_module(cell: nnx.Module) -> PureStep:
    definition, parameters, own = _split(cell)

    def step(
        parameters: PyTree, own: PyTree, carry: PyTree, x: Array
    ) -> tuple[PyTree, PyTree, PyTree]:
        before = leaves_by_path(parameters)
        own_paths, own_structure = list(leaves_by_path(own)), jax.tree.structure(own)
        # Copies of the variables, which may be written to in the trace in which they were made.
        module: Any = nnx.merge(definition, *jax.tree.map(lambda x: x, (parameters, own)))
        carry, output = _run(module, (), carry, x)
        after, own_after = map(leaves_by_path, _split(module)[1:])
        changed = [path for path, leaf in before.items() if after.get(path) is not leaf]
        if changed:  # nnx.jit and nnx.remat write back what they were given, as other tracers
            same = _passed_on(definition, parameters, own, carry, x)
            changed = [path for path in changed if path not in same]
        if changed:
            raise ValueError(
                f"the cell changes {', '.join(changed)} at each step, outside its carry, where no "
                "derivative sees it: call cell.eval() for a batch norm, or return it in the carry."
            )
        own = jax.tree.unflatten(own_structure, [own_after[path] for path in own_paths])
        return carry, own, output

    def carry_of(parameters: PyTree, features: int) -> PyTree:
        # A copy: drawing random numbers advances the counts of those who draw.
        module: Any = nnx.merge(definition, *jax.tree.map(lambda x: x, (parameters, own)))
        return module.initialize_carry((features,), nnx.Rngs(0))

    has_carry = hasattr(cell, "initialize_carry")
    return PureStep(step, parameters, own, carry_of if has_carry else None)


def _passed_on(
    definition: nnx.GraphDef[Any], parameters: PyTree, own: PyTree, carry: PyTree, x: Array
) -> set[str]:
    """Return the paths of the parameters that a step hands on as they are."""
    paths = list(leaves_by_path(parameters))

    def after(parameters: PyTree, own: PyTree, carry: PyTree, x: Array) -> list[Any]:
        module: Any = nnx.merge(definition, parameters, own)
        _run(module, (), carry, x)
        found = leaves_by_path(_split(module)[1])
        return [found.get(path, 0) for path in paths]

    origins = passed_on(after, parameters, own, carry, x)
    return {path for index, path in enumerate(paths) if origins[index] == index}


def _split(module: nnx.Module) -> tuple[nnx.GraphDef[Any], PyTree, PyTree]:
    """Return a module's definition, its floating-point (or complex) arrays, and its others."""

    def is_inexact(path: Any, variable: Any) -> bool:
        leaves = jax.tree.leaves(variable)
        return bool(leaves) and all(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves)

    definition, inexact, others = nnx.split(module, is_inexact, ...)  # type: ignore[misc]
    return definition, inexact, others


def leaves_by_path(tree: PyTree) -> dict[str, Array]:
    """Return the arrays of a pytree by dotted path ("dense_h.kernel"); that of a lone one is ""."""
    return {
        keystr(path, simple=True, separator=".").removesuffix(".value"): leaf
        for path, leaf in tree_flatten_with_path(tree)[0]
    }


def output_index(pure: PureStep, carry: PyTree, x: jax.ShapeDtypeStruct) -> int | None:
    """Return the leaf of the new carry that is the step's output; None if none is.

    Args:
        pure: the step.
        carry: of one sample.
        x: shape and type of one step's input.
    """

    def step(parameters: PyTree, carry: PyTree, x: Array) -> tuple[PyTree, PyTree]:
        carry, _, output = pure.step(parameters, pure.own, carry, x)
        return carry, output

    size = len(jax.tree.leaves(carry))
    leaves = equal_results(step, pure.parameters, carry, x)
    if len(leaves) != size + 1:
        return None
    matches = [leaf for leaf in range(size) if leaves[leaf] == leaves[size]]
    return matches[-1] if matches else None


def _run(
    cell: Callable[..., Any], leading: tuple[PyTree, ...], carry: PyTree, x: Array
) -> tuple[PyTree, PyTree]:
    """Return the carry and the output of a step.

    Raises:
        ValueError: the step cannot run on such a carry and input, or returns no pair.
    """
    try:
        result = cell(*leading, carry, x)
    except TraceContextError as error:
        raise ValueError(
            "the step changes the state of a Flax module that it reads, such as a dropout's "
            "or a batch norm's: call that module's eval() first, or pass the cell itself."
        ) from error
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        if not is_plain(error) or "custom_vjp" in str(error):  # reverse mode is tried next
            raise
        given = "(parameters, carry, x)" if leading else "(carry, x)"
        raise ValueError(
            f"{_name(cell)} does not run on one step's inputs {described(x)} and the carry "
            f"{described(carry)} ({first_line(error)}): it is given {given}, inputs must have the "
            "features that it reads, and initial_carry the form that it takes."
        ) from error
    if not (isinstance(result, tuple | list) and len(result) == 2):
        raise ValueError(
            "the step must return (carry, output), as flax.nnx cells and jax.lax.scan have it; "
            f"got a {type(result).__name__}."
        )
    return result[0], result[1]
