"""Telling people apart where a second person is needed."""

from __future__ import annotations

import unicodedata


def is_same_person(one: str, other: str) -> bool:
    """Whether two `person_id` are one person's, as far as they show it: an identity provider that passes on what was
    typed at sign-in says `anna` one day and `Anna` the next. Only where two people are needed; records keep what stood
    in the token."""
    return _plain(one) == _plain(other)


def _plain(person_id: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", person_id).casefold()).strip()
