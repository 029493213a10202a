"""Continual embedded Reber strings (many-to-many, synchronised): predict the next symbol."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import check_longer, draw_test_batch

SYMBOLS = "BTPSXVE"
INNER_EDGES = {  # Reber 1967: the edges that leave each node, as (symbol, next node)
    0: (("T", 1), ("P", 2)),
    1: (("S", 1), ("X", 3)),
    2: (("T", 2), ("V", 4)),
    3: (("X", 2), ("S", 5)),
    4: (("P", 3), ("V", 5)),
}
MIN_STRING = 9  # BTBTXSETE


def continual_reber(
    length: Count = 200, test_length: Count | None = None, test_size: Count = 200
) -> Task:
    """Predict the next symbol of a stream of embedded Reber strings, at every step.

    Gers, Schmidhuber & Cummins 2000, after Hochreiter & Schmidhuber 1997. A string is B, an outer
    symbol (T or P), a string of Reber's grammar, the same outer symbol again, E; the next string
    follows without a mark or a reset. Each branch is taken with probability ½.

    Training weights every step. Test streams weight only the steps whose target is the second outer
    symbol, which nothing but a memory of the first one predicts. Baseline: ln 2, the cross entropy
    there of a network that knows the grammar but has forgotten the first one; its accuracy is ½.

    Args:
        length: symbols of a training stream, at least 10; a string has 9 or more, 12 on average.
        test_length: symbols of a test stream; None: `length`.
        test_size: number of test streams.

    Raises:
        ConfigError: a stream has no room for a whole string.

    Example:
        >>> from gradlab.tasks.reber import continual_reber
        >>> continual_reber(length=50, test_size=16).features  # the symbols of Reber's grammar
        7
    """
    for steps in (length, test_length or length):
        check_longer(steps, MIN_STRING, "the shortest string")
    symbols, next_nodes, emits_outer = (jnp.asarray(table) for table in embedded_grammar())

    def draw_stream(key: Key[Array, ""], steps: int) -> tuple[Array, Array]:
        def step(node: Array, branch: Array) -> tuple[Array, tuple[Array, Array]]:
            return next_nodes[node, branch], (symbols[node, branch], emits_outer[node])

        branches = jax.random.randint(key, (steps + 1,), 0, 2)
        return jax.lax.scan(step, jnp.int32(0), branches)[1]

    def draw_streams(
        key: Key[Array, ""], batch_size: int, steps: int
    ) -> tuple[Batch, Bool[Array, "batch time"]]:
        keys = jax.random.split(key, batch_size)
        stream, is_outer = jax.vmap(partial(draw_stream, steps=steps))(keys)
        inputs = jax.nn.one_hot(stream[:, :-1], len(SYMBOLS))
        return Batch(inputs, stream[:, 1:], jnp.ones((batch_size, steps))), is_outer[:, 1:]

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        return draw_streams(key, batch_size, length)[0]

    def sample_test(key: Key[Array, ""], batch_size: int) -> Batch:
        batch, is_outer = draw_streams(key, batch_size, test_length or length)
        weights: Float[Array, "batch time"] = is_outer.astype(jnp.float32)
        return batch._replace(weights=weights)

    return Task(
        features=len(SYMBOLS),
        outputs=len(SYMBOLS),
        sample=sample,
        test=draw_test_batch(sample_test, test_size),
        baseline=math.log(2),
    )


def embedded_grammar() -> tuple[Int[np.ndarray, "nodes 2"], Int[np.ndarray, "nodes 2"], list[bool]]:
    """Return the embedded grammar as tables over its nodes; node 0 begins a string.

    Returns:
        The symbols of a node's two branches, the nodes that they lead to, and whether the node
        emits the second outer symbol.
    """
    edges: dict[str, tuple[tuple[str, str], ...]] = {
        "start": (("B", "outer"),),
        "outer": (("T", "T:begin"), ("P", "P:begin")),
        "end": (("E", "start"),),
    }
    for outer in "TP":
        edges[f"{outer}:begin"] = (("B", f"{outer}:0"),)
        edges |= {
            f"{outer}:{node}": tuple((symbol, f"{outer}:{target}") for symbol, target in branches)
            for node, branches in INNER_EDGES.items()
        }
        edges[f"{outer}:5"] = (("E", f"{outer}:last"),)
        edges[f"{outer}:last"] = ((outer, "end"),)
    names = list(edges)
    two_branches = [(branches * 2)[:2] for branches in edges.values()]  # an only branch twice
    symbols = [[SYMBOLS.index(symbol) for symbol, _ in branches] for branches in two_branches]
    next_nodes = [[names.index(target) for _, target in branches] for branches in two_branches]
    return np.array(symbols), np.array(next_nodes), [name.endswith(":last") for name in names]
