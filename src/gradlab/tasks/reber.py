"""Continual embedded Reber strings (many-to-many, synchronised): what comes next in a stream."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import check_room, held_out

SYMBOLS = "BTPSXVE"
INNER = {  # Reber 1967: from a node, the symbols that may come and where each leads
    0: (("T", 1), ("P", 2)),
    1: (("S", 1), ("X", 3)),
    2: (("T", 2), ("V", 4)),
    3: (("X", 2), ("S", 5)),
    4: (("P", 3), ("V", 5)),
}
SHORTEST = 9  # BTBTXSETE


def _embedded() -> tuple[Int[np.ndarray, "nodes 2"], Int[np.ndarray, "nodes 2"], list[bool]]:
    """Symbol and next node of both ways out of each node, and which nodes ask for the outer one."""
    edges: dict[str, tuple[tuple[str, str], ...]] = {
        "start": (("B", "outer"),),
        "outer": (("T", "T:begin"), ("P", "P:begin")),
        "end": (("E", "start"),),
    }
    for outer in "TP":
        edges[f"{outer}:begin"] = (("B", f"{outer}:0"),)
        edges |= {
            f"{outer}:{node}": tuple((symbol, f"{outer}:{to}") for symbol, to in ways)
            for node, ways in INNER.items()
        }
        edges[f"{outer}:5"] = (("E", f"{outer}:last"),)
        edges[f"{outer}:last"] = ((outer, "end"),)
    names = list(edges)
    ways = [(ways * 2)[:2] for ways in edges.values()]  # one way twice: both choices lead there
    symbols = [[SYMBOLS.index(symbol) for symbol, _ in two] for two in ways]
    follow = [[names.index(to) for _, to in two] for two in ways]
    return np.array(symbols), np.array(follow), [name.endswith(":last") for name in names]


def continual_reber(
    length: Count = 200, test_length: Count | None = None, test_size: Count = 200
) -> Task:
    """Say at every step what symbol comes next in embedded Reber strings, one after another.

    Gers, Schmidhuber & Cummins 2000, after Hochreiter & Schmidhuber 1997: a string is B, T or P, a
    string of Reber's grammar, the same T or P again, E; the next begins without a mark or a reset.
    Training counts every step. Held-out streams count the second T or P alone, which only a memory
    of the first can tell: their accuracy is ½ and their loss ln 2 for who knows all but that.

    Args:
        length: symbols of a stream; strings have 9 or more, 12 on average.
        test_length: symbols of a held-out stream, by default as many.
        test_size: streams held out.

    Raises:
        ConfigError: a stream holds no whole string.
    """
    for symbols_shown in (length, test_length or length):
        check_room(symbols_shown, SHORTEST, "the shortest string")
    symbols, follow, asked = (jnp.asarray(part) for part in _embedded())

    def one(key: Key[Array, ""], size: int) -> tuple[Array, Array]:
        def step(node: Array, way: Array) -> tuple[Array, tuple[Array, Array]]:
            return follow[node, way], (symbols[node, way], asked[node])

        ways = jax.random.randint(key, (size + 1,), 0, 2)
        return jax.lax.scan(step, jnp.int32(0), ways)[1]

    def streams(key: Key[Array, ""], batch_size: int, size: int) -> tuple[Batch, Array]:
        shown, outer = jax.vmap(partial(one, size=size))(jax.random.split(key, batch_size))
        inputs = jax.nn.one_hot(shown[:, :-1], len(SYMBOLS))
        return Batch(inputs, shown[:, 1:], jnp.ones((batch_size, size))), outer[:, 1:]

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        return streams(key, batch_size, length)[0]

    def judged(key: Key[Array, ""], batch_size: int) -> Batch:
        batch, outer = streams(key, batch_size, test_length or length)
        return batch._replace(weights=outer.astype(jnp.float32))

    return Task(
        features=len(SYMBOLS),
        outputs=len(SYMBOLS),
        sample=sample,
        test=held_out(judged, test_size),
        baseline=math.log(2),
    )
