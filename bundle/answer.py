"""What came of one run of a graph, and of each row in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bundle.confidence import RowConfidence, assess, softmax
from bundle.conformal import lac_scores, p_values_by_label
from bundle.datatypes import Array
from bundle.evidence import Evidence
from bundle.judgement import Judged, Judgement, judge


@dataclass(frozen=True)
class Outputs:
    """What a graph gave: output -> array; where there is a batch dimension, n rows in the first one."""

    arrays: dict[str, Array]

    @property
    def logits(self) -> NDArray[np.float32]:
        """(n, labels) float32, of a classification."""
        return self.arrays["logits"]

    @property
    def features(self) -> NDArray[np.float32]:
        """(n, size) float32, of a classification that gives them."""
        return self.arrays["features"]


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        temperature: of the graph that ran; 1 where none was fitted.
        collate_s, run_s: seconds that it took to put the rows together, and to run the graph.
        evidence: of the graph that ran, where there is any.
        began_s: `time.perf_counter()` when it began.
        rows: that were run together.
    """

    outputs: Outputs
    temperature: float
    collate_s: float = 0.0
    run_s: float = 0.0
    evidence: Evidence | None = None
    began_s: float = 0.0
    rows: int = 1

    @cached_property
    def wide_probabilities(self) -> NDArray[np.float64]:
        """(n, labels) float64: the calibrated probabilities of a classification, made when one asks."""
        return softmax(self.outputs.logits, self.temperature)

    @cached_property
    def confidences(self) -> list[RowConfidence]:
        """What can be said of each row of a classification, made for all at once when one asks."""
        return assess(self.outputs.logits, self.temperature, self.wide_probabilities)

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """(n, labels) float32: the same, less precisely."""
        return self.wide_probabilities.astype(np.float32)

    @cached_property
    def judged(self) -> Judged:
        """What the evidence says of all rows, made when one asks. There must be some."""
        assert self.evidence is not None
        outputs = self.outputs
        return judge(self.evidence, outputs.logits, outputs.features, self.wide_probabilities)

    @cached_property
    def judgements(self) -> list[Judgement]:
        """The same, of each row by itself."""
        return self.judged.one_by_one()

    @cached_property
    def p_values_by_label(self) -> list[list[float]]:
        """For each row, the p-value of each label among inputs of that label; there must be evidence."""
        assert self.evidence is not None
        scores = lac_scores(self.wide_probabilities)
        found: list[list[float]] = p_values_by_label(self.evidence.by_label, scores).tolist()
        return found

    @property
    def is_counted(self) -> bool:
        """Whether who counts runs has counted this one: they all count it, each for another reason, once."""
        return "_counted" in self.__dict__

    def mark_counted(self) -> None:
        """Note that it is counted."""
        self.__dict__["_counted"] = True


class Answer:
    """One row's part of a run.

    Attributes:
        index: of the row in the run; None where the model has no batch dimension.
    """

    __slots__ = ("index", "run")

    def __init__(self, run: Run, index: int | None) -> None:
        self.run = run
        self.index = index

    def tensor(self, name: str) -> Array:
        """Return an output of this row, without a batch dimension."""
        array = self.run.outputs.arrays[name]
        return array if self.index is None else np.asarray(array[self.index])

    @property
    def confidence(self) -> RowConfidence:
        """What can be said of it, where it is of a classification."""
        return self.run.confidences[self.index or 0]

    @property
    def judgement(self) -> Judgement:
        """What the evidence says of it, where there is any."""
        return self.run.judgements[self.index or 0]

    @property
    def p_values_by_label(self) -> list[float]:
        """The p-value of each label among inputs of that label, where there is evidence."""
        return self.run.p_values_by_label[self.index or 0]
