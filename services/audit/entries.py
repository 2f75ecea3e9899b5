"""What an entry says, and its canonical form `likeness.audit-entry.v1` (docs/audit.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from services.audit.verification import ENTRY_FORMAT
from services.shared.canonical import MAX_SAFE_INTEGER, canonical_bytes
from services.shared.errors import IntegrityError, InvalidRequest
from services.shared.ids import is_id

OPERATIONS = frozenset({"COLLECTION", "ALTERATION", "CONSULTATION", "DISCLOSURE", "COMBINATION", "ERASURE"})
PHASES = frozenset({"INTENT", "DONE", "REFUSED", "FAILED", "UNKNOWN"})

# An entry says who did what to which; what is longer than this is content, and content does not belong in the log.
MAX_TEXT = 1024
MAX_ITEMS = 256
MAX_ENTRY_BYTES = 64 * 1024

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_KIND_AND_ID = re.compile(r"[a-z][a-z0-9_-]*:.+", re.DOTALL)

# What tells one entry from another under the same id: everything but where and when it was written down.
_NOT_COMPARED = frozenset({"sequence", "recorded_at", "occurred_at"})


@dataclass(frozen=True, slots=True)
class Statement:
    """An entry as its writer makes it: who, when, why, on what, to whom. Operation and phase by their names."""

    entry_id: str
    operation: str
    phase: str
    activity: str
    activity_id: str
    person_id: str
    service: str
    occurred_at: str
    force: str = ""
    roles: tuple[str, ...] = ()
    purpose: str = ""
    case_reference: str = ""
    objects: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raises InvalidRequest that names every field that is wrong."""
        problems = [f"{name}: {problem}" for name, problem in self._problems()]
        if problems:
            raise InvalidRequest(
                f"The audit entry is not well formed: {'; '.join(problems)}.",
                advice="Correct the named fields; the comments of audit.proto say what each one holds.",
            )

    def _problems(self) -> Iterator[tuple[str, str]]:
        if not is_id(self.entry_id):
            yield "entry_id", "not a UUID in canonical form"
        if self.operation not in OPERATIONS:
            yield "operation", "not one of the six operations"
        if self.phase not in PHASES:
            yield "phase", "not given"
        if not _is_time(self.occurred_at):
            yield "occurred_at", "not RFC 3339 in UTC with milliseconds"
        for name in ("activity", "activity_id", "person_id", "service"):
            if not getattr(self, name).strip():
                yield name, "empty"
        for name in ("activity", "activity_id", "person_id", "case_reference"):
            # They are searched by, and PostgreSQL has no text with a NUL in it.
            if not getattr(self, name).isprintable():
                yield name, "has characters that cannot be printed"
        for name in ("activity", "activity_id", "person_id", "service", "force", "purpose", "case_reference"):
            if len(getattr(self, name)) > MAX_TEXT:
                yield name, f"longer than {MAX_TEXT} characters"
        yield from self._problems_of_lists()

    def _problems_of_lists(self) -> Iterator[tuple[str, str]]:
        for name in ("objects", "recipients"):
            items = getattr(self, name)
            if len(items) > MAX_ITEMS or any(len(item) > MAX_TEXT for item in items):
                yield name, f"over {MAX_ITEMS} items or over {MAX_TEXT} characters in one"
            if not all(_KIND_AND_ID.fullmatch(item) for item in items):
                yield name, 'not all of the form "kind:id"'
        texts = [*self.roles, *self.details.keys()]
        if len(texts) > MAX_ITEMS or any(len(text) > MAX_TEXT for text in texts):
            yield "details", f"over {MAX_ITEMS} roles and keys or over {MAX_TEXT} characters in one"


def _is_time(text: str) -> bool:
    """One that there is: of one in a thirteenth month nobody could say how far the writer's clock was off."""
    if not _TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as it stands in the log. `hashes`: its leaf hash, then those of the subtrees that it closes."""

    sequence: int
    canonical: bytes
    hashes: bytes

    @property
    def leaf_hash(self) -> bytes:
        return self.hashes[:32]

    def facts(self) -> dict[str, Any]:
        """The entry as its canonical form says it. IntegrityError when the bytes are no longer an entry."""
        try:
            facts: dict[str, Any] = orjson.loads(self.canonical)
        except orjson.JSONDecodeError as error:
            raise IntegrityError(
                f"The entry at {self.sequence} is damaged.", advice="Run `likeness audit verify` on the store."
            ) from error
        return facts

    def says_the_same_as(self, statement: Statement) -> bool:
        """Whether the statement is this entry written again: all but the time is the same."""
        own = self.facts()
        other = entry_value(statement, self.sequence, own["recorded_at"])
        return all(own[name] == value for name, value in other.items() if name not in _NOT_COMPARED)


def entry_value(statement: Statement, sequence: int, recorded_at: str) -> dict[str, Any]:
    """The value whose canonical bytes are the entry."""
    return {
        "activity": statement.activity,
        "activity_id": statement.activity_id,
        "actor": {"force": statement.force, "person_id": statement.person_id, "roles": list(statement.roles)},
        "case_reference": statement.case_reference,
        "details": dict(statement.details),
        "entry_id": statement.entry_id,
        "format": ENTRY_FORMAT,
        "objects": list(statement.objects),
        "occurred_at": statement.occurred_at,
        "operation": statement.operation,
        "phase": statement.phase,
        "purpose": statement.purpose,
        "recipients": list(statement.recipients),
        "recorded_at": recorded_at,
        "sequence": sequence,
        "service": statement.service,
    }


@dataclass(frozen=True, slots=True)
class EntryDraft:
    """The canonical bytes of an entry but for its place and time, which only its writer knows.

    Made by whoever calls, so that the one thread that writes has little left to do.
    """

    head: bytes
    tail: bytes

    def complete(self, sequence: int, recorded_at: str) -> bytes:
        return b'%b"recorded_at":"%b","sequence":%d%b' % (self.head, recorded_at.encode(), sequence, self.tail)


# Cannot stand in a text, whose quotes are escaped, nor in details, whose values are texts.
_PLACE = b'"recorded_at":"","sequence":0'


def draft_entry(statement: Statement) -> EntryDraft:
    """Raises InvalidRequest when the entry has more bytes than the log takes."""
    head, _, tail = canonical_bytes(entry_value(statement, 0, "")).partition(_PLACE)
    draft = EntryDraft(head, tail)
    size = len(draft.complete(MAX_SAFE_INTEGER, "2026-01-01T00:00:00.000Z"))
    if size > MAX_ENTRY_BYTES:
        raise InvalidRequest(
            f"The audit entry has {size} bytes; at most {MAX_ENTRY_BYTES} are taken.",
            advice="Record identifiers and counts, not content.",
        )
    return draft
