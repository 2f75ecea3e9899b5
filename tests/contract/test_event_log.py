"""The contract of the EventLog port, held by every adapter.

An adapter joins by one more parameter of `event_log`: a function that gives an open log. Topics and groups have a
name of their own in every test, so that a real server can be shared.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest

from services.shared.adapters.sqlite_event_log import SqliteEventLog
from services.shared.errors import DependencyUnavailable
from services.shared.ids import new_id
from services.shared.ports.event_log import Event, EventLog, ReceivedEvent, Subscription
from tests.support.promises import within
from tests.support.waiting import wait_until

WAIT_S = 120.0  # a real server takes seconds to hand partitions to a new member


def _sqlite(path: Path) -> EventLog:
    return SqliteEventLog(path / "events.sqlite")


@pytest.fixture(params=[pytest.param(_sqlite, id="sqlite")])
def event_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventLog]:
    make: Callable[[Path], EventLog] = request.param
    log = make(tmp_path)
    yield log
    log.close()


@pytest.fixture
def topic() -> str:
    return f"test.{new_id()}.v1"


@pytest.fixture
def group() -> str:
    return f"group-{new_id()}"


def read(subscription: Subscription, count: int, *, max_events: int = 100) -> list[ReceivedEvent]:
    found: list[ReceivedEvent] = []

    def have_come() -> bool:
        found.extend(subscription.poll(max_events, 0.5))
        return len(found) >= count

    wait_until(have_come, WAIT_S, lambda: f"{count} events, have {len(found)}", 0)
    return found


def take(subscription: Subscription, max_events: int) -> Sequence[ReceivedEvent]:
    """Poll and commit. What could not be committed, because the group was changing hands, will come again."""
    polled = subscription.poll(max_events, 0.2)
    try:
        subscription.commit()
    except DependencyUnavailable:
        return []
    return polled


def events(topic: str, count: int, key: str = "k") -> Sequence[Event]:
    return [Event(topic, key, str(number).encode()) for number in range(count)]


def values(found: Sequence[ReceivedEvent]) -> list[int]:
    return [int(event.value) for event in found]


class TestEventLog:
    def test_redacted_content_is_in_no_event_any_more(self, event_log: EventLog, topic: str, group: str) -> None:
        """Others may lose their place with it, but only what every group has read."""
        event_log.publish([Event(topic, "k", b"a secret"), Event(topic, "k", b"said later")])
        subscription = event_log.subscribe([topic], group)
        assert [event.value for event in read(subscription, 2)] == [b"a secret", b"said later"]
        subscription.commit()
        redaction = event_log.redact([topic], lambda event: event.value == b"a secret")
        assert (redaction.count, redaction.remains_h) == (1, 0)
        assert event_log.redact([topic], lambda event: event.value == b"a secret").count == 0
        event_log.publish([Event(topic, "k", b"said last")])
        assert [event.value for event in read(subscription, 1)] == [b"said last"]
        subscription.close()
        again = event_log.subscribe([topic], f"{group}-again")
        found = [event.value for event in read(again, 2) if event.value]
        again.close()
        assert found == [b"said later", b"said last"]

    def test_an_event_comes_back_whole(self, event_log: EventLog, topic: str, group: str) -> None:
        event_log.publish([Event(topic, "northshire/S1", b"\x00\xffvalue", {"schema": "1", "reason": "naïve"})])
        subscription = event_log.subscribe([topic], group)
        [event] = read(subscription, 1)
        subscription.close()
        assert (event.topic, event.key, event.value) == (topic, "northshire/S1", b"\x00\xffvalue")
        assert dict(event.headers) == {"schema": "1", "reason": "naïve"}

    def test_events_of_a_key_keep_their_order(self, event_log: EventLog, topic: str, group: str) -> None:
        event_log.publish(events(topic, 30, "a"))
        event_log.publish(events(topic, 30, "b"))
        subscription = event_log.subscribe([topic], group)
        found = read(subscription, 60, max_events=7)
        subscription.close()
        for key in ("a", "b"):
            assert values([event for event in found if event.key == key]) == list(range(30))

    def test_poll_gives_no_more_than_asked_for(self, event_log: EventLog, topic: str, group: str) -> None:
        event_log.publish(events(topic, 20))
        subscription = event_log.subscribe([topic], group)
        assert 1 <= len(read(subscription, 1, max_events=5)) <= 5
        subscription.close()

    def test_an_empty_topic_gives_nothing_within_the_timeout(self, event_log: EventLog, topic: str, group: str) -> None:
        event_log.publish(events(topic, 1))
        subscription = event_log.subscribe([topic], group)
        read(subscription, 1)
        started = monotonic()
        assert within(5, lambda: subscription.poll(10, 0.3)) == []
        assert monotonic() - started >= 0.2
        subscription.close()

    def test_uncommitted_events_are_delivered_again_to_the_next_member(
        self, event_log: EventLog, topic: str, group: str
    ) -> None:
        event_log.publish(events(topic, 10))
        first = event_log.subscribe([topic], group)
        assert values(read(first, 4, max_events=4))[:4] == [0, 1, 2, 3]
        first.commit()
        rest = read(first, 3, max_events=3)
        first.close()
        second = event_log.subscribe([topic], group)
        again = read(second, 6)
        second.close()
        assert values(rest)[0] == 4
        assert values(again) == [4, 5, 6, 7, 8, 9]

    def test_a_committed_event_is_not_delivered_again(self, event_log: EventLog, topic: str, group: str) -> None:
        event_log.publish(events(topic, 5))
        first = event_log.subscribe([topic], group)
        read(first, 5)
        first.commit()
        first.close()
        event_log.publish([Event(topic, "k", b"99")])
        second = event_log.subscribe([topic], group)
        found = read(second, 1)
        second.close()
        assert values(found) == [99]

    def test_groups_read_apart_and_a_new_group_starts_at_the_oldest(
        self, event_log: EventLog, topic: str, group: str
    ) -> None:
        event_log.publish(events(topic, 3))
        for name in (group, f"{group}-other"):
            subscription = event_log.subscribe([topic], name)
            assert values(read(subscription, 3)) == [0, 1, 2]
            subscription.commit()
            subscription.close()

    def test_two_members_share_without_doubling(self, event_log: EventLog, topic: str, group: str) -> None:
        event_log.publish(events(topic, 40))
        first, second = event_log.subscribe([topic], group), event_log.subscribe([topic], group)
        found: list[ReceivedEvent] = []

        def all_taken() -> bool:
            found.extend([*take(first, 5), *take(second, 5)])
            return len(found) >= 40

        wait_until(all_taken, WAIT_S, lambda: f"40 events, have {len(found)}", 0)
        first.close()
        second.close()
        assert sorted(values(found)) == list(range(40))

    def test_several_topics_are_read_by_one_member(self, event_log: EventLog, topic: str, group: str) -> None:
        event_log.publish([Event(topic, "k", b"1"), Event(f"{topic}.dead-letter", "k", b"2")])
        subscription = event_log.subscribe([topic, f"{topic}.dead-letter"], group)
        found = read(subscription, 2)
        subscription.commit()
        subscription.close()
        assert {(event.topic, event.value) for event in found} == {(topic, b"1"), (f"{topic}.dead-letter", b"2")}

    def test_lag_counts_what_is_not_committed(self, event_log: EventLog, topic: str, group: str) -> None:
        event_log.publish(events(topic, 6))
        assert event_log.lag([topic], group) == 6
        subscription = event_log.subscribe([topic], group)
        read(subscription, 6)
        assert event_log.lag([topic], group) == 6
        subscription.commit()
        subscription.close()
        assert event_log.lag([topic], group) == 0

    def test_threads_publish_at_once(self, event_log: EventLog, topic: str, group: str) -> None:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda key: event_log.publish(events(topic, 20, key)), "abcdef"))
        subscription = event_log.subscribe([topic], group)
        found = read(subscription, 120)
        subscription.close()
        for key in "abcdef":
            assert values([event for event in found if event.key == key]) == list(range(20))

    def test_a_large_event_passes(self, event_log: EventLog, topic: str, group: str) -> None:
        event_log.publish([Event(topic, "k", b"\x07" * 900_000)])
        subscription = event_log.subscribe([topic], group)
        [event] = read(subscription, 1)
        subscription.close()
        assert event.value == b"\x07" * 900_000


def test_sqlite_hands_the_group_on_when_a_member_is_killed(tmp_path: Path, topic: str) -> None:
    path = tmp_path / "events.sqlite"
    log = SqliteEventLog(path)
    log.publish(events(topic, 3))
    killed = (
        "import os, pathlib, sys\n"
        "from services.shared.adapters.sqlite_event_log import SqliteEventLog\n"
        "member = SqliteEventLog(pathlib.Path(sys.argv[1])).subscribe([sys.argv[2]], 'g')\n"
        "assert len(member.poll(2, 5.0)) == 2\n"
        "os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(path), topic], check=False, timeout=WAIT_S)
    assert done.returncode == 9
    subscription = log.subscribe([topic], "g")
    assert values(read(subscription, 3)) == [0, 1, 2]
    subscription.close()
    log.close()


def test_sqlite_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "events.sqlite").write_bytes(b"this is no database, whatever its name says, and never was one")
    with pytest.raises(DependencyUnavailable):
        SqliteEventLog(tmp_path / "events.sqlite")
