"""The ports of consortium searches: to a partner's platform, and to their own record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NoReturn, Protocol

from services.search.partners.answers import PartnerAnswer, PartnerStatus
from services.search.partners.config import Partner, Partners
from services.search.partners.tokens import Question
from services.shared.errors import CallerError
from services.shared.multipart import Upload
from services.shared.tokens import Principal


class Direction(StrEnum):
    """SENT: we asked. RECEIVED: we were asked."""

    SENT = "sent"
    RECEIVED = "received"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a question: an answer, or in words why there is none."""

    status: PartnerStatus
    answer: PartnerAnswer | None = None
    # The SHA-256 of the answer's bytes as they came.
    answer_sha256: str = ""
    code: str = ""
    detail: str = ""
    advice: str = ""


class PartnerLink(Protocol):
    """Carries a question to a partner's platform. Safe for several threads."""

    def ask(self, partners: Partners, partner: Partner, question: Question, picture: bytes) -> Reply:
        """Within the partner's time, whatever the partner does; every failure is a Reply, none is raised."""
        ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question as the log has it: its intent is written, its one terminal entry has an id already."""

    activity_id: str
    outcome_entry_id: str
    direction: Direction
    partner: str
    principal: Principal
    case_reference: str
    purpose: str
    objects: tuple[str, ...]
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class Consortium:
    """A search that went to partners too. `document` is its answer, None while there is none."""

    consortium_id: str
    principal: Principal
    case_reference: str
    purpose: str
    watchlists: tuple[str, ...]
    fingerprint: str
    opened_at: datetime
    idempotency_key: str | None
    document: bytes | None = None


class PartnerStore(Protocol):
    """Every method is one transaction, durable when it returns. All raise DependencyUnavailable."""

    def open_exchange(self, exchange: Exchange) -> None:
        """Before its intent is recorded."""
        ...

    def close_exchange(self, activity_id: str) -> None:
        """Its terminal entry is in the log."""
        ...

    def open_exchanges(self, before: datetime, limit: int) -> Sequence[Exchange]:
        """Opened before a moment and not closed, oldest first."""
        ...

    def use_token(self, token_id: str, expires_at: datetime, now: datetime) -> bool:
        """Whether the token was not used before; from now on it is. Forgets tokens that have expired."""
        ...

    def open(self, consortium: Consortium) -> Consortium:
        """Store it, or give what the same person's idempotency key stands for. Raises Conflict
        `idempotency_key_reused` for another request."""
        ...

    def finish(self, consortium_id: str, document: bytes) -> None:
        """Keep the answer, so that it is given again as it was."""
        ...

    def find(self, consortium_id: str) -> Consortium | None:
        """A consortium search of any force: whoever asks checks who may see it."""
        ...


class Identification(Protocol):
    """`Identify` as it is used here."""

    def __call__(self, principal: Principal, upload: Upload, idempotency_key: str | None = None) -> bytes: ...

    def reject(self, principal: Principal, error: CallerError) -> NoReturn: ...

    def require_still(self, principal: Principal, document: Mapping[str, Any]) -> None:
        """The last look at an answer that has waited. Raises Forbidden, recorded."""
        ...


class IdentificationFor(Protocol):
    """An `Identify` whose audit entries say these details too."""

    def __call__(self, details: Mapping[str, str]) -> Identification: ...
