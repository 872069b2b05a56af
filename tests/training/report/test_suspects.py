from __future__ import annotations

import numpy as np

from training.report.suspects import find_suspects


def test_labels_that_were_changed_are_found_the_worst_first() -> None:
    random = np.random.default_rng(0)
    true = random.integers(0, 4, 400)
    probabilities = np.full((400, 4), 0.02)
    probabilities[np.arange(400), true] = 0.94
    labels = true.copy()
    changed = [7, 90, 301]
    labels[changed] = (labels[changed] + 1) % 4
    probabilities[90] = 0.001
    probabilities[90, true[90]] = 0.997
    found = find_suspects(probabilities, labels)
    assert {each.place for each in found} == set(changed)
    assert found[0].place == 90
    for each in found:
        assert each.better == true[each.place]
        assert each.believed == probabilities[each.place, labels[each.place]]


def test_where_a_label_stands_nowhere_nothing_is_doubted() -> None:
    probabilities = np.full((6, 3), 1 / 3)
    assert find_suspects(probabilities, np.array([0, 1, 0, 1, 0, 1])) == []
