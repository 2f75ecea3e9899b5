"""The port to the event log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Event:
    """One event to publish. `key` orders: events of one topic with one key are read in the order of publishing."""

    topic: str
    key: str
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """One event as read; `partition` and `offset` name its place for logs and dead letters."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Redaction:
    """How many events lost their content, and for how many hours at most some of them are still kept (0: for none)."""

    count: int
    remains_h: float = 0.0


class Subscription(Protocol):
    """One member of a consumer group. Not safe for several threads."""

    def poll(self, max_events: int, timeout_s: float) -> Sequence[ReceivedEvent]:
        """The next events, at most `max_events`, waiting at most `timeout_s`; empty when there are none.

        Events polled but not committed are delivered again to the group's next member (at least once).
        Raises DependencyUnavailable.
        """
        ...

    def commit(self) -> None:
        """Everything polled so far is done. Raises DependencyUnavailable; then it will be delivered again."""
        ...

    def close(self) -> None: ...


class EventLog(Protocol):
    """Durable, ordered, re-readable events. Contract tests: tests/contract/test_event_log.py."""

    def publish(self, events: Sequence[Event]) -> None:
        """Durable when it returns. Raises DependencyUnavailable; then any prefix may have been published."""
        ...

    def subscribe(self, topics: Sequence[str], group: str) -> Subscription:
        """Join a consumer group; a new group starts at the oldest event. Raises DependencyUnavailable."""
        ...

    def lag(self, topics: Sequence[str], group: str) -> int:
        """How many events of these topics the group has not committed yet. Raises DependencyUnavailable."""
        ...

    def redact(self, topics: Sequence[str], is_due: Callable[[ReceivedEvent], bool]) -> Redaction:
        """Erase the content of events, because law asks for it: what is due has no value any more, in no copy that
        the log itself keeps. Reads every event of the topics. Raises DependencyUnavailable.
        """
        ...

    def close(self) -> None: ...
