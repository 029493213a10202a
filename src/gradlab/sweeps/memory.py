"""The memory that a point takes, and so how many points run together."""

import os
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from gradlab.training.precision import in_types_of_network
from gradlab.training.program import Program

SHARE = 0.6  # of a device's memory that points may take; the rest is for measuring


@in_types_of_network
def bytes_per_point(program: Program) -> int:
    """Return the bytes that one more vmapped point takes, from shapes alone: nothing is compiled.

    Training holds the state (old, new and the gradient) and what the backward pass needs of the
    forward pass; evaluation holds the largest array of the held-out sequences, as input and as
    output of an operation. Within a fifth of XLA's own count for the shapes it was tried on.
    """
    state = program.abstract_state()
    batch_size = program.config.train.batch_size
    batch = jax.eval_shape(lambda key: program.sample(key, batch_size), jax.random.key(0))
    residuals = jax.eval_shape(
        lambda state, batch: jax.vjp(
            lambda p: program.loss(p, batch, state.constants), state.parameters
        )[1],
        state,
        batch,
    )
    evaluation = jax.make_jaxpr(program.evaluate)(state).jaxpr
    training = _size(residuals) + _size(batch)
    return 3 * _size(state) + max(training, 2 * max(_output_sizes(evaluation)))


def points_at_once(program: Program, count: int, devices: Sequence[jax.Device], lanes: int) -> int:
    """Return how many of a group's points to vmap, so that chunks fit and come out equal.

    Args:
        program: the group's.
        count: the group's points.
        devices: those that chunks are spread over.
        lanes: chunks that run at once; several share a CPU's memory.
    """
    fit = max(1, int(SHARE * _memory(devices[0], lanes) / bytes_per_point(program)))
    rounds = ceil(count / (fit * len(devices)))
    return ceil(count / (rounds * len(devices)))


def _memory(device: jax.Device, lanes: int) -> float:
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit:
        return limit
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / lanes  # a CPU's


def _size(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree) if hasattr(x, "dtype"))


def _output_sizes(jaxpr: Jaxpr) -> Iterator[int]:
    """Yield the bytes of each operation's outputs, of those inside loops and calls too."""
    yield 0
    for equation in jaxpr.eqns:
        yield sum(_size(variable.aval) for variable in equation.outvars)
        for inner in jax.tree.leaves(
            equation.params, is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr)
        ):
            if isinstance(inner, ClosedJaxpr | Jaxpr):
                yield from _output_sizes(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)
