"""PyTorch Lightning: a GRU that recalls the first of its inputs, watched while it trains.

python docs/examples/watch_lightning.py
gradlab figure decay --runs runs/watch_lightning
"""

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gradlab.integrations.lightning import Watch

SEQUENCES, LENGTH, FEATURES = 2048, 30, 4


class Recall(pl.LightningModule):
    """A GRU that reads a sequence and returns its first input after the last step."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        self.gru = nn.GRU(FEATURES, 32, batch_first=True)
        self.head = nn.Linear(32, FEATURES)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """Return the mean squared error of a batch."""
        (sequences,) = batch
        outputs, _ = self.gru(sequences)
        return nn.functional.mse_loss(self.head(outputs[:, -1]), sequences[:, 0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=0.01)


pl.seed_everything(0, verbose=False)
torch.set_num_threads(1)  # more are slower for a network of this size
sequences = torch.randn(SEQUENCES, LENGTH, FEATURES)
held_out = torch.randn(8, LENGTH, FEATURES)
trainer = pl.Trainer(
    max_epochs=2,
    gradient_clip_val=1.0,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    callbacks=[Watch(held_out, folder="runs/watch_lightning", overwrite=True)],
)
trainer.fit(Recall(), DataLoader(TensorDataset(sequences), batch_size=64, shuffle=True))
