"""PyTorch: an LSTM that reads handwritten digits pixel by pixel, watched while it trains.

python docs/examples/watch_torch.py
gradlab figure heatmap --runs runs/watch_torch
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import gradlab

UPDATES, BATCH, THRESHOLD = 65, 64, 1.0


class Classifier(nn.Module):
    """An LSTM that reads a sequence and names its class after the last step."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        self.lstm = nn.LSTM(1, 32, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:
        """Return the logits (batch, 10) of sequences (batch, time, 1)."""
        outputs, _ = self.lstm(sequences)
        return self.head(outputs[:, -1])


torch.manual_seed(0)
torch.set_num_threads(1)  # more are slower for a network of this size
digits = load_digits()
images = torch.tensor(digits.data / 16, dtype=torch.float32)[:, :, None]
labels = torch.tensor(digits.target)
held_out = images[-8:]

model = Classifier()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
watcher = gradlab.watch(held_out, folder="runs/watch_torch", overwrite=True, clip=THRESHOLD)

for update in range(UPDATES):
    batch = torch.randint(len(images) - len(held_out), (BATCH,))
    loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
    optimizer.zero_grad()
    loss.backward()
    watcher(update, model, grads=[p.grad for p in model.parameters()], loss=loss)
    nn.utils.clip_grad_norm_(model.parameters(), THRESHOLD)
    optimizer.step()
