"""The residual CNN: its size, shapes and scaling."""

from __future__ import annotations

import pytest
import torch

from tests.small import make_cnn, pixels
from training.networks.residual_cnn import ResidualBlock, ResidualCnn


def test_it_has_about_300_000_parameters() -> None:
    count = sum(parameter.numel() for parameter in ResidualCnn().parameters())
    assert 250_000 <= count <= 350_000


@pytest.mark.parametrize("n", [1, 3])
def test_logits_and_features_have_their_shapes(n: int) -> None:
    logits, features = ResidualCnn(classes=7, widths=(4, 6, 8)).eval()(pixels(n))
    assert (logits.shape, features.shape) == ((n, 7), (n, 8))
    assert logits.dtype == features.dtype == torch.float32


def test_logits_are_the_head_of_the_features_in_evaluation() -> None:
    network = make_cnn()
    logits, features = network(pixels(4))
    torch.testing.assert_close(logits, features @ network.head.weight.T + network.head.bias)


def test_a_row_does_not_depend_on_its_neighbours_in_evaluation() -> None:
    network = make_cnn()
    together = network(pixels(5))[0]
    alone = torch.cat([network(pixels(5)[i : i + 1])[0] for i in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_mean_and_deviation_act_on_the_scale_of_0_to_1() -> None:
    seen: list[torch.Tensor] = []
    network = ResidualCnn(widths=(4, 4, 4), mean=0.5, std=0.25).eval()
    network.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.tensor([[[0, 255]]], dtype=torch.uint8).expand(1, 28, 2)
    network(images)
    assert seen[0][0, 0, 0].tolist() == [-2.0, 2.0]


def test_the_shortcut_carries_the_input_where_the_convolutions_give_nothing() -> None:
    block = ResidualBlock(3, 3, stride=1).eval()
    torch.nn.init.zeros_(block.convolution2.weight)
    x = torch.rand(2, 3, 6, 6)
    torch.testing.assert_close(block(x), x)


def test_a_stride_of_2_halves_height_and_width() -> None:
    assert ResidualBlock(3, 5, stride=2)(torch.rand(2, 3, 28, 28)).shape == (2, 5, 14, 14)
