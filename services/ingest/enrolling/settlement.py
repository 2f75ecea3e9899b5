"""Settling decided enrolments, many at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Protocol

from services.ingest.auditing import EnrolmentAudit
from services.ingest.enrolling.enrolment import Decision, PendingEnrolment, Source, Verdict
from services.ingest.events import outcome_events
from services.ingest.ports import EnrolmentLedger, GalleryWriter
from services.rpc.v1 import ingest_pb2
from services.shared.telemetry import Metrics
from services.shared.tracing import together


class OtherModel(Protocol):
    """`services.ingest.migrating.embedding.EmbedWithOtherModel`."""

    def ensure(self, enrolment_ids: Sequence[str]) -> None:
        """The gallery of a model beside the own one has these too. Raises like `GalleryWriter.put`."""
        ...


class SettleEnrolments:
    """Takes decided enrolments to their final state. Every step can be repeated, so a crash between two of them costs
    nothing: the next worker starts again at 2 with what 1 left.

    1. the decisions, with the templates, are durable in the ledger;
    2. the references stand in the gallery, and in that of a model beside it (idempotent by reference and version);
    3. the audit log has one terminal entry for each (idempotent by a derived id);
    4. final state and event in one transaction.
    """

    def __init__(
        self,
        ledger: EnrolmentLedger,
        gallery: GalleryWriter,
        audit: EnrolmentAudit,
        metrics: Metrics,
        now_ms: Callable[[], int],
        *,
        other_model: OtherModel | None = None,
    ) -> None:
        self._ledger = ledger
        self._gallery = gallery
        self._audit = audit
        self._metrics = metrics
        self._now_ms = now_ms
        self._other_model = other_model

    def write_decisions(self, made: Sequence[tuple[PendingEnrolment, Decision]]) -> Sequence[PendingEnrolment]:
        """Step 1. Answers what is still to be settled. Raises DependencyUnavailable."""
        return self._ledger.decide(made)

    def settle(self, decided: Sequence[PendingEnrolment]) -> None:
        """Steps 2 to 4. Raises DependencyUnavailable, GalleryIncomplete, ModelMismatch, AuditUnavailable: then all of
        it is to be tried again."""
        enrolled = [pending for pending in decided if _verdict(pending) is Verdict.ENROL]
        self._put(enrolled)
        if self._other_model is not None:
            self._other_model.ensure([pending.enrolment_id for pending in enrolled])
        # Synthetic references have one entry for the whole fill.
        told = [pending for pending in decided if pending.source is not Source.SYNTHETIC]
        with together("audit", [pending.traceparent for pending in told]):
            self._audit.record_outcomes(told)
        self._ledger.settle([(pending, outcome_events(pending)) for pending in decided], self._now_ms())
        for pending in decided:
            verdict = _verdict(pending)
            reason = pending.decision.reason if pending.decision else ""
            self._metrics.ingest_enrolments_total.labels(pending.key.watchlist_id, verdict.state.value, reason).inc()

    def _put(self, enrolled: Sequence[PendingEnrolment]) -> None:
        groups: dict[tuple[str, str], list[PendingEnrolment]] = defaultdict(list)
        for pending in enrolled:
            groups[pending.key.watchlist_id, pending.key.model_id].append(pending)
        for (watchlist_id, model_id), members in groups.items():
            with together("gallery", [pending.traceparent for pending in members]):
                self._gallery.put(_reference_batch(watchlist_id, model_id, members))


def _verdict(pending: PendingEnrolment) -> Verdict:
    if pending.decision is None:
        raise ValueError(f"enrolment {pending.enrolment_id} has no decision")
    return pending.decision.verdict


def _reference_batch(
    watchlist_id: str, model_id: str, members: Sequence[PendingEnrolment]
) -> ingest_pb2.ReferenceBatch:
    templates = [pending.decision.template for pending in members if pending.decision]
    return ingest_pb2.ReferenceBatch(
        watchlist_id=watchlist_id,
        reference_ids=[pending.reference_id for pending in members],
        subject_ids=[pending.key.subject_id for pending in members],
        owners=[pending.key.owner for pending in members],
        image_sha256s=[pending.key.image_sha256 for pending in members],
        vectors=b"".join(templates),
        dimension=len(templates[0]) // 4,
        model_id=model_id,
        versions=[pending.version for pending in members],
        expires_at=[0] * len(members),
    )
