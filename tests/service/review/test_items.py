from __future__ import annotations

import numpy as np
import pytest

from service.review.items import identify, pack, time_text, unpack
from tests.service.review.kept import new

ROW = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "y": np.array(4, np.int64)}


def test_arrays_come_back_as_they_were() -> None:
    texts = np.array(["a", "grün"], object)
    back = unpack(pack({**ROW, "z": texts}))
    assert set(back) == {"x", "y", "z"}
    for name, array in {**ROW, "z": texts}.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)
    with pytest.raises(ValueError, match="cannot be read"):
        unpack(pack(ROW)[:50])


def test_an_id_is_that_of_the_content_and_nothing_else() -> None:
    first = identify("m", ROW)
    assert len(first) == 32
    assert first == identify("m", dict(reversed(ROW.items())))
    assert first == identify("m", {**ROW, "x": np.asfortranarray(ROW["x"])})
    others = [
        identify("n", ROW),
        identify("m", {**ROW, "x": ROW["x"].reshape(3, 2)}),
        identify("m", {**ROW, "x": ROW["x"].view(np.int32)}),
        identify("m", {**ROW, "x": -ROW["x"]}),
        identify("m", {"x": ROW["x"]}),
        identify("m", {"x": ROW["y"], "y": ROW["x"]}),
        identify("m", {"x": np.array(["a", "b"], object)}),
        identify("m", {"x": np.array(["b", "a"], object)}),
    ]
    assert len({first, *others}) == len(others) + 1


def test_times_are_told_in_utc() -> None:
    assert time_text(1_700_000_000.9) == "2023-11-14T22:13:20Z"
    assert time_text(None) is None


def test_what_is_rendered_holds_nothing_of_the_request_but_what_is_known_of_the_input() -> None:
    assert set(new(1).item.render()) == {
        "id", "model", "version", "bundle", "created_at", "answer", "confidence", "confidence_raw",
        "novelty_p_value", "reasons", "sureness", "size_bytes", "label", "labelled_at", "exported_at",
    }  # fmt: skip
