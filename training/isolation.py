"""Search for the batch-mates that move another caller's answer the most.

Rows that run together should not know of each other. Where a graph takes a scale over a whole batch they
do, and random neighbours hardly show it: the worst ones are looked for, among all that the service admits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from bundle.confidence import softmax
from bundle.datatypes import Array
from bundle.manifest import Graph
from bundle.predictor import Predictor
from bundle.rows import collate
from training.mates import (
    draw_item,
    free_axis,
    longest_admitted,
    mix_items,
    passing_patterns,
    steady_patterns,
    vary_item,
)

MAX_SHIFT_DYNAMIC = 0.01
MAX_SHIFT = 1e-5  # of fp32 and static int8, in which only the order of sums may differ

# Most items that are screened; of more, the least decided.
SCREENED = 128
# Difference of the two largest probabilities of victims that are made to be moved easily. One that is less
# decided than twice the bound could change its label within it.
UNDECIDED = (2 * MAX_SHIFT_DYNAMIC, 0.2)

Mates = list[Array]


@dataclass(frozen=True)
class Isolation:
    """What the worst batch-mates that were found do.

    Attributes:
        shift: largest difference of a probability from that of the same item alone.
        flips: number of victims whose label was another one in some company.
        batches: number of batches that were tried.
    """

    shift: float
    flips: int
    batches: int


def allowed_shift(graph: Graph) -> float:
    """Return the largest shift that a graph may show."""
    dynamic = graph.quantization is not None and graph.quantization.method == "dynamic"
    return MAX_SHIFT_DYNAMIC if dynamic else MAX_SHIFT


def find_worst_mates(
    predictor: Predictor,
    items: Sequence[Array],
    batch_size: int,
    temperature: float = 1.0,
    *,
    victims: int = 16,
    steps: int = 200,
    seed: int = 0,
) -> Isolation:
    """Search for the company in which answers change the most.

    All items, and mixtures of two that are hardly decided, stand beside constants and noise; those that
    move the most beside every extreme, then in mixed companies, and at last beside changes of the worst
    company, of which the worst so far is always kept.

    Args:
        predictor: whose graph is searched; its manifest's `max_batch_size` is not asked.
        items: as callers send them.
        batch_size: number of rows that run together, at least 2.
        temperature: that probabilities are taken at.
        victims: how many stand beside every extreme; half as many mixtures are made.
        steps: number of mixed companies, and of changes.
        seed: of all choices.
    """
    random = np.random.default_rng(seed)
    answers = _Answers(predictor, temperature)
    trial = _Trial(answers, _choose_victims(answers, items, victims // 2, random), batch_size)
    extremes = _try_extremes(trial, victims, random)
    worst = _try_companies(trial, extremes, steps, random)
    _climb(trial, worst, extremes, steps, random)
    return Isolation(float(trial.shifts.max()), int(trial.flipped.sum()), trial.batches)


class _Answers:
    """What a predictor answers to items of its only data input, as probabilities."""

    def __init__(self, predictor: Predictor, temperature: float) -> None:
        self.manifest = predictor.bundle.manifest
        (self.tensor,) = self.manifest.data_inputs
        self._predictor = predictor
        self._temperature = temperature

    def together(self, items: Sequence[Array]) -> NDArray[np.float64]:
        """Run items in one batch; (n, labels)."""
        logits = self._predictor.logits(collate(self.manifest, self._predictor.rows(items)))
        return softmax(logits, self._temperature)

    def alone(self, items: Sequence[Array]) -> NDArray[np.float64]:
        """Run each item by itself; (n, labels)."""
        return np.concatenate([self.together([item]) for item in items])


class _Trial:
    """Victims, and the most that any company has changed in the answer to each so far."""

    def __init__(self, answers: _Answers, victims: Sequence[Array], batch_size: int) -> None:
        self.answers = answers
        self.victims = victims
        self.batch_size = batch_size
        self.alone = answers.alone(victims)
        self.shifts = np.zeros(len(victims))
        self.flipped = np.zeros(len(victims), dtype=bool)
        self.batches = 0

    def run(self, mates: Mates, count: int | None = None) -> float:
        """Run the victims that moved the most so far beside mates; return their largest shift.

        Args:
            mates: fewer than a batch.
            count: of victims, in as many batches as it takes; by default those that one batch has room for.
        """
        size = self.batch_size - len(mates)
        worst = np.argsort(-self.shifts, kind="stable")[: count or size]
        return max(self._run(worst[start : start + size], mates) for start in range(0, len(worst), size))

    def _run(self, chosen: NDArray[np.int64], mates: Mates) -> float:
        found = self.answers.together([*mates, *(self.victims[i] for i in chosen)])[len(mates) :]
        moved = np.abs(found - self.alone[chosen]).max(axis=1)
        moved[~np.isfinite(moved)] = 1.0  # what is no number any more has moved as far as can be
        self.shifts[chosen] = np.maximum(self.shifts[chosen], moved)
        self.flipped[chosen] |= found.argmax(axis=1) != self.alone[chosen].argmax(axis=1)
        self.batches += 1
        return float(moved.max())


def _choose_victims(answers: _Answers, items: Sequence[Array], mixtures: int, random: Generator) -> Mates:
    """Return undecided mixtures, as far as they are found, and items, the least decided first."""
    alone = answers.alone(items)
    mixed: Mates = []
    for _ in range(8 * mixtures):
        a, b = random.integers(len(items), size=2)
        if len(mixed) < mixtures and alone[a].argmax() != alone[b].argmax():
            mixed += _mix_undecided(answers, items[a], items[b])
    order = np.argsort(_margins(alone), kind="stable")
    return [*mixed, *(items[i] for i in order[:SCREENED])]


def _mix_undecided(answers: _Answers, item: Array, other: Array) -> Mates:
    """Mix two items by bisection until the answer is hardly decided; return that, or nothing."""
    label = answers.alone([item]).argmax()
    low, high = 0.0, 1.0  # shares of the other item
    for _ in range(12):
        share = (low + high) / 2
        mixed = mix_items(answers.tensor, item, other, share)
        answer = answers.alone([mixed])
        if UNDECIDED[0] <= _margins(answer)[0] <= UNDECIDED[1]:
            return [mixed]
        low, high = (share, high) if answer.argmax() == label else (low, share)
    return []


def _margins(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the difference of the two largest probabilities; (n, labels) -> (n,)."""
    ordered = np.sort(probabilities, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def _try_extremes(trial: _Trial, victims: int, random: Generator) -> Mates:
    """Run victims beside extremes of usual, smallest and largest length; return those of usual length."""
    tensor = trial.answers.tensor
    axis = free_axis(tensor)
    usual = 1 if axis is None else max(item.shape[axis] for item in trial.victims)
    steady = steady_patterns(random)
    extremes = [draw_item(tensor, pattern, usual) for pattern in (*steady, *passing_patterns(random))]
    for mate in extremes[: len(steady)]:
        trial.run([mate], count=len(trial.victims))
    for mate in extremes:
        trial.run([mate] * (trial.batch_size // 2), count=victims)
    if axis is not None:
        for length in (1, longest_admitted(trial.answers.manifest, usual)):
            for pattern in steady:
                trial.run([draw_item(tensor, pattern, length)])
    return extremes


def _try_companies(trial: _Trial, extremes: Mates, steps: int, random: Generator) -> Mates:
    """Run the worst victims beside one or more extremes drawn at random; return the worst company."""
    worst, most = [extremes[0]], -1.0
    for _ in range(steps):
        chosen = random.integers(len(extremes), size=random.integers(1, trial.batch_size))
        company = [extremes[i] for i in chosen]
        if (shift := trial.run(company)) > most:
            worst, most = company, shift
    return worst


def _climb(trial: _Trial, company: Mates, extremes: Mates, steps: int, random: Generator) -> None:
    """Change one mate at a time, and keep the change if it moves the victims at least as far."""
    tensor = trial.answers.tensor
    axis = free_axis(tensor)
    longest = 1 if axis is None else 4 * max(item.shape[axis] for item in trial.victims)
    pool = [*extremes, *trial.victims]
    most = trial.run(company)
    for _ in range(steps):
        i = random.integers(len(company))
        changed = list(company)
        changed[i] = vary_item(tensor, company[i], pool[random.integers(len(pool))], longest, random)
        if (shift := trial.run(changed)) >= most:
            company, most = changed, shift
