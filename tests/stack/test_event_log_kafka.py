"""KafkaEventLog against a real broker: the port's contract, and what only Kafka has."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.cluster import ClusterMetadata

from services.shared.adapters.kafka_event_log import KafkaConnection, KafkaEventLog, TopicDefaults
from services.shared.errors import DependencyUnavailable
from services.shared.ports.event_log import Event, EventLog, ReceivedEvent
from services.shared.settings import MAX_IMAGE_BYTES
from tests.contract import test_event_log as contract
from tests.stack.kafka_groups import members
from tests.stack.servers.base import ServerProcess, free_ports
from tests.stack.servers.kafka import kafka_server
from tests.support.promises import within
from tests.support.waiting import once_available, wait_until

topic, group = contract.topic, contract.group


@pytest.fixture
def event_log(kafka_address: str) -> Iterator[EventLog]:
    log = KafkaEventLog(KafkaConnection(kafka_address, timeout_s=60), TopicDefaults(partitions=3))
    yield log
    log.close()


class TestKafkaEventLog(contract.TestEventLog):
    """The contract, held on Kafka."""


def test_a_topic_is_created_with_stated_partitions_and_retention(kafka_address: str, topic: str) -> None:
    log = KafkaEventLog(KafkaConnection(kafka_address, timeout_s=60), TopicDefaults(partitions=5, retention_h=24))
    log.publish([Event(topic, "k", b"1")])
    admin = KafkaAdminClient(bootstrap_servers=kafka_address)
    [described] = admin.describe_topics([topic])
    settings = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    admin.close()
    log.close()
    assert len(described["partitions"]) == 5
    assert settings["topic"][topic]["retention.ms"]["value"] == str(24 * 3_600_000)
    assert settings["topic"][topic]["segment.ms"]["value"] == str(3_600_000)


def test_the_largest_image_that_a_request_may_carry_passes(event_log: EventLog, topic: str, group: str) -> None:
    value = b"\x07" * MAX_IMAGE_BYTES
    event_log.publish([Event(topic, "k", value)])
    subscription = event_log.subscribe([topic], group)
    [event] = contract.read(subscription, 1)
    subscription.close()
    assert event.value == value


def test_what_other_systems_publish_without_text_is_read(
    event_log: EventLog, kafka_address: str, topic: str, group: str
) -> None:
    event_log.publish([Event(topic, "k", b"first")])
    producer = KafkaProducer(bootstrap_servers=kafka_address)
    producer.send(topic, value=b"second", headers=[("odd", b"\xff\xfe")]).get(timeout=60)
    producer.close()
    subscription = event_log.subscribe([topic], group)
    found = contract.read(subscription, 2)
    subscription.close()
    odd = next(event for event in found if event.value != b"first")
    assert (odd.key, odd.value) == ("", b"second")
    assert set(odd.headers) == {"odd"}


class TestBrokerFailure:
    """Against a broker of their own, which they kill and pause."""

    @pytest.fixture
    def broker(self) -> Iterator[tuple[ServerProcess, str]]:
        server, address = kafka_server()
        server.start()
        yield server, address
        server.resume()
        server.discard()

    def test_publishing_and_reading_go_on_when_the_broker_is_back(
        self, broker: tuple[ServerProcess, str], topic: str, group: str
    ) -> None:
        server, address = broker
        log = KafkaEventLog(KafkaConnection(address, timeout_s=4.0))
        once_available(lambda: log.publish([Event(topic, "k", b"0")]))
        subscription = once_available(lambda: log.subscribe([topic], group))
        assert set(contract.values(contract.read(subscription, 1))) == {0}
        server.kill()
        within(10, lambda: _fails_to_publish(log, Event(topic, "k", b"1")))
        with pytest.raises(DependencyUnavailable):
            subscription.commit()
        server.start()
        once_available(lambda: log.publish([Event(topic, "k", b"2")]))
        # The first event was not committed, so it comes again; whatever was acknowledged is there.
        found: list[int] = []

        def all_done() -> bool:
            with suppress(DependencyUnavailable):  # the member is let in again
                found.extend(contract.values(subscription.poll(100, 0.5)))
                subscription.commit()
                return log.lag([topic], group) == 0
            return False

        wait_until(all_done, 120, lambda: f"both events to be read and committed, have {found}")
        subscription.close()
        assert found[0] == 0
        assert found[-1] == 2
        log.close()

    def test_a_broker_that_hangs_is_given_up_within_the_deadline(
        self, broker: tuple[ServerProcess, str], topic: str
    ) -> None:
        server, address = broker
        log = KafkaEventLog(KafkaConnection(address, timeout_s=2.0))
        once_available(lambda: log.publish([Event(topic, "k", b"0")]))
        threads = threading.active_count()
        server.pause()
        within(8, lambda: _fails_to_publish(log, Event(topic, "k", b"1")))
        wait_until(lambda: threading.active_count() <= threads, 60, "no thread to be left behind")
        server.resume()
        once_available(lambda: log.publish([Event(topic, "k", b"2")]))
        log.close()

    def test_no_broker_at_all_is_said_within_the_deadline(self) -> None:
        [port] = free_ports(1)
        log = KafkaEventLog(KafkaConnection(f"127.0.0.1:{port}", timeout_s=1.0))
        threads = threading.active_count()
        within(5, lambda: _fails_to_publish(log, Event("t", "k", b"0")))
        with pytest.raises(DependencyUnavailable):
            log.lag(["t"], "g")
        wait_until(lambda: threading.active_count() <= threads, 60, "no thread to be left behind")
        log.close()


class TestGroups:
    """Members come and go: each event of a key in its order, none lost."""

    def test_a_key_keeps_its_order_while_members_join_and_leave(
        self, event_log: EventLog, kafka_address: str, topic: str, group: str
    ) -> None:
        seen = Seen()
        event_log.publish([Event(topic, f"k{n % 5}", str(n).encode()) for n in range(20)])
        with member(event_log, topic, group, seen):
            seen.wait_for(20)
            for start in (20, 40):
                event_log.publish([Event(topic, f"k{n % 5}", str(n).encode()) for n in range(start, start + 20)])
                other = KafkaEventLog(KafkaConnection(kafka_address, timeout_s=60))
                with member(other, topic, group, seen):
                    seen.wait_for(start + 20)
                other.close()
        # At least once: what was not committed when the group changed hands comes again, in its order.
        for key, numbers in seen.by_key.items():
            assert list(dict.fromkeys(numbers)) == sorted(set(numbers)), key

    def test_a_member_that_works_longer_than_the_group_waits_comes_back(
        self, kafka_address: str, topic: str, group: str
    ) -> None:
        """As a handler that waits for the audit log: nothing is lost, and what it did is delivered again."""
        log = KafkaEventLog(
            KafkaConnection(kafka_address, timeout_s=60, poll_interval_s=2.0), TopicDefaults(partitions=1)
        )
        log.publish([Event(topic, "k", b"0")])
        subscription = log.subscribe([topic], group)
        assert contract.values(contract.read(subscription, 1)) == [0]
        wait_until(lambda: not members(kafka_address, group), 120, "the group to give the member up", 0.5)
        with pytest.raises(DependencyUnavailable):
            subscription.commit()
        subscription.close()
        again = log.subscribe([topic], group)

        def is_done() -> bool:
            # A busy machine can take longer between the two than this group waits: then it comes again.
            assert set(contract.values(contract.take(again, 10))) <= {0}
            return log.lag([topic], group) == 0

        wait_until(is_done, 120, "the event to be delivered and committed again")
        again.close()
        log.close()

    def test_a_client_that_does_not_hear_of_its_topics_becomes_no_member(
        self, kafka_address: str, topic: str, group: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It would be one for good that is given nothing and complains of nothing; the next client is a sound one."""

        async def ends(_cluster: ClusterMetadata) -> None:
            """The client's refresh of metadata, after an error that nobody reads."""

        log = KafkaEventLog(KafkaConnection(kafka_address, timeout_s=5.0))
        once_available(lambda: log.publish([Event(topic, "k", b"0")]))
        threads = threading.active_count()
        with monkeypatch.context() as broken:
            broken.setattr(ClusterMetadata, "_refresh_loop", ends)
            with pytest.raises(DependencyUnavailable):
                log.subscribe([topic], group)
        wait_until(lambda: threading.active_count() <= threads, 60, "no thread to be left behind")
        subscription = once_available(lambda: log.subscribe([topic], group))
        assert contract.values(contract.read(subscription, 1)) == [0]
        subscription.close()
        log.close()


