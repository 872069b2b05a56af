"""Items whose label may be wrong, by confident learning (Northcutt, Jiang and Chuang 2021, in cleanlab)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cleanlab.filter import find_label_issues

from training.report.answers import Floats, Labels


@dataclass(frozen=True)
class Suspect:
    """An item whose label may be wrong.

    Attributes:
        place: of the item among those that were looked at.
        believed: probability of its label.
        better: the label that is more probable.
    """

    place: int
    believed: float
    better: int


def find_suspects(probabilities: Floats, labels: Labels) -> list[Suspect]:
    """Return the items whose labels are doubted, the worst first.

    Args:
        probabilities: (n, labels) of a network that was not fitted on the items.
        labels: (n,) as the data set has them.
    """
    if len(set(labels.tolist())) < probabilities.shape[1]:  # it takes no label that stands nowhere
        return []
    places = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [
        Suspect(int(place), float(probabilities[place, labels[place]]), int(np.argmax(probabilities[place])))
        for place in places
    ]
