"""The benchmark's training step as users of PyTorch write it."""

from typing import Any

import numpy as np
import torch
from torch_peers import device  # type: ignore[import-not-found, unused-ignore]

from gradlab.models import Network
from gradlab.tasks import Batch

# Flax and PyTorch order the gates alike: i, f, g, o in the LSTM and r, z, n in the GRU.
LAYERS: dict[str, Any] = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


class TorchTraining:
    """Training of a layer and a readout with `clip_grad_norm_` and Adam."""

    def __init__(
        self,
        cell: str,
        network: Network,
        batch: Batch,
        fixed: bool,
        threshold: float,
        learning_rate: float,
    ) -> None:
        """Copy the network's weights. PyTorch has two biases where Flax has one; one stays 0."""
        self.fixed, self.threshold = fixed, threshold
        self.inputs, self.targets = (self._tensor(x) for x in (batch.inputs, batch.targets))
        flax: Any = network.cell
        features, n = self.inputs.shape[-1], flax.hidden_features
        self.layer = LAYERS[cell](features, n, batch_first=True, device=device())
        self.readout = torch.nn.Linear(n, self.targets.shape[-1], device=device())
        readout: Any = network.readout
        bias = flax.dense_i.bias if flax.dense_h.bias is None else flax.dense_h.bias
        with torch.no_grad():
            self.layer.weight_ih_l0.copy_(self._tensor(flax.dense_i.kernel[...]).T)
            self.layer.weight_hh_l0.copy_(self._tensor(flax.dense_h.kernel[...]).T)
            self.layer.bias_ih_l0.copy_(self._tensor(bias[...]))
            self.layer.bias_hh_l0.zero_()
            self.readout.weight.copy_(self._tensor(readout.kernel[...]).T)
            self.readout.bias.copy_(self._tensor(readout.bias[...]))
        self.layer.bias_hh_l0.requires_grad_(False)
        modules = (self.layer, self.readout)
        self.weights = [p for m in modules for p in m.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(self.weights, learning_rate)

    @staticmethod
    def _tensor(values: Any) -> torch.Tensor:
        return torch.tensor(np.array(values), device=device())

    def _loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.mse_loss(self.readout(self.layer(inputs)[0]), targets)

    def loss_and_gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        """Return the loss and gradients of the first batch."""
        self.optimiser.zero_grad()
        loss = self._loss(self.inputs, self.targets)
        loss.backward()
        weights = {
            "input": self.layer.weight_ih_l0,
            "recurrent": self.layer.weight_hh_l0,
            "readout": self.readout.weight,
        }
        return loss.item(), {name: w.grad.cpu().numpy().T.copy() for name, w in weights.items()}

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.fixed:
            return self.inputs, self.targets
        inputs = torch.randn_like(self.inputs)
        steps = torch.arange(1, inputs.shape[1] + 1, device=inputs.device)[:, None]
        return inputs, inputs[..., :1].cumsum(1) / steps

    def train(self, steps: int) -> float:
        """Train for some steps; return the last loss, which waits for a GPU."""
        for _ in range(steps):
            self.optimiser.zero_grad()
            loss = self._loss(*self._batch())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.weights, self.threshold)
            self.optimiser.step()
        return loss.item()
