"""The witness as a topic: whoever subscribes holds the log's checkpoints out of the platform's reach."""

from __future__ import annotations

from time import monotonic

from services.audit.ports import PublishedKey
from services.audit.verification import Checkpoint, parse_checkpoint
from services.shared.errors import DependencyUnavailable, IntegrityError
from services.shared.ids import new_id
from services.shared.ports.event_log import Event, EventLog, ReceivedEvent

TOPIC = "likeness.audit-checkpoint-signed.v1"
_ADVICE = "Operators: check the event log; the comparison is made up for."
_KIND = "kind"
_CHECKPOINT, _KEY = "checkpoint", "public-key"
_READ_AT_ONCE = 500
_POLL_S = 2.0
_LONGEST_READ_S = 60.0


class TopicWitness:
    """Witness over one topic of an EventLog: values are checkpoint documents, and public keys in PEM form.

    Let only this service write to the topic, and keep it for as long as the log. A checkpoint may stand there twice.
    """

    def __init__(self, events: EventLog) -> None:
        self._events = events

    def newest(self) -> Checkpoint | None:
        """Reads the topic from its start, as a consumer group of its own."""
        found: Checkpoint | None = None
        group = f"audit-witness-{new_id()}"
        subscription = self._events.subscribe([TOPIC], group)
        started_s = monotonic()
        try:
            while self._events.lag([TOPIC], group):
                if monotonic() - started_s > _LONGEST_READ_S:
                    raise DependencyUnavailable("The witness topic is not read to its end in time.", advice=_ADVICE)
                received = subscription.poll(_READ_AT_ONCE, _POLL_S)
                subscription.commit()
                heads = [_head(event) for event in received if event.headers.get(_KIND) == _CHECKPOINT]
                found = max([*heads, *([found] if found else [])], key=lambda head: head.tree_size, default=None)
        finally:
            subscription.close()
        return found

    def publish_key(self, key: PublishedKey) -> None:
        self._events.publish([Event(TOPIC, key.key_id, key.public_key.encode(), {_KIND: _KEY})])

    def keep(self, checkpoint: Checkpoint) -> None:
        self._events.publish([Event(TOPIC, checkpoint.log_id, checkpoint.document(), {_KIND: _CHECKPOINT})])


def _head(event: ReceivedEvent) -> Checkpoint:
    try:
        return parse_checkpoint(event.value)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"The witness topic holds something else at {event.partition}/{event.offset}: {error}",
            advice="Find out who else writes to the topic; only the audit service may.",
        ) from error
