"""Maps of several cells in one program against those of each cell."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradlab import jacobian_log_norms
from gradlab.jacobian import together
from gradlab.jacobian.together import log_norms_together

RNG = np.random.default_rng(0)
INPUTS = jnp.asarray(RNG.normal(size=(3, 9, 2)), jnp.float32)
GAINS = (0.3, 1.0, 3.0, 1.5)


def with_gain(cell: Any, gain: float) -> Any:
    cell.dense_h.kernel[...] *= gain
    return cell


CELLS = [with_gain(nnx.SimpleCell(2, 4, rngs=nnx.Rngs(seed)), g) for seed, g in enumerate(GAINS)]


class IndRNN(nnx.RNNCellBase):
    """Units that do not act on each other (Li et al. 2018, equation 2)."""

    def __init__(self, size: int, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (2, size)))
        self.weight = nnx.Param(jnp.linspace(0.5, 1.0, size))

    def __call__(self, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jnp.tanh(self.weight * h + x @ self.kernel)
        return h, h

    def initialize_carry(self, *_: Any) -> jax.Array:
        return jnp.zeros(self.weight.shape)

    @property
    def num_feature_axes(self) -> int:
        return 1


def stacked(cells: list[Any]) -> tuple[nnx.GraphDef, nnx.State]:
    definitions, states = zip(*map(nnx.split, cells), strict=True)
    return definitions[0], jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


@pytest.mark.parametrize(
    ("norm", "lengths"), [("spectral", None), ("rms", np.array([9, 4, 1])), ("rms", None)]
)
def test_each_map_is_that_of_its_cell_alone(norm: Any, lengths: np.ndarray | None) -> None:
    options: dict[str, Any] = {"norm": norm, "stride": 2, "lengths": lengths}
    maps = log_norms_together(*stacked(CELLS), INPUTS, **options)
    alone = [jacobian_log_norms(cell, INPUTS, **options) for cell in CELLS]
    np.testing.assert_allclose(maps, np.stack(alone), atol=1e-5)


def test_what_does_not_fit_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = log_norms_together(*stacked(CELLS), INPUTS, norm="frobenius")
    sizes = []

    def counted(definition: Any, states: Any, *rest: Any, **options: Any) -> Any:
        sizes.append(len(rest[-1]))
        return measure(definition, states, *rest, **options)

    measure = together._maps
    monkeypatch.setattr(together, "_maps", counted)
    # Of 9 steps of 4 × 4: room for the arrays of 5 of the 12 maps.
    budget = 5 * (12 * 9 * 16 * 8 + 3 * 100 * 8 + 4 * 100)
    parts = log_norms_together(*stacked(CELLS), INPUTS, norm="frobenius", memory_budget=budget)
    assert sizes == [4, 4, 4]
    np.testing.assert_array_equal(parts, whole)


def test_a_cell_that_is_not_finite_spoils_no_other() -> None:
    broken = nnx.clone(CELLS[1])
    broken.dense_h.kernel[...] = jnp.inf
    maps = log_norms_together(*stacked([CELLS[0], broken, CELLS[2]]), INPUTS)
    healthy = log_norms_together(*stacked([CELLS[0], CELLS[1], CELLS[2]]), INPUTS)
    assert maps is not None
    assert healthy is not None
    np.testing.assert_array_equal(maps[::2], healthy[::2])
    below = np.tril_indices(10, -1)
    assert np.isnan(maps[1][:, *below]).any(axis=-1).all()


def test_cells_with_a_better_way_of_their_own_are_left_to_it() -> None:
    independent = [IndRNN(20, nnx.Rngs(seed)) for seed in range(2)]
    assert log_norms_together(*stacked(independent), INPUTS) is None
    assert log_norms_together(*stacked(CELLS), INPUTS, memory_budget=1000) is None
