"""Layers with the same weights have the same Jacobians in PyTorch, by its autograd, as in Flax."""

from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from gradlab import jacobian_log_norms

torch = pytest.importorskip("torch", reason="PyTorch, the peer, is not installed")

HIDDEN, FEATURES = 6, 3
SHORT, SPLIT = 12, 17  # steps: one leaf of the engine, and a sequence that it halves
# Both libraries order the gates alike: i, f, g, o in the LSTM and r, z, n in the GRU.
LAYERS = {
    nnx.SimpleCell: torch.nn.RNN,
    nnx.OptimizedLSTMCell: torch.nn.LSTM,
    nnx.GRUCell: torch.nn.GRU,
}
PARTS = {"c": slice(0, HIDDEN), "h": slice(HIDDEN, None)}  # of an LSTM


def make_cell(kind: Any) -> nnx.RNNCellBase:
    kernel, bias = jax.nn.initializers.normal(0.7), jax.nn.initializers.normal(1.0)
    initialisers = {"kernel_init": kernel, "recurrent_kernel_init": kernel, "bias_init": bias}
    return kind(FEATURES, HIDDEN, **initialisers, rngs=nnx.Rngs(0))


def make_inputs(length: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(length, FEATURES)).astype(np.float32)


def in_torch(cell: Any) -> Any:
    """Return a PyTorch layer with the same weights; Flax has one bias where PyTorch adds two."""
    layer = LAYERS[type(cell)](FEATURES, HIDDEN, dtype=torch.float64)
    for name, dense in (("ih", cell.dense_i), ("hh", cell.dense_h)):
        copy(dense.kernel[...].T, getattr(layer, f"weight_{name}_l0"))
        bias = np.zeros(layer.bias_ih_l0.shape) if dense.bias is None else dense.bias[...]
        copy(bias, getattr(layer, f"bias_{name}_l0"))
    return layer


def copy(values: Any, parameter: Any) -> None:
    parameter.data.copy_(torch.tensor(np.asarray(values, np.float64)))


def torch_jacobians(layer: Any, inputs: np.ndarray) -> np.ndarray:
    """Return [t, k] = ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ of the flat state, (c, h) in an LSTM; zero where k > t."""
    parts = 2 if isinstance(layer, torch.nn.LSTM) else 1
    xs = torch.tensor(inputs, dtype=torch.float64)

    def advance(state: Any, x: Any) -> Any:
        # PyTorch's pair is (h, c), Flax's (c, h).
        halves = [half[None] for half in reversed(state.split(HIDDEN))]
        _, after = layer(x[None], tuple(halves) if parts == 2 else halves[0])
        return torch.cat([half[0] for half in reversed(after)]) if parts == 2 else after[0]

    n = parts * HIDDEN
    states = [torch.zeros(n, dtype=torch.float64, requires_grad=True)]
    for x in xs:
        states.append(advance(states[-1], x))
    jacobians = np.zeros((len(states), len(states), n, n))
    for t, state in enumerate(states):
        for row in range(n):
            rows = torch.autograd.grad(state[row], states[: t + 1], retain_graph=True)
            jacobians[t, : t + 1, row] = torch.stack(rows).numpy()
    return jacobians


def assert_same_norms(log_norms: Any, jacobians: np.ndarray, norm: str) -> None:
    t, k = np.tril_indices(len(jacobians))
    expected = np.linalg.norm(jacobians[t, k], 2 if norm == "spectral" else "fro", axis=(-2, -1))
    np.testing.assert_allclose(np.exp(np.asarray(log_norms, np.float64)[t, k]), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", LAYERS)
def test_every_norm_agrees_with_torch(kind: Any) -> None:
    cell, inputs = make_cell(kind), make_inputs(SHORT)
    jacobians = torch_jacobians(in_torch(cell), inputs)
    for norm in ("frobenius", "spectral"):
        assert_same_norms(jacobian_log_norms(cell, inputs, norm=norm), jacobians, norm)


@pytest.mark.parametrize(("norm", "of", "wrt"), [("frobenius", "c", "h"), ("spectral", "h", "h")])
def test_blocks_of_an_lstm_agree_with_torch(norm: Any, of: str, wrt: str) -> None:
    cell, inputs = make_cell(nnx.OptimizedLSTMCell), make_inputs(SPLIT)
    block = torch_jacobians(in_torch(cell), inputs)[:, :, PARTS[of], PARTS[wrt]]
    assert_same_norms(jacobian_log_norms(cell, inputs, norm=norm, of=of, wrt=wrt), block, norm)
