"""The events that ingest publishes. Their ids are derived, so that a consumer can tell a repetition."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5

from google.protobuf.message import Message

from services.ingest.enrolling.enrolment import PendingEnrolment, PendingWithdrawal, Source, Verdict, derived_id
from services.ingest.life.custody import Receipt
from services.ingest.life.erasure import ErasedRow
from services.rpc.v1 import events_pb2
from services.shared import tracing
from services.shared.clock import rfc3339
from services.shared.ports.event_log import Event, ReceivedEvent

REFERENCE_ENROLLED = "likeness.reference-enrolled.v1"
ENROLMENT_REFUSED = "likeness.enrolment-refused.v1"
REFERENCE_WITHDRAWN = "likeness.reference-withdrawn.v1"
SUBJECT_ERASED = "likeness.subject-erased.v1"
CUSTODY_EVENT_RECEIVED = "likeness.custody-event-received.v1"


def outcome_events(pending: PendingEnrolment) -> list[Event]:
    """What the world is told of a decided enrolment; nothing of synthetic ones."""
    decision = pending.decision
    if decision is None or pending.source is Source.SYNTHETIC:
        return []
    key = pending.key
    common = {
        "event_id": derived_id(pending.enrolment_id, "event/outcome"),
        "occurred_at": _rfc3339(decision.decided_at_ms),
        "enrolment_id": pending.enrolment_id,
        "watchlist_id": key.watchlist_id,
        "owner": key.owner,
        "subject_id": key.subject_id,
    }
    if decision.verdict is Verdict.ENROL:
        enrolled = events_pb2.ReferenceEnrolled(
            **common,
            reference_id=pending.reference_id,
            image_sha256=key.image_sha256,
            model_id=key.model_id,
            unified_quality=decision.unified_quality or 0.0,
        )
        return [_event(REFERENCE_ENROLLED, key.owner, key.subject_id, enrolled, pending.traceparent)]
    refused = events_pb2.EnrolmentRefused(
        **common, state=decision.verdict.state.value, reason=decision.reason, detail=decision.detail
    )
    return [_event(ENROLMENT_REFUSED, key.owner, key.subject_id, refused, pending.traceparent)]


def withdrawal_events(withdrawal: PendingWithdrawal) -> list[Event]:
    """Told of references only: what was never enrolled cannot be withdrawn from anybody."""
    if not withdrawal.was_enrolled:
        return []
    message = events_pb2.ReferenceWithdrawn(
        event_id=derived_id(withdrawal.enrolment_id, "event/withdrawal"),
        occurred_at=_rfc3339(withdrawal.withdrawn_at_ms),
        reference_id=withdrawal.reference_id,
        watchlist_id=withdrawal.watchlist_id,
        owner=withdrawal.owner,
        subject_id=withdrawal.subject_id,
        reason=withdrawal.reason,
    )
    return [_event(REFERENCE_WITHDRAWN, withdrawal.owner, withdrawal.subject_id, message)]


def erasure_event(erasure_id: str, owner: str, subject_id: str, rows: Sequence[ErasedRow], erased_at_ms: int) -> Event:
    """Told when everything that ingest answers for is gone: whoever holds a copy drops it now."""
    message = events_pb2.SubjectErased(
        event_id=derived_id(erasure_id, "event/erased"),
        occurred_at=_rfc3339(erased_at_ms),
        erasure_id=erasure_id,
        owner=owner,
        subject_id=subject_id,
        reference_ids=[row.reference_id for row in rows],
        image_sha256s=sorted({row.image_sha256 for row in rows if row.image_sha256}),
    )
    return _event(SUBJECT_ERASED, owner, subject_id, message)


def receipt_event(source: ReceivedEvent, receipt: Receipt) -> Event:
    """Told of every input. Read again after a crash it has the same receipt_id, that of its place in the topic."""
    place = f"{source.topic}/{source.partition}/{source.offset}"
    message = events_pb2.CustodyEventReceived(
        receipt_id=str(uuid5(NAMESPACE_URL, place)),
        received_at=_rfc3339(receipt.received_at_ms),
        event_id=receipt.event_id,
        topic=source.topic,
        partition=source.partition,
        offset=source.offset,
        owner=receipt.owner,
        subject_id=receipt.subject_id,
        outcome=receipt.outcome.value,
        reason=receipt.reason,
        detail=receipt.detail,
        enrolment_id=receipt.enrolment_id,
    )
    return _event(CUSTODY_EVENT_RECEIVED, receipt.owner, receipt.subject_id, message)


def _event(topic: str, owner: str, subject_id: str, message: Message, traceparent: str = "") -> Event:
    """`traceparent`: of what led to it; what is under way here where none is given."""
    headers = {"content-type": "application/protobuf", "schema": message.DESCRIPTOR.full_name, "schema-version": "1"}
    if trace := traceparent or tracing.traceparent():
        headers[tracing.TRACEPARENT] = trace
    return Event(topic, f"{owner}/{subject_id}", message.SerializeToString(), headers)


def _rfc3339(moment_ms: int) -> str:
    return rfc3339(datetime.fromtimestamp(moment_ms / 1000, UTC))