class Seen:
    """The numbers that the members of a group were given, by key, in order."""

    def __init__(self) -> None:
        self.by_key: dict[str, list[int]] = defaultdict(list)
        self._lock = threading.Lock()

    def note(self, events: Sequence[ReceivedEvent]) -> None:
        with self._lock:
            for event in events:
                self.by_key[event.key].append(int(event.value))

    def wait_for(self, count: int) -> None:
        """Until 0 to `count` have come."""

        def numbers() -> set[int]:
            with self._lock:
                return {n for found in self.by_key.values() for n in found}

        wait_until(lambda: numbers() >= set(range(count)), 120, lambda: f"{count} events, have {sorted(numbers())}")


@contextmanager
def member(log: EventLog, topic: str, group: str, seen: Seen) -> Iterator[None]:
    """A member that reads in a thread of its own: a group changes hands only while every member does its part."""
    stop = threading.Event()

    def read() -> None:
        subscription = log.subscribe([topic], group)
        while not stop.is_set():
            with suppress(DependencyUnavailable):  # the group is changing hands: it comes again
                seen.note(subscription.poll(3, 0.2))
                subscription.commit()
        subscription.close()

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    try:
        yield
    finally:
        stop.set()
        reading.join(120)
        assert not reading.is_alive(), "a member does not leave"


def _fails_to_publish(log: EventLog, event: Event) -> None:
    with pytest.raises(DependencyUnavailable):
        log.publish([event])
