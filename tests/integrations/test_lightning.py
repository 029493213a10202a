"""The callback of PyTorch Lightning: when it measures, and the gradients' norms around its clip."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import wandb

import gradlab

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pl: Any = pytest.importorskip("lightning.pytorch", reason="PyTorch Lightning is not installed")
from gradlab.integrations.lightning import Watch  # noqa: E402  # needs lightning

FEATURES, HIDDEN, STEPS, SEQUENCES, BATCH, THRESHOLD = 3, 4, 6, 24, 4, 1.2
INPUTS = torch.randn(SEQUENCES, STEPS, FEATURES, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS[:, 0, :1]
HELD_OUT = INPUTS[:2]
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # Lightning's, of workers and loggers
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:DeprecationWarning"),
]


class Regression(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = torch.nn.GRU(FEATURES, HIDDEN, batch_first=True)
        self.head = torch.nn.Linear(HIDDEN, 1)

    def training_step(self, batch: Any, index: int) -> Any:
        inputs, targets = batch
        return torch.nn.functional.mse_loss(self.head(self.gru(inputs)[0][:, -1]), targets)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class WandbLogger(pl.loggers.logger.DummyLogger):
    """Looks like Lightning's, and keeps the rows of its run."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []
        self.config = wandb.Config()

    @property
    def experiment(self) -> Any:
        return self

    @property
    def step(self) -> int:
        return len(self.rows)

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


def trainer_with(*callbacks: Any, **options: Any) -> Any:
    quiet = dict.fromkeys(
        ("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    options = {"logger": False, "max_epochs": 1, **options}
    return pl.Trainer(accelerator="cpu", callbacks=list(callbacks), **quiet, **options)


def batches() -> Any:
    dataset = torch.utils.data.TensorDataset(INPUTS, TARGETS)
    return torch.utils.data.DataLoader(dataset, BATCH)


def fit(model: Any, *callbacks: Any, **options: Any) -> Any:
    trainer_with(*callbacks, **options).fit(model, batches())
    return model


def by_hand(accumulate: int) -> tuple[list[float], list[float]]:
    """Return the loss of each batch and the gradient norm of each update, of a plain loop."""
    model, losses, norms = Regression(), [], []
    optimizer = model.configure_optimizers()
    for index, batch in enumerate(zip(INPUTS.split(BATCH), TARGETS.split(BATCH), strict=True)):
        loss = model.training_step(batch, index)
        losses.append(loss.item())
        (loss / accumulate).backward()
        if (index + 1) % accumulate == 0:
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), THRESHOLD)
            norms.append(norm.item())
            optimizer.step()
            optimizer.zero_grad()
    return losses, norms


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_measures_by_updates_with_the_norms_before_and_after_the_clip(
    accumulate: int, tmp_path: Path
) -> None:
    watch = Watch(HELD_OUT, every=1, folder=tmp_path)
    model = Regression()
    initial = copy.deepcopy(model)
    fit(model, watch, gradient_clip_val=THRESHOLD, accumulate_grad_batches=accumulate)
    losses, norms = by_hand(accumulate)
    rows = pd.read_parquet(tmp_path / "metrics.parquet").set_index("train/step")
    assert list(rows.index) == list(range(len(norms) + 1))
    np.testing.assert_allclose(rows["train/grad_norm"][1:], norms, rtol=1e-5)
    clipped = np.minimum(norms, THRESHOLD)
    assert 0 < np.mean(clipped == THRESHOLD) < 1  # both kinds of updates are there
    np.testing.assert_allclose(rows["train/grad_norm_clipped"][1:], clipped, rtol=1e-5)
    np.testing.assert_array_equal(rows["train/clip_fraction"][1:], clipped == THRESHOLD)
    np.testing.assert_allclose(rows["train/loss"][1:], losses[accumulate - 1 :: accumulate], 1e-5)
    maps = gradlab.load_gradients(tmp_path)["jacobian_log_norm"]
    for step, module in ((0, initial), (len(norms), model)):
        expected = gradlab.jacobian_log_norms(gradlab.from_torch(module), HELD_OUT.numpy())
        np.testing.assert_allclose(maps.sel(step=step), expected, rtol=1e-5, atol=1e-5)
    assert gradlab.load_runs(tmp_path)["status"].tolist() == ["done"]


