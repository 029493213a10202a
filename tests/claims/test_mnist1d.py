"""MNIST-1D: the recipe of the data, and the networks against PyTorch and their printed sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab.studies import mnist1d
from gradlab.tasks.mnist1d_data import digits


def test_the_data_are_the_frozen_set() -> None:
    data = digits()
    assert data.x.shape == (4000, 40)
    assert data.x_test.shape == (1000, 40)
    everything = np.concatenate([data.x, data.x_test])
    assert everything.mean() == pytest.approx(0, abs=1e-12)
    assert everything.std() == pytest.approx(1)
    assert np.bincount(np.concatenate([data.y, data.y_test])).tolist() == [500] * 10
    # First numbers of the authors' file mnist1d_data.pkl.
    np.testing.assert_allclose(data.x[0, :3], [-0.332005667, -0.471910366, -0.778697076], rtol=1e-6)
    assert data.y[:5].tolist() == [2, 6, 4, 5, 6]


def test_permuted_points_are_the_same_digits() -> None:
    data, order = digits(1), np.arange(40)[::-1]
    permuted = data.permuted(order)
    np.testing.assert_array_equal(permuted.x[:, 0], data.x[:, 39])
    np.testing.assert_array_equal(permuted.x_test[:, ::-1], data.x_test)
    np.testing.assert_array_equal(permuted.y, data.y)


@pytest.mark.parametrize(
    ("network", "printed"), [("logistic", 410), ("MLP", 15210), ("CNN", 5210), ("GRU", 5134)]
)
def test_networks_have_their_printed_number_of_parameters(network: str, printed: int) -> None:
    parameters = mnist1d.draw_parameters(jax.random.key(0), network)
    assert sum(x.size for x in parameters.values()) == printed
    assert mnist1d.NETWORKS[network].logits(parameters, jnp.ones((3, 40))).shape == (3, 10)


def test_the_networks_are_those_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(4, 40)).astype(np.float32)
    p = mnist1d.draw_parameters(jax.random.key(0), "GRU")
    gru = torch.nn.GRU(1, 6, batch_first=True, bidirectional=True)
    names = {"input": "ih", "state": "hh"}
    weights = {
        f"{kind}_{names[part]}_l0{suffix}": torch.tensor(np.asarray(p[f"{way}.{part}.{kind[0]}"]))
        for way, suffix in (("forwards", ""), ("backwards", "_reverse"))
        for part in names
        for kind in ("weight", "bias")
    }
    gru.load_state_dict(weights)
    states = gru(torch.tensor(x)[:, :, None])[0].reshape(4, -1).detach().numpy()
    expected = states @ np.asarray(p["last.w"]).T + np.asarray(p["last.b"])
    np.testing.assert_allclose(mnist1d.NETWORKS["GRU"].logits(p, x), expected, atol=2e-5)

    p = mnist1d.draw_parameters(jax.random.key(1), "CNN")
    h = torch.tensor(x)[:, None]
    for name in ("first", "second", "third"):
        w, b = (torch.tensor(np.asarray(p[f"{name}.{k}"])) for k in "wb")
        h = torch.relu(torch.nn.functional.conv1d(h, w, b, stride=2, padding=1))
    expected = h.reshape(4, -1).numpy() @ np.asarray(p["last.w"]).T + np.asarray(p["last.b"])
    np.testing.assert_allclose(mnist1d.NETWORKS["CNN"].logits(p, x), expected, atol=2e-5)


def test_training_learns() -> None:
    table = mnist1d._trained("logistic", 0, digits(), 50, 25, 100, 0.01, [0])
    assert table["update"].tolist() == [25, 50]
    assert table["train"].iloc[-1] > 20  # per cent; chance is 10
