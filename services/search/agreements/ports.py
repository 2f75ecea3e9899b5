"""The port to where agreements are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.search.agreements.documents import Grant, Signature, Withdrawal


@dataclass(frozen=True, slots=True)
class AgreementRecord:
    """One step in the life of an agreement, as it was registered: version 1 is its beginning, 2 its end.

    Records are added, never changed. An agreement that the platform was configured with begins outside, so its first
    record is its withdrawal. `signature` is None for a withdrawal by the owner's own administrator.
    """

    document: Grant | Withdrawal
    signature: Signature | None
    version: int
    recorded_at: datetime
    recorded_by: str
    recorded_by_force: str
    reason: str = ""


class AgreementStore(Protocol):
    """Registered agreements. All methods raise DependencyUnavailable when the store cannot be used."""

    def revision(self) -> int:
        """How many records there are: changes with every change."""
        ...

    def records(self) -> Sequence[AgreementRecord]:
        """All records, in the order in which they were added."""
        ...

    def add(self, record: AgreementRecord) -> None:
        """Durable when it returns. Raises Conflict when that version of the reference is there already."""
        ...
