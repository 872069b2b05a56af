from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.serving import Serving
from service.errors import UnknownModelError
from service.metrics import Metrics
from service.registry import Served, ServedModel, Which, load_registry
from service.settings import Settings

ANY = Which("tiny-image")


@pytest.fixture(scope="module")
def both(repository: Path) -> list[Served]:
    """tiny-image 1 and 2."""
    return load_registry(Settings(models=repository, threads=1), Metrics()).versions("tiny-image")


def model(both: list[Served], weight: float = 0.0, **aliases: int) -> ServedModel:
    return ServedModel("tiny-image", both, Serving(aliases=aliases, canary_weight=weight))


def test_a_call_that_names_nothing_gets_the_latest_or_what_is_called_stable(both: list[Served]) -> None:
    assert model(both[::-1]).choose(ANY) is both[1]
    assert list(model(both[::-1]).versions) == ["1", "2"]
    assert model(both, stable=1).choose(ANY) is both[0]
    assert model(both, other=1).choose(ANY) is both[1]


def test_a_version_or_an_alias_gets_what_it_names(both: list[Served]) -> None:
    served = model(both, 1.0, stable=1, canary=1, next=2)
    assert served.choose(Which("tiny-image", "2")) is both[1]
    assert served.choose(Which("tiny-image", alias="next")) is both[1]
    assert served.choose(Which("tiny-image", alias="stable")) is both[0]
    with pytest.raises(UnknownModelError, match="'tiny-image' has no version '3'; it has 1, 2"):
        served.choose(Which("tiny-image", "3"))
    with pytest.raises(UnknownModelError, match="has no alias 'prod'; it has canary, next, stable"):
        served.choose(Which("tiny-image", alias="prod"))
    with pytest.raises(UnknownModelError, match="has no alias 'prod'; it has none"):
        model(both).choose(Which("tiny-image", alias="prod"))


@given(identifiers=st.lists(st.text(min_size=1), unique=True), weight=st.floats(0, 1))
def test_an_id_always_gets_the_same_version_and_moves_to_the_canary_only(
    both: list[Served], identifiers: list[str], weight: float
) -> None:
    """A larger share takes in whom a smaller one has; 0 takes nobody and 1 everybody."""
    some, more = (model(both, each, stable=1, canary=2) for each in (weight, (1 + weight) / 2))
    none, everybody = (model(both, each, stable=1, canary=2) for each in (0, 1))
    for identifier in identifiers:
        chosen = some.choose(ANY, identifier)
        assert some.choose(ANY, identifier) is chosen
        assert none.choose(ANY, identifier) is both[0]
        assert everybody.choose(ANY, identifier) is both[1]
        if chosen is both[1]:
            assert more.choose(ANY, identifier) is both[1]


@pytest.mark.parametrize("names", [lambda i: f"user-{i}", lambda _: ""], ids=["sticky", "random"])
def test_the_canarys_share_is_what_the_weight_says(both: list[Served], names: object) -> None:
    served = model(both, 0.2, stable=1, canary=2)
    n = 20_000
    share = sum(served.choose(ANY, names(i)) is both[1] for i in range(n)) / n  # type: ignore[operator]
    assert abs(share - 0.2) < 0.02  # seven standard deviations


def test_a_share_does_not_touch_calls_that_name_something(both: list[Served]) -> None:
    served = model(both, 1.0, stable=1, canary=2)
    assert served.choose(Which("tiny-image", "1"), "x") is both[0]
    assert served.choose(Which("tiny-image", alias="stable"), "x") is both[0]


def test_two_models_have_different_callers_as_canaries(both: list[Served]) -> None:
    serving = Serving(aliases={"canary": 1}, canary_weight=0.5)
    one, other = (ServedModel(name, both, serving) for name in ("a", "b"))
    differ = sum(
        (one.choose(ANY, str(i)) is both[0]) != (other.choose(ANY, str(i)) is both[0]) for i in range(1000)
    )
    assert 400 < differ < 600
