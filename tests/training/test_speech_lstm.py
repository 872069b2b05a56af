"""The LSTM: a row alone equals a row in a batch, its gates in ONNX's order, and the anchors of its scales."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from tests.small import HIDDEN, LSTM_INPUTS, lstm, make_lstm, sounds
from training.export import check_parity, export_onnx
from training.networks.speech_lstm import ANCHORS, AnchoredSpeechLstm, ExportableSpeechLstm
from training.quantize import quantize_lstm

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


def test_states_and_gradients_are_those_of_packed_sequences() -> None:
    network = make_lstm()
    samples, sizes = sounds(1900, 400, 1)
    frames, counts = network.front_end(samples, sizes)
    packed = pack_padded_sequence(frames, counts, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(network.lstm(packed)[0], batch_first=True, total_length=frames.shape[1])
    found = network.recur(frames, counts)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    weights = list(network.lstm.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(found.square().sum(), weights),
        torch.autograd.grad(expected.square().sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_the_exported_weights_run_in_the_gate_order_of_onnx() -> None:
    exportable = ExportableSpeechLstm(NETWORK)
    frames = torch.randn(7, 40)
    states = run_lstm(exportable, frames.numpy())
    with torch.no_grad():
        expected = NETWORK.recur(frames[None], torch.tensor([7]))[0]
    np.testing.assert_allclose(states, expected.numpy(), atol=1e-5)


def run_lstm(exportable: ExportableSpeechLstm, frames: np.ndarray) -> np.ndarray:
    """The LSTM as the ONNX specification writes it: gates i, o, f, c; (time, bands) -> (time, hidden)."""
    w, r = exportable.weights[0].numpy(), exportable.recurrence[0].numpy()
    bias = exportable.biases[0].numpy().reshape(2, -1).sum(axis=0)
    h = c = np.zeros(exportable.hidden, np.float32)
    states = []
    for x in frames:
        i, o, f, g = np.split(w @ x + r @ h + bias, 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        states.append(h)
    return np.stack(states)


@cache
def anchored_graphs() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The anchored form of `NETWORK`, fp32 and int8."""
    fp32 = export_onnx(AnchoredSpeechLstm(NETWORK), sounds(2000, 1500), LSTM_INPUTS)
    return fp32, quantize_lstm(fp32)[0]


@cache
def session(kind: str) -> ort.InferenceSession:
    model = {"anchored": anchored_graphs()[1], "plain": quantize_lstm(lstm()[1])[0]}[kind]
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def features(kind: str, rows: list[np.ndarray]) -> np.ndarray:
    """Run sounds of differing lengths in one batch; (n, HIDDEN)."""
    samples = pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True).numpy()
    lengths = np.array([len(row) for row in rows], np.int64)
    return np.asarray(session(kind).run(["features"], {"samples": samples, "lengths": lengths})[0])


@pytest.mark.parametrize("lengths", [(1,), (80, 1), (799, 800, 801, 5000)])
def test_the_anchored_form_computes_the_same(lengths: tuple[int, ...]) -> None:
    assert check_parity(NETWORK, anchored_graphs()[0], [sounds(*lengths)], 1e-4) <= 1e-4


def test_the_anchored_form_leaves_the_network_as_it_was() -> None:
    before = {name: value.clone() for name, value in NETWORK.state_dict().items()}
    AnchoredSpeechLstm(NETWORK)
    for name, value in NETWORK.state_dict().items():
        assert torch.equal(value, before[name])


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=4),
    level=st.sampled_from([0, 1e-4, 0.1, 1, 100]),
)
def test_every_row_brings_the_whole_range_of_the_frames(lengths: list[int], level: float) -> None:
    front_end = AnchoredSpeechLstm(NETWORK).front_end
    samples, sizes = sounds(*lengths)
    with torch.no_grad():
        frames, _ = front_end(samples * level, sizes)
        plain, _ = NETWORK.front_end(samples * level, sizes)
    assert torch.equal(frames[..., :-ANCHORS], plain)
    low, high = NETWORK.front_end.low.min(), NETWORK.front_end.high.max()
    for row in frames:
        assert (row.min(), row.max()) == (low, high)


@settings(max_examples=30, deadline=None)
@given(size=st.sampled_from([0.1, 1, 10, 1000]), loudness=st.floats(0, 100), seed=st.integers(0, 1000))
def test_the_anchors_are_the_largest_states_at_every_step(size: float, loudness: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    network = make_lstm()
    with torch.no_grad():
        for weights in network.lstm.parameters():  # of a network that saturates all it can
            weights.copy_(torch.randn(weights.shape, generator=generator) * size)
    frames = torch.randn(30, 40 + ANCHORS, generator=generator) * loudness
    with np.errstate(over="ignore"):
        states = run_lstm(AnchoredSpeechLstm(network), frames.numpy())
    steps = np.arange(1, 31, dtype=np.float32)
    np.testing.assert_allclose(states[:, -2], np.tanh(steps), atol=1e-6)
    np.testing.assert_allclose(states[:, -1], -np.tanh(steps), atol=1e-6)
    assert (np.abs(states).max(axis=1) <= np.tanh(steps) + 1e-6).all()


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 3000), min_size=2, max_size=8),
    levels=st.lists(st.sampled_from([0, 1e-4, 0.01, 0.1, 1, 2]), min_size=8, max_size=8),
    seed=st.integers(0, 1000),
)
def test_an_anchored_int8_row_in_a_batch_equals_the_row_alone(
    lengths: list[int], levels: list[float], seed: int
) -> None:
    random = np.random.default_rng(seed)
    rows = [
        (random.uniform(-1, 1, n) * level).clip(-1, 1).astype(np.float32)
        for n, level in zip(lengths, levels, strict=False)
    ]
    alone = np.concatenate([features("anchored", [row]) for row in rows])
    np.testing.assert_allclose(features("anchored", rows), alone, atol=1e-3)


def test_without_anchors_a_loud_neighbour_moves_a_quiet_row() -> None:
    random = np.random.default_rng(0)
    quiet = random.uniform(-1e-3, 1e-3, 800).astype(np.float32)
    loud = random.choice([-1, 1], 4000).astype(np.float32)
    moved = {
        kind: np.abs(features(kind, [quiet, loud])[0] - features(kind, [quiet])[0]).max()
        for kind in ("plain", "anchored")
    }
    assert moved["anchored"] <= 1e-3 < moved["plain"]


def test_anchors_change_no_quantized_weight() -> None:
    stored = {}
    for kind, model in (("anchored", anchored_graphs()[1]), ("plain", quantize_lstm(lstm()[1])[0])):
        stored[kind] = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, bands in (("weights", 40), ("recurrence", HIDDEN)):
        for part, rows in (("quantized", bands), ("scale", 1)):
            plain = stored["plain"][f"{name}_{part}"].reshape(rows, 4, HIDDEN)
            anchored = stored["anchored"][f"{name}_{part}"].reshape(-1, 4, HIDDEN + ANCHORS)
            assert np.array_equal(anchored[:rows, :, :HIDDEN], plain)
            if part == "quantized":
                assert not anchored[rows:].any()
                assert not anchored[:, :, HIDDEN:].any()
