"""The LSTM: a row alone equals a row in a batch, and its gates in ONNX's order."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.small import HIDDEN, make_lstm, sounds
from training.networks.speech_lstm import ExportableSpeechLstm

NETWORK = make_lstm()


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=4), garbage=st.floats(-100, 100))
def test_a_row_in_a_batch_equals_the_row_alone(lengths: list[int], garbage: float) -> None:
    samples, sizes = sounds(*lengths)
    real = torch.arange(samples.shape[1])[None, :] < sizes[:, None]
    with torch.no_grad():
        logits, features = NETWORK(torch.where(real, samples, garbage), sizes)
        for i, length in enumerate(lengths):
            alone = NETWORK(samples[i : i + 1, :length], sizes[i : i + 1])
            torch.testing.assert_close(logits[i], alone[0][0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(features[i], alone[1][0], atol=1e-5, rtol=1e-4)
    assert (logits.shape, features.shape) == ((len(lengths), 10), (len(lengths), HIDDEN))


def test_features_are_the_mean_of_the_states_over_the_real_frames() -> None:
    samples, sizes = sounds(1000, 400)
    with torch.no_grad():
        frames, counts = NETWORK.front_end(samples, sizes)
        states, _ = NETWORK.lstm(frames)
        _, features = NETWORK(samples, sizes)
    expected = torch.stack([row[:count].mean(0) for row, count in zip(states, counts, strict=True)])
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)


def test_the_exported_weights_run_in_the_gate_order_of_onnx() -> None:
    # The LSTM as the ONNX specification writes it: gates i, o, f, c.
    exportable = ExportableSpeechLstm(NETWORK)
    frames = torch.randn(1, 7, 40)
    w, r = exportable.weights[0].numpy(), exportable.recurrence[0].numpy()
    b = exportable.biases[0].numpy()
    h = c = np.zeros(HIDDEN, np.float32)
    states = []
    for x in frames[0].numpy():
        i, o, f, g = np.split(w @ x + r @ h + b[: 4 * HIDDEN] + b[4 * HIDDEN :], 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        states.append(h)
    with torch.no_grad():
        expected = NETWORK.recur(frames, torch.tensor([7]))[0]
    np.testing.assert_allclose(np.stack(states), expected.numpy(), atol=1e-5)
