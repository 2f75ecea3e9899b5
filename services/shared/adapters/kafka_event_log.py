"""Events on Apache Kafka: the adapter of the EventLog port for more than one machine."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from time import monotonic, sleep
from typing import Any, TypeVar

import structlog

from services.shared.adapters.extras import require
from services.shared.errors import DependencyUnavailable
from services.shared.ports.event_log import Event, ReceivedEvent, Redaction

# A custody image of 32 MiB and its envelope pass in one event.
MAX_EVENT_BYTES = 34 * 1024 * 1024
_GOODBYE_MS = 2000
_COORDINATOR_REST_S = 0.2
_METADATA_REST_S = 0.05
_METADATA_AGE_MS = 60_000  # partitions that operators add are given to somebody within a minute
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class TopicDefaults:
    """How a topic is created when it is not there yet. An existing topic is left as its operators made it.

    `partitions` bounds how many members of one group read at once. It is never raised by the adapter: events of one
    key stay in order only while the number of partitions stays. `segment_h`: what was dropped from a partition leaves
    the broker's disk by whole segments, and never from the one that is written; a broker's own default is a week.
    """

    partitions: int = 6
    replication_factor: int = 1
    retention_h: int = 168
    segment_h: int = 1

    def config(self) -> dict[str, str]:
        return {
            "retention.ms": str(self.retention_h * 3_600_000),
            "segment.ms": str(self.segment_h * 3_600_000),
            "max.message.bytes": str(MAX_EVENT_BYTES),
            # With three replicas an acknowledged event survives the loss of one broker.
            "min.insync.replicas": str(max(1, self.replication_factor - 1)),
        }


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """Where the brokers are and how to speak to them. `security` are further kafka-python settings (TLS, SASL)."""

    bootstrap_servers: str
    timeout_s: float = 10.0
    # A member that works on one batch for longer, because what it needs is away, has to join again: what it had goes
    # to the others meanwhile, and to it again.
    poll_interval_s: float = 300.0
    security: tuple[tuple[str, Any], ...] = ()

    def settings(self) -> dict[str, Any]:
        timeout_ms = int(self.timeout_s * 1000)
        return {
            "bootstrap_servers": self.bootstrap_servers.split(","),
            "bootstrap_timeout_ms": timeout_ms,
            "request_timeout_ms": timeout_ms,
            "reconnect_backoff_max_ms": 1000,  # a broker that comes back is found within a second
            **dict(self.security),
        }


class KafkaEventLog:
    """EventLog on Kafka. Safe for several threads; each Subscription belongs to one.

    Published events are idempotent and acknowledged by all in-sync replicas. Topics are created with stated partitions
    and retention before they are first used, because a topic that the broker makes by itself has neither.
    """

    def __init__(self, connection: KafkaConnection, topics: TopicDefaults | None = None) -> None:
        self._kafka = require("kafka", "kafka")
        self._admin_api = require("kafka.admin", "kafka")
        self._errors = require("kafka.errors", "kafka")
        self._failures = (self._errors.KafkaError, OSError, TimeoutError)
        require("crc32c", "kafka")  # without it the checksums alone make the producer twenty times slower
        self._connection = connection
        self._topics = topics or TopicDefaults()
        self._lock = Lock()
        self._known_topics: set[str] = set()
        self._producer: Any = None
        self._admin: Any = None

    def publish(self, events: Sequence[Event]) -> None:
        if not events:
            return
        self._ensure_topics({event.topic for event in events})
        with self._lock:
            producer = self._open_producer()
        deadline = monotonic() + self._connection.timeout_s
        try:
            with self._translated("published"):
                futures = [_send(producer, event) for event in events]
                producer.flush(timeout=self._connection.timeout_s)
                for future in futures:
                    future.get(timeout=max(0.0, deadline - monotonic()))
        except DependencyUnavailable:
            self._discard_producer(producer)
            raise

    def subscribe(self, topics: Sequence[str], group: str) -> KafkaSubscription:
        self._ensure_topics(set(topics))
        with self._translated("subscribed to"):
            consumer = _opened(
                functools.partial(self._kafka.KafkaConsumer, *dict.fromkeys(topics)),
                **self._connection.settings(),
                group_id=group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                partition_assignment_strategy=(
                    require("kafka.coordinator.assignors.cooperative_sticky", "kafka").CooperativeStickyAssignor,
                ),
                max_partition_fetch_bytes=MAX_EVENT_BYTES,
                fetch_max_bytes=2 * MAX_EVENT_BYTES,
                # A member that was killed is missed after this long, and its events go to the others.
                session_timeout_ms=10_000,
                heartbeat_interval_ms=1_000,
                max_poll_interval_ms=int(self._connection.poll_interval_s * 1000),
                metadata_max_age_ms=_METADATA_AGE_MS,
                metrics_enabled=False,
            )
            self._get_to_know(consumer, topics)
        return KafkaSubscription(consumer, self._errors, self._connection)

    def _get_to_know(self, consumer: Any, topics: Sequence[str]) -> None:
        """Wait until the client knows the partitions of its topics; raises, and ends the client, where it does not.

        It joins its group when it is first polled. The leader of a group that does not know them yet gives nobody
        anything, and hears of them later only if its client's refresh of metadata works: where a request was forgotten
        because the answer to an earlier one came after it, or the refresh ended with an error that nobody reads, the
        member is one for good, without a partition and without a complaint.
        """
        ends_at = monotonic() + self._connection.timeout_s
        cluster = consumer._cluster  # the public way asks for the topics of everybody, and waits without end
        while not all(cluster.partitions_for_topic(topic) for topic in topics):
            if monotonic() >= ends_at:
                consumer.close(autocommit=False, timeout_ms=0)
                raise self._errors.KafkaTimeoutError(f"the brokers do not say where {sorted(topics)} are")
            cluster.request_update()
            sleep(_METADATA_REST_S)

    def lag(self, topics: Sequence[str], group: str) -> int:
        self._ensure_topics(set(topics))
        with self._lock, self._translated("read"):
            return self._administered(lambda admin: self._lag_of(admin, topics, group))

    def _lag_of(self, admin: Any, topics: Sequence[str], group: str) -> int:
        partitions = [
            self._kafka.TopicPartition(topic["name"], partition["partition_index"])
            for topic in admin.describe_topics(list(dict.fromkeys(topics)))
            for partition in topic["partitions"]
        ]
        newest = self._offsets(admin, partitions, self._kafka.OffsetSpec.LATEST)
        oldest = self._offsets(admin, partitions, self._kafka.OffsetSpec.EARLIEST)
        committed = self._committed(admin, group, partitions)
        return sum(_lag(committed.get(each), oldest[each], newest[each]) for each in partitions)

    def _committed(self, admin: Any, group: str, partitions: Sequence[Any]) -> Mapping[Any, Any]:
        """A broker that has just started makes the place where groups stand when it is first asked for it."""
        ends_at = monotonic() + self._connection.timeout_s / 2
        while True:
            try:
                return dict(admin.list_group_offsets({group: partitions})[group])
            except (self._errors.CoordinatorNotAvailableError, self._errors.CoordinatorLoadInProgressError):
                if monotonic() >= ends_at:
                    raise
                sleep(_COORDINATOR_REST_S)

    def redact(self, topics: Sequence[str], is_due: Callable[[ReceivedEvent], bool]) -> Redaction:
        """Kafka changes no event: it can only drop a partition's oldest. So everything up to the last event that is due
        goes, where every consumer group that reads the topic has committed past it; else retention has to end it."""
        self._ensure_topics(set(topics))
        with self._translated("read"):
            due = self._last_due(topics, is_due)
        if not due:
            return Redaction(0)
        with self._lock, self._translated("erased"):
            droppable = self._administered(lambda admin: self._drop(admin, due))
        count = sum(number for partition, (_, number) in due.items() if partition in droppable)
        return Redaction(count, 0.0 if len(droppable) == len(due) else float(self._topics.retention_h))

    def _drop(self, admin: Any, due: Mapping[Any, tuple[int, int]]) -> dict[Any, int]:
        """Drop what every group has read; by partition, the offset that is the oldest now. Twice is as good as once."""
        read = self._read_by_all(admin, list(due))
        droppable = {partition: last + 1 for partition, (last, _) in due.items() if read[partition] > last}
        if droppable:
            admin.delete_records(droppable)
        return droppable

    def _last_due(self, topics: Sequence[str], is_due: Callable[[ReceivedEvent], bool]) -> dict[Any, tuple[int, int]]:
        """By partition: the offset of the last event that is due, and how many are."""
        consumer = _opened(
            self._kafka.KafkaConsumer,
            **self._connection.settings(),
            enable_auto_commit=False,
            max_partition_fetch_bytes=MAX_EVENT_BYTES,
            fetch_max_bytes=2 * MAX_EVENT_BYTES,
            metrics_enabled=False,
        )
        due: dict[Any, tuple[int, int]] = {}
        try:
            partitions = [
                self._kafka.TopicPartition(topic, number)
                for topic in topics
                for number in consumer.partitions_for_topic(topic) or ()
            ]
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            ends = consumer.end_offsets(partitions)
            while any(consumer.position(partition) < ends[partition] for partition in partitions):
                for partition, records in consumer.poll(timeout_ms=500).items():
                    for record in records:
                        if record.value and is_due(_received(record)):
                            due[partition] = (record.offset, due.get(partition, (0, 0))[1] + 1)
        finally:
            consumer.close()
        return due

    def _read_by_all(self, admin: Any, partitions: Sequence[Any]) -> dict[Any, float]:
        """By partition: the smallest offset that a group which reads it has committed; infinity where none does."""
        read: dict[Any, float] = dict.fromkeys(partitions, float("inf"))
        groups = [each["group_id"] if isinstance(each, dict) else each[0] for each in admin.list_groups()]
        for group in groups:
            committed = admin.list_group_offsets({group: list(partitions)})[group]
            for partition, found in committed.items():
                if found is not None and found.offset >= 0:
                    read[partition] = min(read[partition], found.offset)
        return read

    def close(self) -> None:
        with self._lock:
            producer, admin = self._producer, self._admin
            self._producer = self._admin = None
        if producer is not None:
            producer.close(timeout=self._connection.timeout_s)
        if admin is not None:
            admin.close()

    @staticmethod
    def _offsets(admin: Any, partitions: Sequence[Any], spec: Any) -> Mapping[Any, int]:
        answer = admin.list_partition_offsets(dict.fromkeys(partitions, spec))
        return {partition: found.offset for partition, found in answer.items()}

    def _ensure_topics(self, topics: set[str]) -> None:
        with self._lock:
            missing = topics - self._known_topics
            if not missing:
                return
            with self._translated("used"):
                self._administered(lambda admin: self._create_absent(admin, missing))
            self._known_topics |= missing

    def _create_absent(self, admin: Any, topics: set[str]) -> None:
        absent = sorted(topics - set(admin.list_topics()))
        if absent:
            self._create(admin, absent)
            admin.wait_for_topics(absent, timeout_ms=int(self._connection.timeout_s * 1000))

    def _create(self, admin: Any, topics: Sequence[str]) -> None:
        new = [
            self._admin_api.NewTopic(
                name=topic,
                num_partitions=self._topics.partitions,
                replication_factor=self._topics.replication_factor,
                topic_configs=self._topics.config(),
            )
            for topic in topics
        ]
        try:
            admin.create_topics(new)
        except self._errors.TopicAlreadyExistsError:
            return  # another process was first, with the same settings

    def _administered(self, act: Callable[[Any], _Found]) -> _Found:
        """What `act` finds, which may be asked twice: a client from before a restart of the brokers can know only
        nodes that are gone, so after a failure it is thrown away, and a new one asked once."""
        started, was_open = monotonic(), self._admin is not None
        try:
            return act(self._open_admin())
        except self._failures:
            self._discard_admin()
            # What took so long is a broker that hangs, and the caller waits.
            if not was_open or monotonic() - started > self._connection.timeout_s / 2:
                raise
        try:
            return act(self._open_admin())
        except self._failures:
            self._discard_admin()
            raise

    def _discard_admin(self) -> None:
        admin, self._admin = self._admin, None
        if admin is None:
            return
        try:
            admin.close()
        except self._failures:
            structlog.get_logger().warning("kafka_admin_abandoned", servers=self._connection.bootstrap_servers)

    def _open_admin(self) -> Any:
        if self._admin is None:
            self._admin = _opened(self._kafka.KafkaAdminClient, **self._connection.settings())
        return self._admin

    def _open_producer(self) -> Any:
        if self._producer is None:
            timeout_ms = int(self._connection.timeout_s * 1000)
            with self._translated("published"):
                self._producer = _opened(
                    self._kafka.KafkaProducer,
                    **{**self._connection.settings(), "request_timeout_ms": timeout_ms // 2},
                    acks="all",
                    enable_idempotence=True,
                    # Given up before the caller's deadline, so that nothing is under way when the producer is closed.
                    delivery_timeout_ms=timeout_ms * 3 // 4,
                    max_block_ms=timeout_ms,
                    max_request_size=MAX_EVENT_BYTES,
                    metrics_enabled=False,
                )
        return self._producer

    def _discard_producer(self, producer: Any) -> None:
        """An idempotent producer that lost an event can be in a state that it does not leave; the next is a new one."""
        with self._lock:
            if self._producer is producer:
                self._producer = None
        try:
            producer.close(timeout=1)
        except self._errors.KafkaError:
            structlog.get_logger().warning("kafka_producer_abandoned", servers=self._connection.bootstrap_servers)

    @contextmanager
    def _translated(self, done: str) -> Iterator[None]:
        with _translated(self._errors, self._connection.bootstrap_servers, done):
            yield


class KafkaSubscription:
    """A member of a consumer group. See the port."""

    def __init__(self, consumer: Any, errors: Any, connection: KafkaConnection) -> None:
        self._consumer = consumer
        self._errors = errors
        self._connection = connection
        # The first event of each partition that was polled and not committed yet.
        self._uncommitted: dict[Any, int] = {}

    def poll(self, max_events: int, timeout_s: float) -> Sequence[ReceivedEvent]:
        with self._translated("read"):
            batches = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=max_events)
        for partition, records in batches.items():
            self._uncommitted.setdefault(partition, records[0].offset)
        return [_received(record) for record in itertools.chain.from_iterable(batches.values())]

    def commit(self) -> None:
        if not self._uncommitted:
            return
        try:
            with self._translated("committed"):
                self._consumer.commit(timeout_ms=int(self._connection.timeout_s * 1000))
        except DependencyUnavailable:
            self._rewind()
            raise
        self._uncommitted.clear()

    def close(self) -> None:
        try:
            with self._translated("left"):
                # A member that cannot say goodbye, because the group is just changing hands, is missed soon enough.
                self._consumer.close(autocommit=False, timeout_ms=_GOODBYE_MS)
        finally:
            self._consumer._client.close()  # twice is as good as once; after a goodbye that failed it still runs

    def _rewind(self) -> None:
        """What could not be committed is read again, by this member where it still has the partition."""
        assigned = self._consumer.assignment()
        for partition, offset in self._uncommitted.items():
            if partition in assigned:
                self._consumer.seek(partition, offset)
        self._uncommitted.clear()

    @contextmanager
    def _translated(self, done: str) -> Iterator[None]:
        with _translated(self._errors, self._connection.bootstrap_servers, done):
            yield


def _opened(kind: Callable[..., Any], **settings: Any) -> Any:
    """A client of kafka-python, or its error and no thread left behind: the library starts a client's IO thread before
    it looks for the brokers, and lets it run on when it finds none."""
    nets = require("kafka.net.selector", "kafka")
    clients = require("kafka.net.compat", "kafka")
    made: list[tuple[Any, Any]] = []

    def make(**configs: Any) -> Any:
        net = nets.NetworkSelector(**configs)
        client = clients.KafkaNetClient(net=net, **configs)
        made.append((client, net))
        return client

    try:
        return kind(**settings, kafka_client=make)
    except Exception:
        for client, net in made:
            client.close()
            net.stop()
        raise


def _send(producer: Any, event: Event) -> Any:
    headers = [(name, value.encode("utf-8")) for name, value in event.headers.items()]
    return producer.send(event.topic, key=event.key.encode("utf-8"), value=event.value, headers=headers)


def _received(record: Any) -> ReceivedEvent:
    return ReceivedEvent(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        # Other systems publish here too: a key or a header of theirs may be missing or no text at all.
        key=(record.key or b"").decode("utf-8", "replace"),
        value=record.value or b"",
        headers={name: (value or b"").decode("utf-8", "replace") for name, value in record.headers or ()},
    )


def _lag(committed: Any, oldest: int, newest: int) -> int:
    """Events past the committed offset; what retention removed meanwhile cannot be read any more and is not counted."""
    offset = getattr(committed, "offset", -1)
    return newest - max(offset, oldest)


@contextmanager
def _translated(errors: Any, servers: str, done: str) -> Iterator[None]:
    try:
        yield
    except (errors.KafkaError, OSError, TimeoutError) as error:
        raise DependencyUnavailable(
            f"Events on Kafka at {servers} could not be {done}: {error!r}.",
            advice="Try again; operators: check that the brokers are up and have enough in-sync replicas.",
        ) from error
