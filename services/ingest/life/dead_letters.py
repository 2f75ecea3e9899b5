"""Dead letters of the custody topics: what lies there, why, and sending it through once more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

from services.ingest.feed.messages import about, parse
from services.ingest.life.custody import CustodyLedger, ReceiptOutcome
from services.shared.consume import InvalidMessage, dead_letter_topic
from services.shared.errors import NotFound
from services.shared.ports.event_log import Event, EventLog, ReceivedEvent

_GROUP = "likeness-dead-letters"  # never commits, so it always starts at the oldest
_PREFIX = "dead-letter-"
_BATCH = 64
_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One letter without its content. `place` names it. `is_settled`: the same event went through since."""

    place: str
    topic: str
    owner: str
    subject_id: str
    event_id: str
    reason: str
    detail: str
    size_bytes: int
    is_settled: bool


class DeadLetters:
    """Reads every letter anew for each call: they are few, or something is wrong that more than a list has to mend."""

    def __init__(self, log: EventLog, topics: Sequence[str], custody: CustodyLedger) -> None:
        self._log = log
        self._topics = [dead_letter_topic(topic) for topic in topics]
        self._custody = custody
        self._lock = Lock()

    def list(self, owner: str) -> list[DeadLetter]:
        """The owner's, oldest first. Raises DependencyUnavailable."""
        return [letter for letter, _ in self._letters() if letter.owner == owner]

    def images(self) -> frozenset[str]:
        """The SHA-256 of every image that a letter names which has not gone through. Raises DependencyUnavailable."""
        return frozenset(about(_as_received(event))[2] for letter, event in self._letters() if not letter.is_settled)

    def replay(self, owner: str, places: Sequence[str]) -> int:
        """Send letters to the topics that they came from; all that are not settled where no place is named.

        Raises NotFound when a place is none of the owner's letters, DependencyUnavailable.
        """
        found = {letter.place: (letter, event) for letter, event in self._letters() if letter.owner == owner}
        unknown = [place for place in places if place not in found]
        if unknown:
            raise NotFound(f"No dead letter {unknown[0][:200]} of your force.", advice="List them first.")
        chosen = [found[place][1] for place in places] or [
            event for letter, event in found.values() if not letter.is_settled
        ]
        self._log.publish([_as_it_was(event) for event in chosen])
        return len(chosen)

    def _letters(self) -> Iterator[tuple[DeadLetter, ReceivedEvent]]:
        with self._lock:
            member = self._log.subscribe(self._topics, _GROUP)
            try:
                while batch := member.poll(_BATCH, _POLL_S):
                    for event in batch:
                        if event.value:  # what was erased is no letter any more
                            yield self._letter(event), event
            finally:
                member.close()

    def _letter(self, event: ReceivedEvent) -> DeadLetter:
        headers = event.headers
        owner, _, subject_id = event.key.partition("/")
        event_id = ""
        try:
            found = parse(_as_received(event))
        except InvalidMessage:
            is_settled = False
        else:
            owner, subject_id, event_id = found.owner or owner, found.subject_id or subject_id, found.event_id
            receipt = self._custody.receipt(owner, event_id)
            is_settled = receipt is not None and receipt.outcome is not ReceiptOutcome.REFUSED
        return DeadLetter(
            place=f"{event.topic}/{event.partition}/{event.offset}",
            topic=headers.get("dead-letter-topic", ""),
            owner=owner,
            subject_id=subject_id,
            event_id=event_id,
            reason=headers.get("dead-letter-reason", ""),
            detail=headers.get("dead-letter-detail", ""),
            size_bytes=len(event.value),
            is_settled=is_settled,
        )


def _as_it_was(event: ReceivedEvent) -> Event:
    headers = {name: value for name, value in event.headers.items() if not name.startswith(_PREFIX)}
    topic = event.headers.get("dead-letter-topic", "") or event.topic.removesuffix(dead_letter_topic(""))
    return Event(topic, event.key, event.value, headers)


def _as_received(event: ReceivedEvent) -> ReceivedEvent:
    """At the place that it had, which is its event_id where the producer gave none."""
    was, headers = _as_it_was(event), event.headers
    partition, offset = headers.get("dead-letter-partition", "0"), headers.get("dead-letter-offset", "0")
    return ReceivedEvent(was.topic, int(partition), int(offset), was.key, was.value, was.headers)
