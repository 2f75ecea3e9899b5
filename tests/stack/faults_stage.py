"""The stage on which real servers are killed, paused and cut off: servers of its own, a platform on them, one ledger.

embed runs its stand-in for the networks: the same picture always gives the same template, which is all that is needed
to tell whether a reference is lost, doubled or found.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psutil
import sqlalchemy as sa
from minio import Minio
from minio.deleteobjects import DeleteObject
from pymilvus import MilvusClient

from services.rpc.v1 import events_pb2
from services.shared.adapters.kafka_event_log import KafkaConnection, KafkaEventLog
from services.shared.clock import rfc3339
from services.shared.ids import new_id
from services.shared.ports.event_log import Event, ReceivedEvent
from tests.stack.real_platform import RealPlatform, Servers, real_platform, settings
from tests.stack.servers.base import ServerProcess, run
from tests.stack.servers.kafka import kafka_server
from tests.stack.servers.milvus import milvus_server
from tests.stack.servers.minio import s3_server
from tests.stack.servers.postgres import binaries, postgres_server
from tests.support.casework import post_search
from tests.support.fault_ledger import ClientLedger
from tests.support.noise import picture
from tests.support.platform import Platform
from tests.support.runbooks import blocks
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import wait_until

WAIT_S = 240.0
ENGINES = "Kafka, Milvus, MinIO, PostgreSQL"
RECEIPTS = "likeness.custody-event-received.v1"
WITHDRAWALS = "likeness.custody-image-withdrawn.v1"
SETTINGS = {
    "LIKENESS_EMBED__MODEL__KIND": "stub",
    # A test asks for more in a second than a person in a minute; the limits have tests of their own.
    **{
        f"LIKENESS_SEARCH__{limits}__{of}_PER_MINUTE": "0"
        for limits in ("RATE_LIMITS", "SEARCH_RATE_LIMITS")
        for of in ("PERSON", "FORCE")
    },
    "LIKENESS_SEARCH__ORPHAN_AGE_S": "2",
}


@dataclass
class Stage:
    """The platform, its servers by name, and the networks to three of them (Kafka names its own address)."""

    real: RealPlatform
    kafka_address: str
    servers: dict[str, ServerProcess]
    networks: dict[str, TcpProxy]
    ledger: ClientLedger
    behind: Servers
    _cases: Iterator[int] = field(default_factory=lambda: count(1))
    _subjects: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def platform(self) -> Platform:
        return self.real.platform

    def images(self, number: int, unreadable: int = 0) -> list[tuple[str, bytes]]:
        """New subjects with a picture each; the last `unreadable` of them send what is no picture."""
        made = []
        for place in range(number):
            name = f"F-{next(self._subjects):04d}"
            made.append((name, picture(name) if place < number - unreadable else f"no picture {name}".encode()))
        return made

    def search(self, image: bytes, timeout_s: float = 120.0) -> httpx.Response:
        """One search by an operator, each of a case of its own."""
        with self.platform.client("search", "operator", timeout_s=timeout_s) as operator:
            return post_search(operator, image, case_reference=f"NC/2026/{next(self._cases):05d}")

    def finds(self, subject: tuple[str, bytes]) -> bool:
        """Whether a search with a subject's own picture names it first. A refusal is a no, another name an error."""
        answer = self.search(subject[1])
        if answer.status_code != 200:
            assert answer.status_code == 503, answer.text
            return False
        first = answer.json()["candidates"][0]
        assert (first["subject_id"], round(first["score"], 3)) == (subject[0], 1.0), first
        return True

    def publish(self, events: Sequence[Event]) -> None:
        log = KafkaEventLog(KafkaConnection(self.kafka_address, timeout_s=60))
        try:
            log.publish(events)
        finally:
            log.close()

    def unread(self) -> int:
        """Custody events that ingest's group has not committed."""
        log = KafkaEventLog(KafkaConnection(self.kafka_address, timeout_s=60))
        try:
            return log.lag([self.real.names.custody_topic], self.real.names.group)
        finally:
            log.close()

    def custody(self, subject: str, image: bytes, **fields: Any) -> Event:
        """A custody image as a producer sends it."""
        message = events_pb2.CustodyImageReceived(
            event_id=new_id(),
            watchlist_id="custody",
            owner="northshire",
            subject_id=subject,
            lawful_basis="pace_1984_s64a",
            captured_on="2026-03-01",
            image=image,
            **fields,
        )
        return Event(self.real.names.custody_topic, f"northshire/{subject}", message.SerializeToString())

    def withdrawn(self, subject: str) -> Event:
        """The owner takes back every image of a subject that was made so far."""
        message = events_pb2.CustodyImageWithdrawn(
            event_id=new_id(),
            occurred_at=rfc3339(datetime.now(UTC)),
            owner="northshire",
            subject_id=subject,
            reason="sent in error",
        )
        return Event(WITHDRAWALS, f"northshire/{subject}", message.SerializeToString())

    def expect_withdrawn(self, subjects: Iterable[str]) -> None:
        """From now on these subjects have to be in no gallery."""
        self.ledger.withdrawn |= set(subjects)

    def announced(self, ids: Collection[str], within_s: float = WAIT_S) -> dict[str, set[str]]:
        """The ids of the events that tell the outcome of each of these enrolments."""
        found: dict[str, set[str]] = defaultdict(set)

        def all_there() -> bool:
            for event in self.read("likeness.reference-enrolled.v1", "likeness.enrolment-refused.v1"):
                kind = events_pb2.ReferenceEnrolled if "enrolled.v1" in event.topic else events_pb2.EnrolmentRefused
                message = kind.FromString(event.value)
                if message.enrolment_id in ids:
                    found[message.enrolment_id].add(message.event_id)
            return set(ids) <= found.keys()

        wait_until(all_there, within_s, lambda: f"the outcomes of {len(set(ids) - found.keys())} enrolments", 0.5)
        return found

    def dead_letters(self) -> list[ReceivedEvent]:
        return self.read(f"{self.real.names.custody_topic}.dead-letter")

    def read(self, *topics: str) -> list[ReceivedEvent]:
        """Everything that stands in these topics now."""
        log = KafkaEventLog(KafkaConnection(self.kafka_address, timeout_s=60))
        group = f"test-{new_id()}"
        member = log.subscribe(topics, group)
        found: list[ReceivedEvent] = []
        try:
            wanted = log.lag(topics, group)

            def all_read() -> bool:
                found.extend(member.poll(500, 0.5))
                return len(found) >= wanted

            wait_until(all_read, WAIT_S, lambda: f"{wanted} events of {topics}, have {len(found)}")
        finally:
            member.close()
            log.close()
        return found

    @contextmanager
    def milvus(self) -> Iterator[MilvusClient]:
        """A client that does behind the platform's back what nobody should."""
        client = MilvusClient(f"http://127.0.0.1:{self.networks['milvus'].port}")
        try:
            yield client
        finally:
            client.close()

    def back_up(self, folder: Path) -> None:
        """Databases and images, by the commands of docs/operations/backup-and-restore.md."""
        self._do(blocks("backup-and-restore.md")["Take it from servers"], folder)

    def restore(self, folder: Path) -> None:
        self._do(blocks("backup-and-restore.md")["Put it back on servers"], folder)

    def _do(self, block: str, folder: Path) -> None:
        databases = {}
        for name, url in self.real.databases.items():
            place = sa.make_url(url)
            plain = f"postgresql://{place.username}:{place.password}@{place.host}:{place.port}/{place.database}"
            databases[f"{name.upper()}_DATABASE"] = plain
        environment = {
            **settings(self.behind, self.real.names, self.real.databases),
            **databases,
            "PATH": f"{binaries()}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DATABASES": " ".join(self.real.databases),
            "STORES": "ingest search",
        }
        run(["bash", "-euo", "pipefail", "-c", block], "the runbook", env=environment, cwd=folder, timeout_s=300)

    def lose_images(self) -> int:
        """Not one object and no bucket; how many versions there were."""
        s3 = self.behind.s3
        client = Minio(s3.endpoint, s3.access_key, s3.secret_key, secure=False)
        lost = 0
        for bucket in (self.real.names.images, self.real.names.probes):
            found = list(client.list_objects(bucket, recursive=True, include_version=True))
            removals = [DeleteObject(str(each.object_name), each.version_id) for each in found]
            assert list(client.remove_objects(bucket, removals, bypass_governance_mode=True)) == []
            client.remove_bucket(bucket)
            lost += len(found)
        return lost

    def lose_databases_and_gallery(self) -> None:
        """Empty databases, and not one collection."""
        for url in self.real.databases.values():
            engine = sa.create_engine(url, poolclass=sa.NullPool)
            with engine.begin() as connection:
                connection.execute(sa.text("DROP SCHEMA public CASCADE"))
                connection.execute(sa.text("CREATE SCHEMA public"))
        with self.milvus() as client:
            client.drop_alias(self.real.names.collection)
            for collection in client.list_collections():
                client.drop_collection(collection)

    def threads(self, service: str) -> int:
        return psutil.Process(self.platform.process(service).pid).num_threads()

    def note_receipts(self, subjects: Collection[str], within_s: float = WAIT_S) -> None:
        """Enter into the ledger what the platform's receipts tell the producer of these subjects' images."""
        answered: set[str] = set()

        def all_told() -> bool:
            for event in self.read(RECEIPTS):
                receipt = events_pb2.CustodyEventReceived.FromString(event.value)
                if receipt.subject_id not in subjects or receipt.topic == WITHDRAWALS:
                    continue
                answered.add(receipt.subject_id)
                if receipt.enrolment_id:
                    self.ledger.note(receipt.subject_id, receipt.enrolment_id)
            return set(subjects) <= answered

        wait_until(all_told, within_s, lambda: f"receipts of {set(subjects) - answered}", 0.5)


