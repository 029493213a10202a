"""Update rules against PyTorch's, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradlab import optimisers

torch = pytest.importorskip("torch", reason="PyTorch, the peer, is not installed")

RULES = {
    "sgd": (optimisers.sgd(0.1), lambda w: torch.optim.SGD(w, 0.1)),
    "momentum": (optimisers.sgd(0.1, 0.9), lambda w: torch.optim.SGD(w, 0.1, 0.9)),
    "rmsprop": (optimisers.rmsprop(0.01), lambda w: torch.optim.RMSprop(w, 0.01, 0.9)),
    "adam": (optimisers.adam(0.01), lambda w: torch.optim.Adam(w, 0.01)),
}


@pytest.mark.parametrize("name", RULES)
def test_rules_are_pytorchs(name: str) -> None:
    rule, torchs = RULES[name]
    rng = np.random.default_rng(0)
    # From gradients of ordinary size to vanished ones, where eps and its place matter.
    gradients = rng.normal(size=(8, 4)) * np.array([1, 1e-3, 1e-6, 1e-9])
    weights = rng.normal(size=4)
    with jax.enable_x64(True):
        ours, state = jnp.asarray(weights), rule.init(jnp.asarray(weights))
        theirs = torch.tensor(weights, requires_grad=True)
        optimiser = torchs([theirs])
        for gradient in gradients:
            change, state = rule.update(jnp.asarray(gradient), state, ours)
            ours = optax.apply_updates(ours, change)
            theirs.grad = torch.tensor(gradient)
            optimiser.step()
            np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-10)
