"""A long short-term memory network over log-mel frames (Hochreiter and Schmidhuber 1997)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.log_mel import LogMel

# One for each end of a range.
ANCHORS = 2
# Far enough for a sigmoid and a tanh to be 1 in float32.
SATURATION = 20.0


class SpeechLstm(nn.Module):
    """Classify short utterances given as raw samples of differing lengths.

    Args:
        classes: number of labels.
        hidden: units of the LSTM, the size of `features`.
        dropout: share of features dropped in training.
    """

    def __init__(self, classes: int = 10, hidden: int = 256, dropout: float = 0.3) -> None:
        super().__init__()
        self.front_end = LogMel()
        self.lstm = nn.LSTM(self.front_end.mel.shape[1], hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, classes)

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(n, time) float32, (n,) int64 -> logits (n, classes), features (n, hidden)."""
        frames, counts = self.front_end(samples, lengths)
        states = self.recur(frames, counts)  # (n, frames, hidden), zero beyond each count
        features = states.sum(dim=1) / counts.unsqueeze(1)
        return self.head(self.dropout(features)), features

    def recur(self, frames: Tensor, counts: Tensor) -> Tensor:
        """Run the LSTM over each row's own frames; (n, frames, mels) -> (n, frames, hidden).

        It runs on over what follows a row's own frames, which changes no earlier state, and that is dropped:
        packed sequences spare these steps, yet take three times as long to train on CPUs.
        """
        real = torch.arange(frames.shape[1], device=frames.device)[None, :] < counts[:, None]
        states: Tensor = self.lstm(frames)[0]
        return states * real.unsqueeze(-1)


class ExportableSpeechLstm(nn.Module):
    """A trained `SpeechLstm` with its LSTM as one ONNX operator that takes per-row lengths.

    Packed sequences do not export; the operator's `sequence_lens` does the same. The weights are
    brought to ONNX's layout here, so that they are constants of the graph, which quantization needs.
    For export only: PyTorch itself cannot compute the symbolic operator.
    """

    weights: Tensor
    recurrence: Tensor
    biases: Tensor

    def __init__(self, network: SpeechLstm) -> None:
        super().__init__()
        self.front_end, self.head = network.front_end, network.head
        lstm = network.lstm
        self.hidden = lstm.hidden_size
        weight_ih, weight_hh, bias_ih, bias_hh = (_onnx_gates(rows) for rows in lstm.all_weights[0])
        self.register_buffer("weights", weight_ih.unsqueeze(0))  # (1, 4 hidden, mels)
        self.register_buffer("recurrence", weight_hh.unsqueeze(0))  # (1, 4 hidden, hidden)
        self.register_buffer("biases", torch.cat([bias_ih, bias_hh]).unsqueeze(0))  # (1, 8 hidden)

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """As `SpeechLstm.forward`."""
        features = self.average(samples, lengths)
        return self.head(features), features

    def average(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """Average the states over each row's own frames; (n, time), (n,) -> (n, hidden)."""
        frames, counts = self.front_end(samples, lengths)
        n, time, _ = frames.shape
        states, _, _ = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            (frames.transpose(0, 1), self.weights, self.recurrence, self.biases, counts.to(torch.int32)),
            {"hidden_size": self.hidden},
            dtypes=(frames.dtype,) * 3,
            shapes=((time, 1, n, self.hidden), (1, n, self.hidden), (1, n, self.hidden)),
            version=20,
        )  # (time, 1, n, hidden), zero beyond each count
        average: Tensor = states.squeeze(1).sum(dim=0) / counts.unsqueeze(1)
        return average


class AnchoredSpeechLstm(ExportableSpeechLstm):
    """The same function in a form whose dynamic activation scales are constants: what is quantized.

    Dynamic quantization takes one scale for the frames of a whole batch and one for the states of all
    rows at each step, so a neighbour with a wider range would coarsen everybody's. Here every row brings
    the whole range along. Its frames have two more bands, clamped to the ends of what all bands are
    clipped to. Its LSTM has two more units with all gates open, whose states after t steps are tanh(t)
    and -tanh(t); no unit's state is larger, because a cell gains at most 1 a step. Nothing reads the
    added bands and units: their weights are zero, and the average drops the units.
    """

    def __init__(self, network: SpeechLstm) -> None:
        super().__init__(network)
        self.front_end = _add_bands(network.front_end)
        gates = (4, self.hidden, -1)
        add_units = (0, 0, 0, ANCHORS)  # the last axis stays, the one before grows
        add_both = (0, ANCHORS, 0, ANCHORS)
        weights = F.pad(self.weights.reshape(gates), add_both)  # (4, hidden + 2, mels + 2)
        recurrence = F.pad(self.recurrence.reshape(gates), add_both)  # (4, hidden + 2, hidden + 2)
        biases = F.pad(self.biases.reshape(8, self.hidden, 1), add_units)  # (8, hidden + 2, 1)
        biases[:3, self.hidden :] = SATURATION  # the gates input, output and forget are open
        biases[3, self.hidden] = SATURATION  # one cell gains 1 a step
        biases[3, self.hidden + 1] = -SATURATION  # the other loses 1
        self.weights = weights.flatten(0, 1).unsqueeze(0)
        self.recurrence = recurrence.flatten(0, 1).unsqueeze(0)
        self.biases = biases.flatten().unsqueeze(0)
        self.hidden += ANCHORS

    def average(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """As `ExportableSpeechLstm.average`, without the anchors."""
        return super().average(samples, lengths)[:, :-ANCHORS]


def _add_bands(front_end: LogMel) -> LogMel:
    """Return a front end with two bands more that are constant over each row's own frames.

    Frames beyond a row's length hold 0 as ever, which is inside the range, and every row has a frame.
    """
    ends = torch.stack([front_end.low.min(), front_end.high.max()])
    wider = copy.deepcopy(front_end)
    wider.mel = F.pad(front_end.mel, (0, ANCHORS))
    wider.mean = F.pad(front_end.mean, (0, ANCHORS))
    wider.std = F.pad(front_end.std, (0, ANCHORS), value=1.0)
    wider.low = torch.cat([front_end.low, ends])
    wider.high = torch.cat([front_end.high, ends])
    return wider


def _onnx_gates(rows: Tensor) -> Tensor:
    """Reorder PyTorch's gates (input, forget, cell, output) to ONNX's (input, output, forget, cell)."""
    i, f, g, o = rows.detach().chunk(4)
    return torch.cat([i, o, f, g])
