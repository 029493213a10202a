"""Recurrent cells: their options, their gates, and running them over sequences.

One file a family: Flax's cells with the options that the field compares (`elman`, `lstm` and
`lstm_variants`, `gru`), the memory cells of 1997 (`lstm_1997`) and the sLSTM of 2024 (`slstm`),
leaky units (`leaky`), independent ones (`indrnn`), coupled oscillators (`cornn`), layers whose
matrix stays orthogonal (`exprnn`), cells with one gate (`janet`, `minimal_rnn`), cells whose gates
read the input alone (`mingru`, `minlstm`, on `input_gated`), linear ones with a complex state
(`lru`), diagonal states whose step size the input chooses (`mamba`), matrix states (`deltanet`,
`mlstm`), an encoder and a decoder joined into one cell (`encoder_decoder`), and ways around the
layers of a stack (`skips`). `recurrence.unroll` runs a cell over a batch of sequences, fast where
`affine` knows the cell's affine form or the cell's file registers a way of its own.

To add a cell, write a subclass of flax.nnx.RNNCellBase, or of `base.VectorCell`, which starts from
zeros, here or in your own package, whose `__init__` takes in_features, hidden_features,
kernel_init, recurrent_kernel_init and rngs, and a YAML in conf/model/ whose `cell._target_` is its
dotted path. Other arguments become the config keys `model.cell.…`. Optional, in the cell's own
file: register its gates with `@gradlab.cells.gates.register`, its affine form with
`@affine.affine_form_of`, the biases of its gates with `@biases.takes_gate_biases`, or that it has
no gates with `@biases.takes_no_gate_biases`, and say by an attribute `output_features` that its
output is of another size than hidden_features.
"""

from gradlab.cells.biases import set_gate_biases
from gradlab.cells.cornn import CoRNN
from gradlab.cells.deltanet import DeltaNet
from gradlab.cells.elman import ConcatenatedElman, Elman
from gradlab.cells.encoder_decoder import EncoderDecoder
from gradlab.cells.exprnn import ExpRNN
from gradlab.cells.gating import Gates, gates
from gradlab.cells.gru import GRU
from gradlab.cells.indrnn import IndRNN
from gradlab.cells.janet import JANET
from gradlab.cells.leaky import Leaky
from gradlab.cells.lru import LRU
from gradlab.cells.lstm import LSTM
from gradlab.cells.lstm_1997 import LSTM1997
from gradlab.cells.mamba import Mamba
from gradlab.cells.mingru import MinGRU
from gradlab.cells.minimal_rnn import MinimalRNN
from gradlab.cells.minlstm import MinLSTM
from gradlab.cells.mlstm import MLSTM
from gradlab.cells.slstm import SLSTM

__all__ = [
    "GRU",
    "JANET",
    "LRU",
    "LSTM",
    "LSTM1997",
    "MLSTM",
    "SLSTM",
    "CoRNN",
    "ConcatenatedElman",
    "DeltaNet",
    "Elman",
    "EncoderDecoder",
    "ExpRNN",
    "Gates",
    "IndRNN",
    "Leaky",
    "Mamba",
    "MinGRU",
    "MinLSTM",
    "MinimalRNN",
    "gates",
    "set_gate_biases",
]
