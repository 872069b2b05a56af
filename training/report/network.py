"""What can be shown of a network without an item of the data: its weights, averages, and synthetic inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bundle.confidence import softmax
from bundle.datatypes import Array
from bundle.manifest import Manifest, Precision
from bundle.media import AudioDecoding, ImageDecoding
from training.report.answers import Answers, Floats, Subject
from training.report.inside import Head, States, read_graph, read_head, read_maps, read_states
from training.report.occlusion import occlude
from training.synthetic import draw_digit, sing_vowels

# Digits that are drawn, and the seed of each: chosen by no answer.
_DIGITS = 10
_SOUND_S = 0.8


@dataclass(frozen=True)
class Contributions:
    """What each feature adds to the logit of each label: exact, because the last layer is linear.

    Attributes:
        mean: (labels, size): weight times the mean feature, over rows whose right label is that label.
        bias: (labels,), which is added to the sum.
        error: largest |logit - (weights @ features + bias)| over all rows: what rounding does.
    """

    mean: Floats
    bias: Floats
    error: float


@dataclass(frozen=True)
class Units:
    """How the features are spread over the test split; each array is (size,).

    Attributes:
        active: share of rows in which the feature is not 0.
        by_label: (labels, size) means over rows of each right label.
        shift: (labels, size) mean of |int8 - fp32|; None where there is one graph alone.
    """

    mean: Floats
    deviation: Floats
    active: Floats
    by_label: Floats
    shift: Floats | None


@dataclass(frozen=True)
class DrawnImage:
    """A drawn digit, and what the graphs make of it.

    Attributes:
        falls: precision -> (height, width); see `training.report.occlusion`.
    """

    image: Array
    answer: str
    confidence: float
    falls: Mapping[Precision, Floats]


@dataclass(frozen=True)
class SungSound:
    """A synthetic voice, and what the LSTM makes of it over time.

    Attributes:
        running: (steps, labels): the probabilities, had the sound ended there.
        shift: (steps, units): state in int8 less state in fp32; None where they cannot be compared.
    """

    samples: Array
    states: States
    running: Floats | None
    shift: Floats | None


@dataclass(frozen=True)
class Network:
    """All that is shown of a network; what does not apply to it is None or empty.

    Attributes:
        maps: (channels, height, width) of a few layers, for the first of the images.
    """

    contributions: Contributions | None
    units: Units | None
    images: tuple[DrawnImage, ...]
    maps: tuple[Floats, ...]
    sound: SungSound | None


def look_inside(subject: Subject, answers: Mapping[Precision, Answers]) -> Network:
    """Look at a network through averages over its answers, and through synthetic inputs.

    Args:
        answers: of every graph, to the rows of the subject.
    """
    first = next(iter(answers.values()))
    drawn = draw_images(subject.manifest)
    images = tuple(_look_at(subject, image) for image in drawn)
    return Network(
        contributions=_contributions(read_head(read_graph(subject)), answers.get("fp32")),
        units=_units(first, answers),
        images=images,
        maps=tuple(read_maps(subject, drawn[7])) if drawn else (),
        sound=_listen(subject),
    )


def draw_images(manifest: Manifest) -> list[Array]:
    """Draw the ten digits in the form that a model takes; nothing for one that takes no square images."""
    decoding = manifest.decoding
    if not isinstance(decoding, ImageDecoding) or decoding.height != decoding.width:
        return []
    found = [draw_digit(i, seed=i, size=decoding.height) for i in range(_DIGITS)]
    if decoding.background > 127:
        found = [255 - image for image in found]
    return [image if decoding.channels == 1 else np.stack([image] * 3, axis=-1) for image in found]


def _look_at(subject: Subject, image: Array) -> DrawnImage:
    predictor = next(iter(subject.predictors.values()))
    probabilities = softmax(predictor.run(predictor.rows([image])).logits[0], predictor.temperature)
    answer = int(probabilities.argmax())
    falls = {precision: occlude(each, image) for precision, each in subject.predictors.items()}
    return DrawnImage(image, subject.manifest.labels[answer], float(probabilities[answer]), falls)


def _contributions(head: Head | None, answers: Answers | None) -> Contributions | None:
    if head is None or answers is None or answers.features is None:
        return None
    logits = answers.features @ head.weights.T + head.bias
    means = _means_by_label(answers.features, answers)
    return Contributions(
        mean=head.weights * means,
        bias=head.bias,
        error=float(np.abs(logits - answers.outputs.logits).max()),
    )


def _units(first: Answers, answers: Mapping[Precision, Answers]) -> Units | None:
    if first.features is None:
        return None
    shift = None
    int8, fp32 = answers.get("int8"), answers.get("fp32")
    if int8 is not None and fp32 is not None:
        assert int8.features is not None
        assert fp32.features is not None
        shift = _means_by_label(np.abs(int8.features - fp32.features), fp32)
    return Units(
        mean=first.features.mean(axis=0),
        deviation=first.features.std(axis=0),
        active=np.asarray((first.features != 0).mean(axis=0), np.float64),
        by_label=_means_by_label(first.features, first),
        shift=shift,
    )


def _means_by_label(values: Floats, answers: Answers) -> Floats:
    """(n, size) -> (labels, size); zero for labels without rows."""
    count = answers.outputs.logits.shape[1]
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, answers.labels, values)
    return np.asarray(sums / np.maximum(1, np.bincount(answers.labels, minlength=count))[:, np.newaxis])


def _listen(subject: Subject) -> SungSound | None:
    decoding = subject.manifest.decoding
    if not isinstance(decoding, AudioDecoding):
        return None
    samples = sing_vowels(seed=3, seconds=_SOUND_S, sample_rate_hz=decoding.sample_rate_hz)
    return listen(subject, samples)


def listen(subject: Subject, samples: Array) -> SungSound | None:
    """Return what the LSTM makes of a sound over time; None where the model has no such layer."""
    states = read_states(subject, samples)
    if states is None:
        return None
    shift = None
    if "int8" in subject.predictors:
        int8 = read_states(subject, samples, "int8")
        if int8 is not None and int8.hidden.shape[1] >= states.hidden.shape[1]:
            # Units beyond those of fp32 only hold the range of the others; nothing reads them.
            shift = int8.hidden[:, : states.hidden.shape[1]] - states.hidden
    return SungSound(samples, states, _running(subject, samples, states), shift)


def _running(subject: Subject, samples: Array, states: States) -> Floats | None:
    """The probabilities after each step, where the features are the mean of the states so far."""
    predictor = subject.predictors.get("fp32")
    head = read_head(read_graph(subject))
    if predictor is None or head is None or head.weights.shape[1] != states.hidden.shape[1]:
        return None
    so_far = states.hidden.cumsum(axis=0) / np.arange(1, len(states.hidden) + 1)[:, np.newaxis]
    features = predictor.run(predictor.rows([samples])).features[0]
    if not np.allclose(so_far[-1], features, atol=1e-4):
        return None
    return softmax(so_far @ head.weights.T + head.bias, predictor.temperature)
