"""The consume loop: each named outcome does what its name says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock, Thread
from time import sleep

import pytest

from services.shared import consume
from services.shared.adapters.sqlite_event_log import SqliteEventLog, SqliteSubscription
from services.shared.consume import (
    ConsumeLoop,
    InvalidMessage,
    MessageRejected,
    RecoverableError,
    dead_letter_topic,
)
from services.shared.ports.event_log import Event, ReceivedEvent
from tests.support.waiting import wait_until

TOPIC = "t.v1"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog(tmp_path / "events.sqlite")
    yield log
    log.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_REJECTED_PAUSE_S", "_FIRST_BACKOFF_S", "_LAST_BACKOFF_S", "_POLL_S"):
        monkeypatch.setattr(consume, name, 0.01)


class Handler:
    """Handles as it is told, and remembers."""

    def __init__(self, act: Callable[[str, int], None] = lambda _value, _times: None) -> None:
        self.handled: list[str] = []
        self.tries: Counter[str] = Counter()
        self._act = act
        self._lock = Lock()

    def __call__(self, event: ReceivedEvent) -> None:
        value = event.value.decode()
        with self._lock:
            self.tries[value] += 1
            times = self.tries[value]
        self._act(value, times)
        with self._lock:
            self.handled.append(value)


def publish(log: SqliteEventLog, *values: str) -> None:
    log.publish([Event(TOPIC, value.split("-")[0], value.encode(), {"schema": "x"}) for value in values])


def run(log: SqliteEventLog, handler: Handler, group: str = "g") -> ConsumeLoop:
    loop = ConsumeLoop(log, [TOPIC], group, handler)
    while log.lag([TOPIC], group):
        loop.step()
    return loop


def letters(log: SqliteEventLog) -> list[ReceivedEvent]:
    member = log.subscribe([dead_letter_topic(TOPIC)], "reader")
    found = list(member.poll(1000, 0.1))
    member.close()
    return found


def test_every_message_is_handled_in_the_order_of_its_key(log: SqliteEventLog) -> None:
    values = [f"{key}-{number}" for number in range(30) for key in "abc"]
    publish(log, *values)
    handler = Handler(lambda _value, _times: sleep(0.001))
    run(log, handler).close()
    assert sorted(handler.handled) == sorted(values)
    for key in "abc":
        assert [value for value in handler.handled if value[0] == key] == [f"{key}-{n}" for n in range(30)]


def test_an_invalid_message_is_put_aside_after_three_tries_with_its_reason(log: SqliteEventLog) -> None:
    def act(value: str, _times: int) -> None:
        if value == "a-bad":
            raise InvalidMessage("malformed_message", "no protobuf")

    handler = Handler(act)
    told: list[tuple[str, str]] = []
    publish(log, "a-1", "a-bad", "a-2", "b-1")
    loop = ConsumeLoop(log, [TOPIC], "g", handler, on_dead_letter=lambda topic, why: told.append((topic, why)))
    while log.lag([TOPIC], "g"):
        loop.step()
    loop.close()
    assert sorted(handler.handled) == ["a-1", "a-2", "b-1"]
    assert handler.tries["a-bad"] == 3
    [letter] = letters(log)
    assert (letter.key, letter.value) == ("a", b"a-bad")
    assert letter.headers["dead-letter-reason"] == "malformed_message"
    assert letter.headers["dead-letter-detail"] == "no protobuf"
    assert letter.headers["schema"] == "x"
    assert told == [(TOPIC, "malformed_message")]


def test_a_handler_that_breaks_is_tried_three_times_and_says_nothing_of_the_content(log: SqliteEventLog) -> None:
    def act(value: str, times: int) -> None:
        if value == "a-breaks" or (value == "a-recovers" and times < 3):
            raise KeyError("the name of a subject")

    handler = Handler(act)
    publish(log, "a-breaks", "a-recovers")
    run(log, handler).close()
    assert handler.handled == ["a-recovers"]
    [letter] = letters(log)
    assert letter.headers["dead-letter-reason"] == "handler_failed"
    assert letter.headers["dead-letter-detail"] == "KeyError"


@pytest.mark.parametrize("outcome", [MessageRejected, RecoverableError])
def test_what_passes_is_tried_until_it_passes(log: SqliteEventLog, outcome: type[Exception]) -> None:
    def act(_value: str, times: int) -> None:
        if times < 12:
            raise outcome("not now")

    handler = Handler(act)
    publish(log, "a-1", "a-2")
    run(log, handler).close()
    assert handler.handled == ["a-1", "a-2"]
    assert letters(log) == []


def test_stopped_in_the_middle_nothing_of_the_batch_is_committed(log: SqliteEventLog) -> None:
    def act(value: str, _times: int) -> None:
        if value == "b-waits":
            raise RecoverableError("away")

    publish(log, "a-1", "b-waits")
    handler = Handler(act)
    loop = ConsumeLoop(log, [TOPIC], "g", handler)
    thread = Thread(target=loop.step)
    thread.start()
    wait_until(lambda: bool(handler.tries["b-waits"]) or not thread.is_alive(), 60, "a first try", 0.01)
    loop.stop()
    thread.join(60)
    assert not thread.is_alive()
    loop.close()
    assert log.lag([TOPIC], "g") == 2
    again = Handler()
    run(log, again).close()
    assert sorted(again.handled) == ["a-1", "b-waits"]


def test_many_invalid_messages_in_a_row_trip_the_loop(log: SqliteEventLog) -> None:
    def act(_value: str, _times: int) -> None:
        raise InvalidMessage("malformed_message", "x")

    publish(log, *(f"k{number}-{number}" for number in range(consume.TRIP_AFTER + 5)))
    loop = ConsumeLoop(log, [TOPIC], "g", Handler(act))
    rests = [loop.step() for _ in range(3)]
    loop.close()
    assert max(rests) > 0
    assert len(letters(log)) == consume.TRIP_AFTER + 5


class BrokenClient(SqliteSubscription):
    """A member whose client ended with an error of its own: every call gives that error, goodbye too."""

    def __init__(self) -> None:
        """Of nothing."""

    def poll(self, max_events: int, timeout_s: float) -> Sequence[ReceivedEvent]:
        raise RuntimeError("the client's thread has ended")

    def commit(self) -> None:
        raise RuntimeError("the client's thread has ended")

    def close(self) -> None:
        raise RuntimeError("the client's thread has ended")


class FirstMemberBroken(SqliteEventLog):
    """Gives a broken client to the first who subscribes."""

    subscribed = 0

    def subscribe(self, topics: Sequence[str], group: str) -> SqliteSubscription:
        self.subscribed += 1
        return BrokenClient() if self.subscribed == 1 else super().subscribe(topics, group)


def test_a_member_whose_client_is_broken_for_good_is_not_asked_again(tmp_path: Path) -> None:
    log = FirstMemberBroken(tmp_path / "events.sqlite")
    publish(log, "a-1")
    handler = Handler()
    loop = ConsumeLoop(log, [TOPIC], "g", handler)
    with pytest.raises(RuntimeError, match="thread has ended"):
        loop.step()
    loop.step()
    loop.close()
    assert handler.handled == ["a-1"]
    assert log.lag([TOPIC], "g") == 0
    log.close()


def test_an_error_beside_the_handler_lets_no_message_be_passed_over(log: SqliteEventLog) -> None:
    """What was polled before it is not committed with what comes after it."""

    def act(value: str, _times: int) -> None:
        if value == "a-bad":
            raise InvalidMessage("malformed_message", "x")

    def break_once(_topic: str, _reason: str) -> None:
        told.append(_reason)
        if len(told) == 1:
            raise RuntimeError("a metric that cannot be written")

    told: list[str] = []
    publish(log, "a-bad")
    loop = ConsumeLoop(log, [TOPIC], "g", Handler(act), on_dead_letter=break_once)
    with pytest.raises(RuntimeError, match="metric"):
        loop.step()
    publish(log, "b-1")
    while log.lag([TOPIC], "g"):
        loop.step()
    loop.close()
    assert len(told) == 2
