"""The ports of ingest: its ledger, and what it needs of the other services."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.ingest.enrolling.enrolment import (
    Acceptance,
    Decision,
    EnrolmentKey,
    EnrolmentOutcome,
    EnrolmentState,
    EnrolmentView,
    IdempotencyKey,
    NewEnrolment,
    PendingEnrolment,
    PendingWithdrawal,
)
from services.rpc.v1 import audit_pb2, embed_pb2, ingest_pb2, search_pb2
from services.shared.biometric import ImageAnalysis, ModelProvenance
from services.shared.ports.event_log import Event
from services.shared.tokens import Principal


class FaceAnalyser(Protocol):
    """Embed, as ingest uses it; `services.rpc.clients.EmbedClient`."""

    def analyse(
        self, image: bytes, selection: embed_pb2.AnalyseRequest.Selection.ValueType, *, timeout_s: float
    ) -> ImageAnalysis:
        """Decode untrusted bytes and find the selected faces, within `timeout_s`. Raises ImageRefused,
        PayloadTooLarge, Overloaded, DependencyUnavailable."""
        ...

    def describe_model(self) -> ModelProvenance:
        """The model that runs now; its id stands on every template. Raises DependencyUnavailable."""
        ...


class GalleryWriter(Protocol):
    """The gallery, as ingest uses it; `services.rpc.clients.GalleryClient`."""

    def put(self, batch: ingest_pb2.ReferenceBatch) -> search_pb2.PutReferencesResponse:
        """Insert or replace references; one of an older version than the gallery's changes nothing. Raises
        ModelMismatch, GalleryIncomplete (still loading), DependencyUnavailable."""
        ...

    def withdraw(self, reference_ids: list[str], versions: list[int]) -> int:
        """Remove references, each at its version; how many were there. Raises DependencyUnavailable."""
        ...


class AuditTrail(Protocol):
    """The audit log, as ingest uses it; `services.rpc.auditing.BatchAuditRecorder`."""

    def entry(
        self,
        operation: audit_pb2.Operation.ValueType,
        phase: audit_pb2.Phase.ValueType,
        activity: str,
        activity_id: str,
        principal: Principal,
        *,
        objects: Sequence[str] = (),
        details: Mapping[str, str] | None = None,
        entry_id: str | None = None,
    ) -> audit_pb2.AuditEntry:
        """An entry to be recorded. The same `entry_id` is recorded once, however often it is sent."""
        ...

    def record_all(self, entries: Sequence[audit_pb2.AuditEntry]) -> None:
        """Durable when it returns. Raises AuditUnavailable, Conflict, InvalidRequest, for the first that fails; what
        became of the others is then not known, and all of them can be recorded again."""
        ...


@dataclass(frozen=True, slots=True)
class OpenIntent:
    """An audit intent whose enrolment is not in the ledger (yet): what its entry says, so that it can be closed."""

    enrolment_id: str
    principal: Principal
    objects: tuple[str, ...]
    details: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EnrolmentFilter:
    """Which enrolments a caller may list: its own force's, in the watchlists of its token."""

    owner: str
    watchlist_ids: frozenset[str]
    state: EnrolmentState | None = None
    after: str = ""
    limit: int = 100


class EnrolmentLedger(Protocol):
    """The record of truth. Every method that changes something is durable when it returns.

    All raise DependencyUnavailable when the store cannot be used. Safe for many threads.
    """

    def find(self, keys: Sequence[EnrolmentKey]) -> Mapping[EnrolmentKey, Acceptance]:
        """The enrolments that already stand under these keys."""
        ...

    def owners_of_image(self, sha256: str) -> frozenset[str]:
        """Whose enrolments are of this image, whatever became of them. Raises DependencyUnavailable."""
        ...

    def check_idempotency(self, key: IdempotencyKey) -> str | None:
        """The enrolment made under a caller's key; None for a new key. Raises Conflict for another request."""
        ...

    def remember_intents(self, intents: Sequence[OpenIntent], now_ms: int) -> None:
        """Remember intents before they are written to the audit log."""
        ...

    def accept(self, enrolments: Sequence[NewEnrolment]) -> Sequence[Acceptance]:
        """Insert what is new under its key, closing its open intent in the same transaction; answers in the same order.

        Of the same key twice, at once or later, one is inserted and the others get its id. Raises Conflict when an
        idempotency key stands for another request.
        """
        ...

    def abandoned_intents(self, own_before_ms: int, others_before_ms: int, limit: int) -> Sequence[OpenIntent]:
        """Intents that no enrolment followed, opened before a moment by this instance or before another by any."""
        ...

    def forget_intents(self, enrolment_ids: Sequence[str]) -> None:
        """Their entries in the log have an outcome now."""
        ...

    def release_claims(self) -> None:
        """Free what this instance had claimed before it was restarted."""
        ...

    def claim(self, limit: int, now_ms: int, until_ms: int) -> Sequence[PendingEnrolment]:
        """Claim accepted enrolments that nobody holds, in ledger order."""
        ...

    def renew_claims(self, until_ms: int) -> None:
        """Hold on to everything that this instance has claimed."""
        ...

    def count_crash(self, enrolment_id: str) -> None:
        """Analysing it took the analyser down once more."""
        ...

    def decide(self, decisions: Sequence[tuple[PendingEnrolment, Decision]]) -> Sequence[PendingEnrolment]:
        """Write verdicts and templates, before they are acted on. Answers those that are still this instance's to
        settle (not withdrawn meanwhile), with the decision that now stands: `duplicate` where the model changed since
        acceptance and the same image stands under the new one."""
        ...

    def settle(self, settled: Sequence[tuple[PendingEnrolment, Sequence[Event]]], settled_at_ms: int) -> None:
        """Write the final states and their events in one transaction. What is no longer `accepted` stays as it is."""
        ...

    def withdraw(self, enrolment_id: str, person_id: str, reason: str, now_ms: int) -> None:
        """Write the tombstone under a new version and erase the template. A withdrawn one again changes nothing."""
        ...

    def unsettled_withdrawals(self, limit: int) -> Sequence[PendingWithdrawal]:
        """Withdrawals that the gallery has not acknowledged, oldest first."""
        ...

    def settle_withdrawal(self, withdrawal: PendingWithdrawal, events: Sequence[Event]) -> None:
        """The gallery has acknowledged it: publish its events, once, however often this is called."""
        ...

    def view(self, enrolment_id: str) -> EnrolmentView | None:
        """One enrolment in any state; whoever asks checks who may see it."""
        ...

    def list(self, selection: EnrolmentFilter) -> Sequence[EnrolmentView]:
        """By enrolment_id, which is by time; `after` is the last id of the page before."""
        ...

    def outcomes(self, selection: EnrolmentFilter, enrolment_ids: Sequence[str]) -> Sequence[EnrolmentOutcome]:
        """Of these enrolments those that the caller may see, in any order and state."""
        ...

    def count_states(self, owner: str, watchlist_ids: frozenset[str]) -> Mapping[EnrolmentState, int]:
        """An owner's enrolments by state, synthetic ones left out."""
        ...

    def counts(self) -> Sequence[ingest_pb2.WatchlistCount]:
        """Every watchlist's enrolments by state and owner, and how many of them are synthetic."""
        ...

    def pending_count(self) -> int:
        """How many are accepted and not settled yet."""
        ...

    def last_model_id(self) -> str | None:
        """The model of the newest template."""
        ...


