"""What has to be done again and again: relay events, finish withdrawals, close abandoned intents, watch the backlog."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.ingest.auditing import EnrolmentAudit
from services.ingest.models import CurrentModel
from services.ingest.ports import EnrolmentLedger, Outbox
from services.rpc.v1 import audit_pb2
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailable
from services.shared.ports.event_log import EventLog
from services.shared.telemetry import Metrics
from services.shared.tracing import TRACEPARENT, together

_RELAY_BATCH = 500
_RELAY_REST_S = 0.5
_CLOSE_BATCH = 200
_CLOSE_REST_S = 5.0
# Every intent has its end within a minute of a fault. One that this process is working on is left alone, however old.
_OWN_INTENT_AGE_MS = 40_000
_OTHERS_INTENT_AGE_MS = 600_000
_BACKLOG_REST_S = 1.0
_MODEL_REST_S = 10.0
_LAG_REST_S = 5.0


class OutboxRelay:
    """Publishes the outbox in order. An event is removed once the log has it: a crash in between publishes it twice,
    under the same event_id."""

    def __init__(self, outbox: Outbox, log: EventLog, metrics: Metrics) -> None:
        self._outbox = outbox
        self._log = log
        self._metrics = metrics

    def step(self) -> float:
        waiting = self._outbox.oldest(_RELAY_BATCH)
        if waiting:
            with together("publish", [event.headers.get(TRACEPARENT, "") for _, event in waiting]):
                self._log.publish([event for _, event in waiting])
            self._metrics.ingest_outbox_published_total.inc(len(waiting))
            self._outbox.remove([event_id for event_id, _ in waiting])
        return 0.0 if len(waiting) == _RELAY_BATCH else _RELAY_REST_S


class CloseAbandonedIntents:
    """Gives every audit intent its end: what was begun before a crash, or while the log was away, never became an
    enrolment, or its end would be the worker's to write."""

    def __init__(
        self, ledger: EnrolmentLedger, audit: EnrolmentAudit, clock: Clock, is_under_way: Callable[[str], bool]
    ) -> None:
        self._ledger = ledger
        self._audit = audit
        self._clock = clock
        self._is_under_way = is_under_way
        # What this process did not begin itself was abandoned by the one before it.
        self._started_ms = self._now_ms()

    def step(self) -> float:
        now_ms = self._now_ms()
        own_before_ms = max(self._started_ms, now_ms - _OWN_INTENT_AGE_MS)
        found = self._ledger.abandoned_intents(own_before_ms, now_ms - _OTHERS_INTENT_AGE_MS, _CLOSE_BATCH)
        # The wall clock may have jumped.
        intents = [intent for intent in found if not self._is_under_way(intent.enrolment_id)]
        if intents:
            # Again, in case the log never had them; the same entry is not written twice.
            self._audit.record_intents(intents)
            self._audit.close_intents(intents, audit_pb2.FAILED, "not_stored")
            self._ledger.forget_intents([intent.enrolment_id for intent in intents])
        return 0.0 if intents else _CLOSE_REST_S

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


class BacklogWatch:
    """Counts what waits, for the metrics and for the limits of acceptance."""

    def __init__(self, ledger: EnrolmentLedger, outbox: Outbox, metrics: Metrics) -> None:
        self._ledger = ledger
        self._outbox = outbox
        self._metrics = metrics
        self._pending = 0
        self._events = 0

    def pending(self) -> int:
        return self._pending

    def events(self) -> int:
        return self._events

    def step(self) -> float:
        self._pending = self._ledger.pending_count()
        self._events = self._outbox.count()
        self._metrics.ingest_pending_enrolments.set(self._pending)
        self._metrics.ingest_outbox_events.set(self._events)
        return _BACKLOG_REST_S


class LagWatch:
    """Counts what the custody feed has not committed yet."""

    def __init__(self, log: EventLog, topics: Sequence[str], group: str, metrics: Metrics) -> None:
        self._log = log
        self._topics = topics
        self._group = group
        self._metrics = metrics

    def step(self) -> float:
        self._metrics.ingest_consumer_lag_events.set(self._log.lag(self._topics, self._group))
        return _LAG_REST_S


class ModelWatch:
    """Notices when embed comes back with another model."""

    def __init__(self, model: CurrentModel) -> None:
        self._model = model

    def step(self) -> float:
        try:
            self._model.refresh()
        except DependencyUnavailable:
            return _BACKLOG_REST_S if not self._model.is_known else _MODEL_REST_S
        return _MODEL_REST_S
