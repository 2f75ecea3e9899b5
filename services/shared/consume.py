"""The consume loop: every message has an outcome with a name.

| outcome | raised as | what happens |
|---|---|---|
| done | nothing | the position is committed with the rest of the batch |
| slow down | MessageRejected | nothing is committed; the same message again after a pause, for as long as it takes |
| again | RecoverableError | the same, with a growing pause: something that the message needs is away |
| invalid | InvalidMessage, or any other exception | `MAX_TRIES` times, then to `<topic>.dead-letter` with the reason |

Positions are committed after every message of a batch has been done or dead-lettered, so a crash repeats messages and
never skips one; handlers are idempotent. Messages of one key are handled in order, other keys at the same time. When
`TRIP_AFTER` messages in a row were invalid, the fault is hardly theirs: the loop pauses before it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import groupby
from threading import Event as StopSignal
from threading import Lock

import structlog

from services.shared.ports.event_log import Event, EventLog, ReceivedEvent, Subscription
from services.shared.tracing import consumed

MAX_TRIES = 3
TRIP_AFTER = 20
_TRIP_PAUSE_S = 10.0
_REJECTED_PAUSE_S = 0.5
_FIRST_BACKOFF_S = 0.1
_LAST_BACKOFF_S = 5.0
_BATCH = 16  # messages with inline images of megabytes are held in memory together
_POLL_S = 0.5
_MAX_DETAIL = 500  # of a reason in a header


class MessageRejected(Exception):
    """Not now: the consumer is at its limit."""


class RecoverableError(Exception):
    """Not now: something that handling it needs does not work."""


class InvalidMessage(Exception):
    """This message will never do. `reason` is a stable snake_case code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Stopped(Exception):
    """The loop was asked to stop in the middle of a batch; nothing of it is committed."""


def dead_letter_topic(topic: str) -> str:
    return f"{topic}.dead-letter"


class ConsumeLoop:
    """One member of a consumer group. `on_dead_letter(topic, reason)` is told of each dead letter, for metrics."""

    def __init__(
        self,
        log: EventLog,
        topics: Sequence[str],
        group: str,
        handle: Callable[[ReceivedEvent], None],
        *,
        threads: int = 8,
        on_dead_letter: Callable[[str, str], None] = lambda _topic, _reason: None,
    ) -> None:
        self._log = log
        self._topics = topics
        self._group = group
        self._handle = handle
        self._on_dead_letter = on_dead_letter
        self._stop = StopSignal()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"consume-{group}")
        self._subscription: Subscription | None = None
        self._lock = Lock()
        self._invalid_in_a_row = 0

    def step(self) -> float:
        """Handle one batch; returns the seconds to rest. Raises DependencyUnavailable when the log does not answer."""
        if self._subscription is None:
            self._subscription = self._log.subscribe(self._topics, self._group)
        try:
            batch = self._subscription.poll(_BATCH, _POLL_S)
            if batch:
                self._handle_batch(batch)
                self._subscription.commit()
        except Stopped:
            self._leave()
        except Exception:
            # Whatever it was: this member has read past what was not done, and its client may be broken for good. The
            # next one, this process again as a rule, starts at what was committed.
            self._leave()
            raise
        return self._rest_s()

    def stop(self) -> None:
        """End running retries. The thread that calls `step` closes afterwards."""
        self._stop.set()

    def close(self) -> None:
        self._leave()
        self._pool.shutdown()

    def _leave(self) -> None:
        """One that cannot say goodbye is missed by its group soon enough; it is never asked again."""
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        try:
            subscription.close()
        except Exception as error:  # noqa: BLE001 - what a broken client raises is its own affair
            structlog.get_logger().warning("subscription_abandoned", group=self._group, why=repr(error))

    def _rest_s(self) -> float:
        if self._invalid_in_a_row < TRIP_AFTER:
            return 0.0
        structlog.get_logger().error("consumer_tripped", group=self._group, invalid_in_a_row=self._invalid_in_a_row)
        self._invalid_in_a_row = 0
        return _TRIP_PAUSE_S

    def _handle_batch(self, batch: Sequence[ReceivedEvent]) -> None:
        def place(event: ReceivedEvent) -> tuple[str, str]:
            return event.topic, event.key

        in_key_order = sorted(batch, key=place)  # stable: the order within a key stays
        runs = [list(run) for _, run in groupby(in_key_order, key=place)]
        futures = [self._pool.submit(self._handle_in_order, run) for run in runs]
        wait(futures)  # all of them, so that nothing runs on when this member leaves
        for future in futures:
            future.result()

    def _handle_in_order(self, run: Iterable[ReceivedEvent]) -> None:
        for event in run:
            self._handle_to_the_end(event)

    def _handle_to_the_end(self, event: ReceivedEvent) -> None:
        tries, backoff_s = 0, _FIRST_BACKOFF_S
        while True:
            try:
                with consumed(event.topic, event.headers):
                    self._handle(event)
            except MessageRejected:
                self._pause(_REJECTED_PAUSE_S)
            except RecoverableError as error:
                structlog.get_logger().warning("message_waits", topic=event.topic, offset=event.offset, why=str(error))
                self._pause(backoff_s)
                backoff_s = min(backoff_s * 2, _LAST_BACKOFF_S)
            except Exception as error:  # noqa: BLE001 - a message that breaks its handler must not stop the others
                tries += 1
                if tries == MAX_TRIES:
                    self._dead_letter(event, error)
                    return
                self._pause(_FIRST_BACKOFF_S)
            else:
                self._count(is_valid=True)
                return

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped

    def _dead_letter(self, event: ReceivedEvent, error: Exception) -> None:
        is_named = isinstance(error, InvalidMessage)
        reason = error.reason if isinstance(error, InvalidMessage) else "handler_failed"
        structlog.get_logger().error(
            "dead_letter",
            topic=event.topic,
            partition=event.partition,
            offset=event.offset,
            reason=reason,
            exc_info=None if is_named else error,
        )
        headers = {
            **event.headers,
            "dead-letter-reason": reason,
            "dead-letter-detail": str(error)[:_MAX_DETAIL] if is_named else type(error).__name__,
            "dead-letter-topic": event.topic,
            "dead-letter-partition": str(event.partition),
            "dead-letter-offset": str(event.offset),
            "dead-letter-tries": str(MAX_TRIES),
        }
        self._log.publish([Event(dead_letter_topic(event.topic), event.key, event.value, headers)])
        self._on_dead_letter(event.topic, reason)
        self._count(is_valid=False)

    def _count(self, *, is_valid: bool) -> None:
        with self._lock:
            self._invalid_in_a_row = 0 if is_valid else self._invalid_in_a_row + 1