class ImageHolds(Protocol):
    """Keeps apart who removes an image from the store and who enrols it: each writes what it is about to do, commits,
    and then looks for the other. All raise DependencyUnavailable."""

    def hold(self, holder: str, sha256s: Sequence[str], now_ms: int) -> frozenset[str]:
        """Hold these for a removal, durably; those that `holder`, an id of the caller's, holds now. The others are
        another's."""
        ...

    def release(self, holder: str) -> None:
        """Let go of everything that it holds."""
        ...

    def release_left_behind(self, now_ms: int, *, is_start: bool) -> None:
        """Let go of what a process that is no more has held: long ago or, where this process has just started, under
        its name."""
        ...

    def held(self, sha256s: Sequence[str]) -> frozenset[str]:
        """Those of them that somebody is removing. To be asked after the intents are remembered."""
        ...

    def named(self, sha256s: Sequence[str]) -> frozenset[str]:
        """Those that the ledger names in any state, withdrawn ones too, or an upload under way. To be asked after
        `hold`."""
        ...

    def intended(self, sha256s: Sequence[str]) -> frozenset[str]:
        """Those that an upload under way names. To be asked after `hold`."""
        ...


class ReferenceReader(Protocol):
    """The ledger's references, column by column. What a gallery is rebuilt from."""

    def read(self, model_id: str) -> Iterator[ingest_pb2.ReferenceBatch]:
        """Batches of one watchlist each, in ledger order.

        Raises ModelMismatch when the ledger holds templates, but none of this model.
        """
        ...

    def describe(self, reference_ids: Sequence[str]) -> Sequence[ingest_pb2.ReferenceState]:
        """What became of these; unknown ones are left out."""
        ...


class Outbox(Protocol):
    """Events of committed rows on their way to the event log."""

    def oldest(self, limit: int) -> Sequence[tuple[int, Event]]:
        """The oldest events with their ids, in the order in which they were committed."""
        ...

    def remove(self, ids: Sequence[int]) -> None:
        """They are in the event log."""
        ...

    def count(self) -> int:
        """How many wait."""
        ...


class SyntheticLedger(Protocol):
    """Labelled synthetic references in bulk."""

    def enrolled_count(self, watchlist_id: str) -> int:
        """How many references of any source are enrolled in the watchlist."""
        ...

    def next_number(self, watchlist_id: str, owner: str) -> int:
        """The number after the highest synthetic subject of this owner, from 1."""
        ...

    def insert(self, batch: SyntheticBatch) -> Sequence[int]:
        """Insert as accepted with the verdict ENROL; returns the versions given, consecutive and in order."""
        ...

    def mark_enrolled(self, watchlist_id: str, versions: Sequence[int], settled_at_ms: int) -> None:
        """Settle what `insert` gave these versions."""
        ...


@dataclass(frozen=True, slots=True)
class SyntheticBatch:
    """References made up for one watchlist and owner. `templates`: float32 little endian, one of `model.dimension`
    values each."""

    watchlist_id: str
    owner: str
    person_id: str
    model: ModelProvenance
    enrolment_ids: Sequence[str]
    reference_ids: Sequence[str]
    subject_ids: Sequence[str]
    templates: Sequence[bytes]
    made_at_ms: int
    leased_until_ms: int
