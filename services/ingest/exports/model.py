"""What an export is, and the ports through which it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Protocol

MAX_SUBJECTS = 50


class ExportState(StrEnum):
    """REQUESTED by one custodian, APPROVED by another; then it may be fetched, as often as it takes to arrive."""

    REQUESTED = "requested"
    APPROVED = "approved"


@dataclass(frozen=True, slots=True)
class Export:
    """`recipient`: the body that gets it. `sha256`: of what was given last; empty before."""

    export_id: str
    owner: str
    watchlist_id: str
    subject_ids: tuple[str, ...]
    recipient: str
    purpose: str
    reason: str
    requested_by: str
    requested_at_ms: int
    approved_by: str = ""
    approved_at_ms: int | None = None
    state: ExportState = ExportState.REQUESTED
    given_at_ms: int | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class ExportedReference:
    """An enrolled reference with what is said of it. `pose` and `custody_reference` are empty where not said."""

    reference_id: str
    subject_id: str
    image_sha256: str
    captured_on: str
    pose: str
    custody_reference: str


class ExportStore(Protocol):
    """Exports in the ledger's store. Durable when a method returns. All raise DependencyUnavailable."""

    def add(self, export: Export) -> None:
        """Record one that nobody has approved yet."""
        ...

    def find(self, export_id: str) -> Export | None: ...

    def list(self, owner: str, watchlist_ids: frozenset[str], limit: int) -> Sequence[Export]:
        """Newest first."""
        ...

    def approve(self, export_id: str, person_id: str, now_ms: int) -> bool:
        """False when it is approved already."""
        ...

    def note_given(self, export_id: str, sha256: str, now_ms: int) -> None:
        """The file with this SHA-256 was given out."""
        ...

    def references(self, export: Export) -> Sequence[ExportedReference]:
        """What of it is enrolled now, with an image, by subject and then by time."""
        ...


class FindsAgreements(Protocol):
    """`services.rpc.clients.AgreementClient`."""

    def find(self, watchlist_id: str, owner: str, on: date) -> str:
        """The reference of the owner's agreement for the watchlist on that day; empty where there is none. Raises
        DependencyUnavailable."""
        ...
