from __future__ import annotations

import base64
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ForgedFeedbackError
from service.monitoring.keys import Keys, make_keys
from service.monitoring.tokens import FIXED_ALPHAS, MOST_LABELS, Minter, graph_prefix, read_token

OLD, NEW = b"o" * 32, b"n" * 32
KEYS = make_keys(NEW, OLD)
GRAPH = "0123abcd" * 8


def mint(keys: Keys = KEYS, name: str = "m", version: str = "7", **row: Any) -> str:
    values = {"row": 0, "answer": 1, "confidence": 0.75, "accepted": True, "p_values": [0.02, 0.9, 0.07]}
    values |= row
    p_values = values["p_values"]
    minter = Minter(keys, name, version, GRAPH, 3 if p_values is None else len(p_values))
    return minter.begin()(*values.values())


def test_an_id_says_what_was_answered() -> None:
    claim = read_token(KEYS, mint())
    assert (claim.model, claim.version, claim.graph) == ("m", "7", graph_prefix(GRAPH))
    assert (claim.answer, claim.confidence, claim.accepted) == (1, 0.75, True)
    assert claim.sets == (0b110, 0b010)  # labels with p-values over .05, and over .1
    assert FIXED_ALPHAS == (0.05, 0.1)
    assert 0 <= time.time() - claim.issued_s <= 2


def test_without_evidence_it_says_nothing_of_sets_and_acceptance() -> None:
    claim = read_token(KEYS, mint(accepted=None, p_values=None))
    assert (claim.accepted, claim.sets, claim.confidence) == (None, None, 0.75)


@given(
    name=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True),
    version=st.integers(1, 10**30),
    p_values=st.lists(st.floats(0.0001, 1), min_size=2, max_size=MOST_LABELS + 2),
    accepted=st.booleans(),
    data=st.data(),
)
def test_whatever_is_minted_is_read_again(
    name: str, version: int, p_values: list[float], accepted: bool, data: st.DataObject
) -> None:
    answer = data.draw(st.integers(0, len(p_values) - 1))
    confidence = data.draw(st.floats(0, 1, width=32))
    token = mint(
        name=name,
        version=str(version),
        p_values=p_values,
        accepted=accepted,
        answer=answer,
        confidence=confidence,
    )
    claim = read_token(KEYS, token)
    assert (claim.model, claim.version) == (name, str(version))
    assert (claim.answer, claim.confidence, claim.accepted) == (answer, confidence, accepted)
    if len(p_values) > MOST_LABELS:
        assert claim.sets is None
    else:
        expected = [{i for i, p in enumerate(p_values) if p > alpha} for alpha in FIXED_ALPHAS]
        assert claim.sets is not None
        assert [{i for i in range(len(p_values)) if mask >> i & 1} for mask in claim.sets] == expected


def test_every_row_of_every_call_has_an_id_of_its_own() -> None:
    minter = Minter(KEYS, "m", "1", GRAPH, 3)
    tokens = {
        minted(row, 1, 0.5, True, [0.1, 0.2, 0.3])
        for minted in (minter.begin() for _ in range(50))
        for row in range(20)
    }
    assert len(tokens) == 1_000
    assert len({read_token(KEYS, token).nonce for token in tokens}) == 1_000


def test_an_id_is_text_for_a_url_and_short() -> None:
    token = mint(name="mnist-cnn", p_values=np.linspace(0, 1, 10).tolist())
    assert len(token) < 100
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_the_key_before_the_current_one_is_still_taken_and_no_other() -> None:
    assert read_token(KEYS, mint(make_keys(OLD))).model == "m"
    with pytest.raises(ForgedFeedbackError):
        read_token(KEYS, mint(make_keys(b"x" * 32)))
    with pytest.raises(ForgedFeedbackError):
        read_token(make_keys(NEW), mint(make_keys(OLD)))


def test_an_id_of_which_a_single_bit_was_changed_is_forged() -> None:
    token = mint()
    signed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for bit in range(8 * len(signed)):
        changed = bytearray(signed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ForgedFeedbackError):
            read_token(KEYS, base64.urlsafe_b64encode(changed).decode().rstrip("="))


@pytest.mark.parametrize("token", ["", "a", "=", "====", "AAAA", "!!", "é", "\x00", "A" * 5_000])
def test_what_is_no_id_is_forged(token: str) -> None:
    with pytest.raises(ForgedFeedbackError):
        read_token(KEYS, token)


def test_the_beginning_of_an_id_is_forged() -> None:
    with pytest.raises(ForgedFeedbackError):
        read_token(KEYS, mint()[:-4])


@given(
    st.text(max_size=200) | st.binary(max_size=200).map(lambda each: base64.urlsafe_b64encode(each).decode())
)
def test_whatever_is_sent_is_forged(token: str) -> None:
    with pytest.raises(ForgedFeedbackError):
        read_token(KEYS, token)
