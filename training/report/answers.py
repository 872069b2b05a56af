"""What one graph answers to the labelled items that it is judged by, through the code that serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bundle.answer import Outputs
from bundle.confidence import softmax
from bundle.conformal import lac_scores, p_values, p_values_by_label
from bundle.datatypes import Array
from bundle.evidence import Evidence
from bundle.manifest import Manifest, Precision
from bundle.novelty import energy, novelty_p_values
from bundle.predictor import Predictor
from bundle.rows import Row
from training.data.splits import Splits

# The order in which graphs are told of.
SERVED_FIRST: tuple[Precision, ...] = ("int8", "fp32")

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Subject:
    """What is reported on: the graphs of one bundle, and the items that they are judged by.

    Attributes:
        predictors: of each graph that is measured; the first one is that which serves.
        rows: n, of the test split, which nothing was fitted on.
        labels: (n,) right ones.
        groups: (n,) names of whom or what each row comes from; None where that is not known.
        sizes: split -> items, as far as they are known.
        strangers: name -> items of other data sets, which the model should find new.
    """

    predictors: Mapping[Precision, Predictor]
    rows: Sequence[Row]
    labels: Labels
    groups: NDArray[np.str_] | None
    sizes: Mapping[str, int]
    strangers: Mapping[str, Sequence[Array]]

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle."""
        return next(iter(self.predictors.values())).bundle.manifest

    @property
    def items(self) -> list[Array] | None:
        """Of each row its only tensor; None where rows have several."""
        inputs = self.manifest.data_inputs
        return [row[inputs[0].name] for row in self.rows] if len(inputs) == 1 else None

    def kinds(self) -> Iterator[tuple[str, NDArray[np.str_]]]:
        """Yield each way to cut the rows into slices: its name, and the slice of each row."""
        yield "label", np.array(self.manifest.labels)[self.labels]
        if self.groups is not None:
            yield "group", self.groups


def subject_of(
    predictors: Mapping[Precision, Predictor], splits: Splits, strangers: Mapping[str, Sequence[Array]]
) -> Subject:
    """Return the subject that the test split of a data set makes of a bundle."""
    test = splits.test
    rows = next(iter(predictors.values())).rows(test.items)
    sizes = {name: len(examples) for name, examples in splits}
    return Subject(predictors, rows, test.labels, test.groups, sizes, strangers)


@dataclass(frozen=True)
class Answers:
    """What a graph answered to n rows.

    Attributes:
        labels: (n,) right ones.
        temperature: of the graph; 1 where none was fitted.
        evidence: behind its confidences, where there is any.
    """

    outputs: Outputs
    labels: Labels
    temperature: float
    evidence: Evidence | None

    @cached_property
    def probabilities(self) -> Floats:
        """(n, labels), calibrated."""
        return softmax(self.outputs.logits, self.temperature)

    @cached_property
    def chosen(self) -> Labels:
        """(n,) labels that were answered."""
        return np.asarray(self.outputs.logits.argmax(axis=1), np.int64)

    @cached_property
    def confidences(self) -> Floats:
        """(n,) of the answers."""
        return np.asarray(self.probabilities.max(axis=1), np.float64)

    @cached_property
    def correct(self) -> Bools:
        """(n,) whether each is right."""
        return np.asarray(self.chosen == self.labels)

    @cached_property
    def features(self) -> Floats | None:
        """(n, size) the features, where the graph gives any."""
        found = self.outputs.arrays.get("features")
        return None if found is None else np.asarray(found, np.float64)

    @cached_property
    def novelty(self) -> Floats | None:
        """(n,) p-values of looking as familiar as the inputs of the conformal split."""
        return None if self.evidence is None else novelty_of(self.evidence, self.outputs)

    def p_values(self, scope: str) -> Floats | None:
        """Return (n, labels) conformal p-values, where there is evidence.

        Args:
            scope: "marginal", among all inputs of the conformal split; "label", among those of each label.
        """
        if self.evidence is None:
            return None
        scores = lac_scores(self.probabilities)
        if scope == "label":
            return p_values_by_label(self.evidence.by_label, scores)
        return p_values(self.evidence.lac, scores)


def answer_all(predictor: Predictor, rows: Sequence[Row], labels: Labels) -> Answers:
    """Run every row."""
    return Answers(predictor.run_all(rows), labels, predictor.temperature, predictor.evidence)


def novelty_of(evidence: Evidence, outputs: Outputs) -> Floats:
    """Return (n,) p-values of looking familiar, by both scores together; see `bundle.novelty`."""
    found = (energy(outputs.logits), evidence.classes.familiarity(outputs.features))
    return novelty_p_values((evidence.energy, evidence.familiarity), found)[0]
