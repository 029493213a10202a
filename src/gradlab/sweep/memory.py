"""How much memory a point takes, and so how many run together."""

import os
from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from gradlab.training.program import hyperparameters_of, program_for

SHARE = 0.6  # of a device's memory that points may take; the rest is for measuring


def bytes_per_point(config: Mapping[str, Any]) -> int:
    """What one more point of a vmapped program takes, from shapes alone: nothing is compiled.

    Training holds the state (old, new and the gradient) and what the backward pass needs of the
    forward; evaluation the largest array of the held-out sequences, going in and coming out.
    Within a fifth of XLA's own count for the shapes it was tried on.
    """
    program, hyperparameters = program_for(config), hyperparameters_of(config)
    state = jax.eval_shape(program.initialise, hyperparameters)
    batch = jax.eval_shape(
        lambda key: program.task.sample(key, config["train"]["batch_size"]), jax.random.key(0)
    )
    kept = jax.eval_shape(
        lambda parameters, batch: jax.vjp(lambda p: program.loss(p, batch), parameters)[1],
        state.parameters,
        batch,
    )
    evaluated = jax.make_jaxpr(program.evaluate)(state).jaxpr
    return 3 * _size(state) + max(_size(kept) + _size(batch), 2 * max(_outputs(evaluated)))


def points_at_once(config: Mapping[str, Any], count: int, devices: list[jax.Device]) -> int:
    """How many of a group's points to vmap, so that chunks fit and come out equal."""
    fit = max(1, int(SHARE * _memory(devices[0], len(devices)) / bytes_per_point(config)))
    rounds = ceil(count / (fit * len(devices)))
    return ceil(count / (rounds * len(devices)))


def _memory(device: jax.Device, sharing: int) -> float:
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit:
        return limit
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / sharing  # a CPU's


def _size(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree) if hasattr(x, "dtype"))


def _outputs(jaxpr: Jaxpr) -> Iterator[int]:
    """Bytes of what each operation gives, those inside loops and calls too."""
    yield 0
    for equation in jaxpr.eqns:
        yield sum(_size(variable.aval) for variable in equation.outvars)
        for inner in jax.tree.leaves(
            equation.params, is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr)
        ):
            if isinstance(inner, ClosedJaxpr | Jaxpr):
                yield from _outputs(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)