class Tokens(Regression):
    def __init__(self, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embedding = torch.nn.Embedding(4, FEATURES, sparse=sparse)

    def training_step(self, batch: Any, index: int) -> Any:
        tokens = (batch[0][..., 0] > 0).long()
        return super().training_step((self.embedding(tokens), batch[1]), index)


def test_sparse_gradients_have_the_norms_of_dense_ones(tmp_path: Path) -> None:
    norms = []
    for sparse in (True, False):
        folder = tmp_path / str(sparse)
        fit(Tokens(sparse), Watch(HELD_OUT, every=2, folder=folder))
        norms.append(pd.read_parquet(folder / "metrics.parquet")["train/grad_norm"])
    np.testing.assert_allclose(*norms, rtol=1e-5)


def test_rows_of_a_wandb_logger_have_the_step_that_lightning_draws_against() -> None:
    logger = WandbLogger()
    fit(Regression(), Watch(HELD_OUT, every=2, config={"optim.lr": 0.1}), logger=logger)
    rows = [row for row in logger.rows if "jacobian/decay_rate" in row]
    assert [row["trainer/global_step"] for row in rows] == [0, 2, 4, 6]
    assert [row["train/step"] for row in rows] == [0, 2, 4, 6]
    assert logger.config["optim"] == {"lr": 0.1}


def test_two_callbacks_log_to_one_run_under_names_of_their_own() -> None:
    logger = WandbLogger()
    with pytest.raises(ValueError, match="another watcher logs to this W&B run under the same"):
        fit(Regression(), Watch(HELD_OUT), Watch(HELD_OUT), logger=logger)
    fit(Regression(), Watch(HELD_OUT), Watch(HELD_OUT, name="test"), logger=logger)
    names = set().union(*logger.rows)
    assert {"jacobian/decay_rate", "test/jacobian/decay_rate"} <= names


def test_a_second_fit_of_a_trainer_goes_on_with_the_records(tmp_path: Path) -> None:
    watch = Watch(HELD_OUT, every=1, folder=tmp_path, overwrite=True)
    model, trainer = Regression(), trainer_with(watch, max_epochs=1)
    trainer.fit(model, batches())
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, batches())
    steps = pd.read_parquet(tmp_path / "metrics.parquet")["train/step"]
    assert steps.tolist() == list(range(2 * SEQUENCES // BATCH + 1))


class ByHand(Regression):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.norms: list[float] = []

    def training_step(self, batch: Any, index: int) -> Any:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        loss = super().training_step(batch, index)
        self.manual_backward(loss)
        self.norms.append(torch.nn.utils.get_total_norm(p.grad for p in self.parameters()).item())
        optimizer.step()


def test_updates_of_manual_optimisation_are_measured(tmp_path: Path) -> None:
    model = fit(ByHand(), Watch(HELD_OUT, every=1, folder=tmp_path))
    rows = pd.read_parquet(tmp_path / "metrics.parquet").set_index("train/step")
    assert list(rows.index) == list(range(SEQUENCES // BATCH + 1))
    np.testing.assert_allclose(rows["train/grad_norm"][1:], model.norms, rtol=1e-5)


def test_training_that_raises_is_recorded_as_failed(tmp_path: Path) -> None:
    class Failing(Regression):
        def training_step(self, batch: Any, index: int) -> Any:
            if index == 3:
                raise RuntimeError("no more data")
            return super().training_step(batch, index)

    with pytest.raises(RuntimeError, match="no more data"):
        fit(Failing(), Watch(HELD_OUT, every=1, folder=tmp_path))
    run = gradlab.load_runs(tmp_path).iloc[0]
    assert run["status"] == "failed"
    assert "no more data" in run["reason"]


def test_what_does_not_fit_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match="every"):
        Watch(HELD_OUT, every="sometimes")
    model = Regression()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"inputs of shape \(2, 6, 2\) do not fit"):
        fit(model, Watch(HELD_OUT[..., 1:]))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
