"""Canonical bytes: both ways of making them agree, and what has no canonical form is refused wherever it stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.shared import canonical
from services.shared.canonical import MAX_SAFE_INTEGER, canonical_bytes

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_LEAVES = st.none() | st.booleans() | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER) | _TEXTS
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4), max_leaves=12
)


@settings(max_examples=300, deadline=None)
@given(_VALUES)
def test_the_quick_way_and_the_plain_way_agree(value: Any) -> None:
    content = canonical_bytes(value)
    assert content == canonical._encode(value).encode()
    assert json.loads(content) == value


def test_keys_stand_in_the_order_of_utf_16() -> None:
    # RFC 8785, section 3.2.3.
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    ordered = list(json.loads(canonical_bytes(dict.fromkeys(keys, "x"))))
    assert ordered == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize("wrong", [1.5, b"x", {1, 2}, MAX_SAFE_INTEGER + 1, {1: "x"}])
def test_what_has_no_canonical_form_is_refused(wrong: Any) -> None:
    for value in (wrong, [wrong], {"a": wrong}, {"\u00e9": wrong}, {"a": [{"b": wrong}]}, {"\u00e9": "x", "z": wrong}):
        with pytest.raises((TypeError, ValueError), match="string"):
            canonical_bytes(value)
