"""Telling people apart where a second person is needed."""

from __future__ import annotations

import unicodedata


def is_same_person(one: str, other: str) -> bool:
    """Whether two `person_id` are one person's, as far as they show it: an identity provider that passes on what was
    typed at sign-in says `anna` one day and `Anna` the next. Where two people are needed, and where something that was
    said of a person has to reach them: a revocation, a training. Records keep what stood in the token."""
    return one_spelling(one) == one_spelling(other)


def one_spelling(person_id: str) -> str:
    """The same for all spellings that `is_same_person` holds for one person's."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", person_id).casefold()).strip()
