"""Norms of gradients before and after somebody's clipping, against a loop over updates in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gradlab
from gradlab.integrations.gradient_norms import GradientNorms
from gradlab.records import load_metrics

pytestmark = pytest.mark.usefixtures("no_watcher_left")
RNG = np.random.default_rng(0)
SIZES = [0.1, 0.5, 3.0, 1.0001, 0.9999, 40.0]
GRADS = [{"w": size * RNG.normal(size=(3, 4)), "b": [size * RNG.normal(size=4)]} for size in SIZES]


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def by_value(tree: Any, most: float) -> Any:
    return jax.tree.map(lambda x: np.clip(x, -most, most), tree)


def by_norm(tree: Any, most: float) -> Any:
    return jax.tree.map(lambda x: x * min(1, most / np.linalg.norm(flat(tree))), tree)


def expected(rule: Any, most: float) -> dict[str, float]:
    before = np.array([np.linalg.norm(flat(x)) for x in GRADS])
    after = np.array([np.linalg.norm(flat(rule(x, most))) for x in GRADS])
    return {
        "train/grad_norm": before.mean(),
        "train/nonfinite": 0,
        "train/grad_norm_clipped": after.mean(),
        "train/grad_norm_clipped_max": after.max(),
        "train/clip_coefficient": (after / before).mean(),
        "train/clip_fraction": np.mean([after < before - 1e-5]),
    }


def rows(clip: Any, grads: Any = GRADS, params: Any = None) -> dict[str, float]:
    norms = GradientNorms(clip)
    for gradient in grads:
        norms.add(gradient, params)
    return norms.row()


CLIPS = {
    "number": (2.0, by_norm, 2.0),
    "global norm": (optax.clip_by_global_norm(2.0), by_norm, 2.0),
    "value": (optax.clip(0.7), by_value, 0.7),
    "chain": (optax.chain(optax.clip(0.7), optax.identity()), by_value, 0.7),
}


@pytest.mark.parametrize("clip", CLIPS)
def test_a_row_sums_up_all_updates_since_the_last(clip: str) -> None:
    rule, truth, most = CLIPS[clip]
    assert rows(rule) == pytest.approx(expected(truth, most), rel=1e-5)


def test_without_a_clip_the_row_has_the_norm_alone() -> None:
    row = rows(None)
    assert set(row) == {"train/grad_norm", "train/nonfinite"}
    assert row["train/grad_norm"] == pytest.approx(expected(by_norm, 1)["train/grad_norm"])


def test_a_rule_that_reads_the_weights_gets_them() -> None:
    params = jax.tree.map(np.ones_like, GRADS[0])
    rule = optax.adaptive_grad_clip(0.5)
    row = rows(rule, params=params)
    after = [rule.update(x, rule.init(params), params)[0] for x in GRADS]
    norms = [np.linalg.norm(flat(x)) for x in after]
    assert row["train/grad_norm_clipped"] == pytest.approx(np.mean(norms), rel=1e-5)
    with pytest.raises(ValueError, match=r"clip cannot run on gradients alone .*params=weights"):
        rows(rule)


def test_a_rule_with_memory_keeps_it_from_one_update_to_the_next() -> None:
    rule = optax.trace(0.9)  # no clipping, but it has a state whose effect is known
    norms, momentum = GradientNorms(rule), 0 * flat(GRADS[0])
    for gradient in GRADS:
        norms.add(gradient, None)
        momentum = flat(gradient) + 0.9 * momentum
        row = norms.row()
        assert row["train/grad_norm_clipped"] == pytest.approx(np.linalg.norm(momentum), rel=1e-5)


def test_updates_that_are_not_finite_are_counted_and_in_no_mean() -> None:
    broken = [jax.tree.map(lambda x, by=bad: x * by, GRADS[0]) for bad in (np.nan, np.inf)]
    row = rows(2.0, [broken[0], *GRADS, broken[1]])
    assert row == pytest.approx(expected(by_norm, 2.0) | {"train/nonfinite": 2}, rel=1e-5)
    only = rows(2.0, broken)
    assert np.isnan(only.pop("train/grad_norm"))
    assert only == {"train/nonfinite": 2}


def test_torch_tensors_give_the_same_row() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is missing")
    tensors = [[torch.tensor(x) for x in jax.tree.leaves(gradient)] for gradient in GRADS]
    truth = pytest.approx(expected(by_norm, 2.0), rel=1e-5)
    assert rows(2.0, tensors) == truth
    assert rows(2.0, (iter([*x, None]) for x in tensors)) == truth  # as p.grad of unused weights
    with pytest.raises(ValueError, match="give the threshold of clip_grad_norm_ instead"):
        rows(optax.clip(1.0), tensors)


def test_tensors_in_half_precision_have_the_norms_of_float32() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is missing")
    torch.manual_seed(0)
    wide = [torch.randn(999), 3e4 * torch.rand(500), torch.randn(3, dtype=torch.float64)]
    types = (torch.bfloat16, torch.float16, torch.float64)  # the second's norm is no float16
    tensors = [x.to(kind) for x, kind in zip(wide, types, strict=True)]
    truth = torch.linalg.vector_norm(torch.cat([x.double() for x in tensors])).item()
    assert rows(None, [tensors])["train/grad_norm"] == pytest.approx(truth, rel=1e-6)
    for tensor in tensors:
        truth = torch.linalg.vector_norm(tensor.double()).item()
        assert rows(None, [[tensor]])["train/grad_norm"] == pytest.approx(truth, rel=1e-6)


def test_arrays_in_half_precision_have_the_norms_of_float64() -> None:
    wide = {"bfloat16": RNG.normal(size=999), "float16": RNG.uniform(high=2e3, size=500)}
    grads = {kind: jnp.asarray(array, kind) for kind, array in wide.items()}

    def norm(tree: Any) -> Any:
        exact = np.linalg.norm(flat(jax.tree.map(lambda x: np.asarray(x, np.float64), tree)))
        return pytest.approx(exact, rel=1e-6)

    by_value = optax.clip(1000.0)
    clipped = by_value.update(grads, by_value.init(grads))[0]
    for rule, after in ((2.0, pytest.approx(2.0)), (by_value, norm(clipped))):
        row = rows(rule, [grads])
        assert (row["train/grad_norm"], row["train/nonfinite"]) == (norm(grads), 0)
        assert row["train/grad_norm_clipped"] == after
        assert row["train/clip_fraction"] == 1


def test_a_sparse_gradient_has_the_norm_of_a_dense_one() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is missing")
    embedding = torch.nn.Embedding(5, 3, sparse=True)
    embedding(torch.tensor([1, 1, 2])).sum().backward()
    row = rows(None, [[embedding.weight.grad]])
    assert row["train/grad_norm"] == pytest.approx(15**0.5)  # of (2, 2, 2) and (1, 1, 1)


def test_weights_and_no_gradient_at_all_are_refused() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is missing")
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"got weights: give grads=\[p.grad for p in"):
        rows(None, [model.parameters()])
    with pytest.raises(ValueError, match=r"got none.*before optimizer.zero_grad"):
        rows(None, [[p.grad for p in model.parameters()]])
    skipped = rows(None, [[torch.ones(4)], [None], [torch.ones(4)]])  # an update without one
    assert skipped == {"train/grad_norm": 2, "train/nonfinite": 0}


def test_a_gradient_that_does_not_fit_the_first_ends_no_training() -> None:
    cell = nnx.SimpleCell(3, 4, rngs=nnx.Rngs(0))
    watcher = gradlab.watch(np.ones((5, 3)), every=2, clip=optax.trace(0.9))
    watcher(0, cell, grads={"a": np.ones(4)})
    with pytest.warns(RuntimeWarning, match="could not take a gradient in: .*Training goes on"):
        watcher(1, cell, grads={"b": np.ones(4)})
    measurement = watcher(2, cell, grads={"a": np.ones(4)})
    assert measurement is not None


def test_the_rows_of_a_loop_have_its_own_clip(tmp_path: Any) -> None:
    cell = nnx.SimpleCell(3, 4, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 5, 3))
    clip, rate = optax.clip_by_global_norm(0.05), 0.1
    optimizer = nnx.Optimizer(cell, optax.chain(clip, optax.sgd(rate)), wrt=nnx.Param)

    def loss_of(cell: Any) -> Any:
        h = cell.initialize_carry((2, 3), nnx.Rngs(0))
        for t in range(5):
            h, _ = cell(h, x[:, t])
        return jnp.sum(h**2)

    moved = []
    with gradlab.watch(x, every=4, clip=clip, folder=tmp_path / "0") as watcher:
        watcher(0, cell)
        for step in range(1, 9):
            before = jax.tree.map(jnp.copy, nnx.state(cell, nnx.Param))
            grads = nnx.grad(loss_of)(cell)
            optimizer.update(cell, grads)
            change = jax.tree.map(jnp.subtract, before, nnx.state(cell, nnx.Param))
            moved.append(np.linalg.norm(flat(change)) / rate)
            watcher(step, cell, grads=grads)
    found = load_metrics(tmp_path / "0").set_index("train/step")
    means = np.reshape(moved, (2, 4)).mean(axis=1)  # what the optimiser did with the gradients
    np.testing.assert_allclose(found["train/grad_norm_clipped"].loc[[4, 8]], means, rtol=1e-4)
    assert found["train/clip_fraction"].loc[4] > 0
