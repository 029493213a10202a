"""The memory cells of 1997 against their paper's formulas, written out in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx

from gradlab.cells import LSTM1997, gates
from gradlab.jacobian import jacobian_log_norms
from gradlab.training.program import Program, hyperparameters_of

FEATURES, CELLS, SIZE, STEPS = 3, 4, 2, 7
BLOCKS = CELLS // SIZE


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def cell_of(truncate: bool = True, **options: object) -> LSTM1997:
    normal = nnx.initializers.normal(0.8)
    return LSTM1997(
        FEATURES,
        CELLS,
        block_size=SIZE,
        input_gate_bias=[-1.0, 0.5],
        bias_limit=0.7,
        truncate=truncate,
        kernel_init=normal,
        recurrent_kernel_init=normal,
        rngs=nnx.Rngs(3),
        **options,  # type: ignore[arg-type]
    )


def inputs() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(STEPS, FEATURES))


def outputs(cell: LSTM1997, x: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda s, x: cell(s, x), cell.initialize_carry((FEATURES,)), x)[1]


def by_the_paper(cell: LSTM1997, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells' outputs, and ∂(Σ y at the end)/∂(weights) by equations 21 to 28.

    The derivatives of the internal states are carried forward, as the paper does; rows of the
    weights are the input, the bias, the cells and the gates, and columns as in the cell.
    """
    linear_h = np.asarray(cell.dense_h.kernel[...], np.float64)
    linear_x = np.asarray(cell.dense_i.kernel[...], np.float64)
    bias = np.asarray(cell.dense_i.bias[...], np.float64)
    weights = np.concatenate([linear_x, bias[None], linear_h])
    s, y, gate = np.zeros(CELLS), np.zeros(CELLS), np.zeros(2 * BLOCKS)
    of_cells, of_inputs = np.zeros((len(weights), CELLS)), np.zeros((len(weights), CELLS))
    block = np.arange(CELLS) // SIZE
    history = []
    for now in x:
        source = np.concatenate([now, [1], y, gate])
        net = source @ weights
        gate = sigmoid(net[CELLS:])
        y_in, y_out = gate[:BLOCKS][block], gate[BLOCKS:][block]
        squashed = sigmoid(net[:CELLS])
        g, slope = 4 * squashed - 2, 4 * squashed * (1 - squashed)
        of_cells += source[:, None] * slope * y_in  # (27)
        of_inputs += source[:, None] * g * y_in * (1 - y_in)  # (25)
        s = s + y_in * g
        h = 2 * sigmoid(s) - 1
        y = y_out * h
        history.append(y)
    to_state = y_out * 2 * sigmoid(s) * (1 - sigmoid(s))  # (23), with an error of 1 at each cell
    gradient = np.zeros_like(weights)
    gradient[:, :CELLS] = of_cells * to_state  # (28)
    for b in range(BLOCKS):
        mine = block == b
        gradient[:, CELLS + b] = (of_inputs * to_state)[:, mine].sum(1)  # (26)
        out = gate[BLOCKS + b]
        gradient[:, CELLS + BLOCKS + b] = source * out * (1 - out) * h[mine].sum()  # (21, 22)
    return np.stack(history), gradient


def test_outputs_and_the_truncated_gradient_are_those_of_the_paper() -> None:
    cell, x = cell_of(), inputs()
    expected, of_weights = by_the_paper(cell, x)
    np.testing.assert_allclose(outputs(cell, jnp.asarray(x)), expected, atol=2e-6)
    gradient = nnx.grad(lambda cell: outputs(cell, jnp.asarray(x))[-1].sum())(cell)
    found = np.concatenate(
        [
            gradient["dense_i"]["kernel"][...],
            gradient["dense_i"]["bias"][...][None],
            gradient["dense_h"]["kernel"][...],
        ]
    )
    np.testing.assert_allclose(found, of_weights, atol=5e-6)


def test_the_total_gradient_is_that_of_finite_differences() -> None:
    cell, x = cell_of(truncate=False), jnp.asarray(inputs())
    definition, state = nnx.split(cell)

    def loss(change: float) -> jax.Array:
        shifted = jax.tree.map(lambda leaf: leaf.at[..., 0].add(change), state)
        return outputs(nnx.merge(definition, shifted), x)[-1].sum()

    numeric = (loss(1e-2) - loss(-1e-2)) / 2e-2
    assert jax.grad(loss)(0.0) == pytest.approx(float(numeric), rel=2e-3)
    truncated = outputs(cell_of(), x)
    np.testing.assert_allclose(outputs(cell, x), truncated, atol=1e-6)


def test_only_the_state_carries_the_truncated_gradient_and_it_does_so_whole() -> None:
    x = jnp.asarray(inputs())
    state = np.asarray(jacobian_log_norms(cell_of(), x, of="c", wrt="c"))
    np.testing.assert_allclose(state[np.tril_indices(STEPS + 1)], 0, atol=1e-5)
    from_gates = np.asarray(jacobian_log_norms(cell_of(), x, of="c", wrt="gates"))
    assert (from_gates[np.tril_indices(STEPS + 1, -1)] == -np.inf).all()
    total = np.asarray(jacobian_log_norms(cell_of(truncate=False), x, of="c", wrt="gates"))
    assert np.isfinite(total[2, 0])


def test_connections_below_read_the_input_alone_and_pass_it_on() -> None:
    cell = cell_of(connections="below", output_gate=False, cell_output="identity")
    x = inputs()
    found = np.asarray(outputs(cell, jnp.asarray(x)))
    assert found.shape == (STEPS, CELLS + FEATURES) == (STEPS, cell.output_features)
    np.testing.assert_allclose(found[:, CELLS:], x, rtol=1e-6)
    kernel, bias = (np.asarray(p[...]) for p in (cell.dense_i.kernel, cell.dense_i.bias))
    nets = x @ kernel + bias
    y_in = sigmoid(nets[:, CELLS:])[:, np.arange(CELLS) // SIZE]
    np.testing.assert_allclose(
        found[:, :CELLS], np.cumsum(y_in * (4 * sigmoid(nets[:, :CELLS]) - 2), axis=0), atol=2e-6
    )


@pytest.mark.parametrize(
    ("row", "printed"),
    [("2c", 664), ("3a", 102), ("4_T100", 93), ("5_n13", 93), ("6a", 156), ("6b", 308)],
)
def test_networks_have_as_many_weights_as_table_10_prints(
    composed: Compose, row: str, printed: int
) -> None:
    config = composed(f"+hs97={row}", "task.test_size=1")
    program = Program(config)
    state = jax.eval_shape(program.initialise, hyperparameters_of(config))
    assert sum(leaf.size for leaf in jax.tree.leaves(state.parameters)) == printed


def test_its_gates_are_known() -> None:
    cell = cell_of()
    found = gates(cell, cell.initialize_carry((FEATURES,)), jnp.asarray(inputs()[0]))
    assert {name: values.shape for name, values in found.items()} == {
        "input": (BLOCKS,),
        "output": (BLOCKS,),
    }


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="block_size must divide the number of cells, 4; got 3"):
        LSTM1997(2, 4, block_size=3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="input_gate_bias must be 4 numbers, one for each block"):
        LSTM1997(2, 4, input_gate_bias=[-1.0], rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="output_gate_bias must be 4 numbers"):
        LSTM1997(2, 4, output_gate=False, output_gate_bias=[-1.0] * 4, rngs=nnx.Rngs(0))
