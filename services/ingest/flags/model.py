"""What a flag is. The machine raises it; a person decides, and whatever follows is done by people elsewhere: nothing is
ever merged, moved or withdrawn by a flag."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from services.ingest.enrolling.enrolment import derived_id


class FlagKind(StrEnum):
    """DUPLICATE: two images of one subject are probably one picture. SAME_PERSON: two subjects of one owner are
    probably one person. WRONG_SUBJECT: an image is unlike every other of its subject."""

    DUPLICATE = "probable_duplicate"
    SAME_PERSON = "probable_same_person"
    WRONG_SUBJECT = "wrong_subject_suspected"


class FlagState(StrEnum):
    """OPEN until a person decides. DISMISSED: there is nothing in it; the same is not flagged again. ACTED: the owner's
    records were put right. LAPSED: what was flagged is no longer there, withdrawn or moved by its owner."""

    OPEN = "open"
    DISMISSED = "dismissed"
    ACTED = "acted"
    LAPSED = "lapsed"


UNLIKE = "unlike"  # the band of WRONG_SUBJECT
DECISIONS = (FlagState.DISMISSED, FlagState.ACTED)


@dataclass(frozen=True, slots=True)
class FlaggedReference:
    """A reference that a flag is about, under the subject that it had when it was flagged."""

    enrolment_id: str
    reference_id: str
    subject_id: str


@dataclass(frozen=True, slots=True)
class Flag:
    """`band`: how alike ("probable", "strong", "near_identical") or "unlike"; raw scores are never kept.

    `subject_id` and `other_subject_id` in order; the latter is empty where there is one subject. `points_version`: by
    which flag points it was raised.
    """

    flag_id: str
    kind: FlagKind
    owner: str
    watchlist_id: str
    subject_id: str
    other_subject_id: str
    key: str
    band: str
    points_version: str
    model_id: str
    raised_at_ms: int
    references: tuple[FlaggedReference, ...]
    state: FlagState = FlagState.OPEN
    decided_at_ms: int | None = None
    decided_by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CheckedReference:
    """An enrolled reference to be checked, with the templates of its subject's others where it can be compared."""

    enrolment_id: str
    reference_id: str
    version: int
    watchlist_id: str
    owner: str
    subject_id: str
    template: bytes
    dimension: int
    own_templates: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """References of one watchlist in ledger order; `done_to`: the version up to which it is complete."""

    references: Sequence[CheckedReference]
    done_to: int


@dataclass(frozen=True, slots=True)
class FlagFilter:
    """Which flags a custodian lists: the own force's, in the watchlists of the token."""

    owner: str
    watchlist_ids: frozenset[str]
    state: FlagState | None = None
    kind: FlagKind | None = None
    after: str = ""
    limit: int = 100


class FlagStore(Protocol):
    """Flags and how far the ledger was checked. Durable when a method returns. All raise DependencyUnavailable."""

    def next_page(self, watchlist_id: str, model_id: str, limit: int) -> Page | None:
        """What comes after what was checked; None when nothing new is settled. Never past an enrolment that is still
        pending, so that none is passed over."""
        ...

    def advance(self, watchlist_id: str, done_to: int) -> None:
        """Remember how far it is. Never goes back."""
        ...

    def start_again(self, watchlist_ids: frozenset[str]) -> None:
        """Check everything of these once more."""
        ...

    def enrolments_of(self, owner: str, watchlist_id: str, reference_ids: Sequence[str]) -> Mapping[str, str]:
        """Enrolment ids by reference id, of those that are enrolled, that owner's and not synthetic."""
        ...

    def known(self, keys: Sequence[str]) -> Mapping[str, Flag]:
        """Flags by key."""
        ...

    def add(self, new: Sequence[Flag]) -> Sequence[bool]:
        """In one transaction; for each whether it was added, which it is not when its key was taken meanwhile."""
        ...

    def extend(self, flag: Flag, references: Sequence[FlaggedReference], band: str) -> None:
        """Further references of an open flag; its band becomes this one."""
        ...

    def find(self, flag_id: str) -> Flag | None: ...

    def list(self, selection: FlagFilter) -> Sequence[Flag]:
        """By flag_id."""
        ...

    def counts(self) -> Mapping[tuple[str, str, str], int]:
        """By watchlist, kind and state."""
        ...

    def decide(self, flag_id: str, state: FlagState, person_id: str, reason: str, now_ms: int) -> bool:
        """False when it is not open any more."""
        ...

    def lapse(self, now_ms: int) -> int:
        """End open flags whose references are gone or under one subject by now; how many."""
        ...


def flag_key(kind: FlagKind, owner: str, watchlist_id: str, parts: Sequence[str]) -> str:
    """The same for the same matter, whichever reference it is found from."""
    text = "\0".join([kind.value, owner, watchlist_id, *sorted(parts)])
    return hashlib.sha256(text.encode()).hexdigest()


def flag_id_of(enrolment_id: str, key: str) -> str:
    """The same after a crash, so that the audit entry written before it is no second one."""
    return derived_id(enrolment_id, f"flag/{key}")