@contextmanager
def stage(root: Path) -> Iterator[Stage]:
    """Everything started; everything ended and removed afterwards, whatever state the test left it in."""
    makers: dict[str, Callable[[], tuple[ServerProcess, Any]]] = {
        "kafka": kafka_server,
        "milvus": milvus_server,
        "minio": s3_server,
        "postgres": postgres_server,
    }
    with ExitStack() as stack:
        servers: dict[str, ServerProcess] = {}
        addresses: dict[str, Any] = {}
        for name, make in makers.items():
            servers[name], addresses[name] = make()
            stack.callback(servers[name].discard)
        start_all(servers.values())
        uri, s3, url = addresses["milvus"], addresses["minio"], sa.make_url(addresses["postgres"])
        ports = {"milvus": int(uri.rpartition(":")[2]), "minio": int(s3.endpoint.rpartition(":")[2])}
        ports["postgres"] = url.port or 5432
        networks = {name: stack.enter_context(TcpProxy(port)) for name, port in ports.items()}
        behind = Servers(
            kafka=addresses["kafka"],
            milvus=f"http://127.0.0.1:{networks['milvus'].port}",
            s3=replace(s3, endpoint=f"127.0.0.1:{networks['minio'].port}"),
            postgres=url.set(port=networks["postgres"].port).render_as_string(hide_password=False),
        )
        real = stack.enter_context(real_platform(behind, root, SETTINGS))
        yield Stage(real, addresses["kafka"], servers, networks, ClientLedger(real.platform), behind)
        # Services end in order only while their servers are there.
        for network in networks.values():
            network.heal()
        for server in servers.values():
            server.resume()


def start_all(servers: Any) -> None:
    """Start several servers at the same time and wait for all."""
    with ThreadPoolExecutor(4) as pool:
        for starting in [pool.submit(server.start) for server in servers]:
            starting.result()
