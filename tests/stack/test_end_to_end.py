"""The whole way on real servers: custody events on Kafka, references in Milvus, images in an object store, records in
PostgreSQL, a search over REST, and an audit log that verifies."""

from __future__ import annotations

import hashlib
import io
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep

import httpx
import pytest
import yaml
from minio import Minio
from PIL import Image
from pymilvus import MilvusClient

from scripts.build_dashboards import queries
from services.local.deployment import HOST
from services.rpc.clients import EmbedClient, LedgerClient
from services.rpc.v1 import embed_pb2, events_pb2
from services.search.adapters.milvus_schema import partition_name
from services.shared.adapters.kafka_event_log import KafkaConnection, KafkaEventLog
from services.shared.ids import new_id
from services.shared.ports.event_log import Event, ReceivedEvent
from tests.e2e.test_gallery_life import erase, files_with, wait_state
from tests.stack.real_platform import RealPlatform, Servers, real_platform
from tests.stack.remains import objects_with, tables_with, topics_with
from tests.stack.servers.minio import S3Address
from tests.stack.servers.prometheus import prometheus_server
from tests.support.casework import post_enrolment, post_request, post_search
from tests.support.exporting import approve_export
from tests.support.portraits import FILES, portraits
from tests.support.waiting import wait_until

WAIT_S = 240.0
# Counters that have no series before the first time, and a run without faults has none: workers that die. And GPUs,
# which this machine need not have, what only a model migration moves, and a virus scanner that is not configured.
NEVER_IN_A_GOOD_RUN = (
    "likeness_embed_worker_restarts_total",
    "likeness_embed_accelerator_",
    "likeness_ingest_migration_",
    "likeness_malware_scans_",
    "likeness_search_shadow_",
)


@pytest.fixture(scope="module")
def servers(kafka_address: str, milvus_uri: str, s3_address: S3Address, postgres_url: str) -> Servers:
    return Servers(kafka_address, milvus_uri, s3_address, postgres_url)


@pytest.fixture(scope="module")
def real(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPlatform]:
    with real_platform(servers, tmp_path_factory.mktemp("real")) as running:
        yield running


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    return dict(zip(FILES, portraits(), strict=True))


@pytest.fixture
def kafka(servers: Servers) -> Iterator[KafkaEventLog]:
    log = KafkaEventLog(KafkaConnection(servers.kafka, timeout_s=60))
    yield log
    log.close()


def custody_event(image: bytes, subject_id: str, watchlist: str = "custody") -> bytes:
    return events_pb2.CustodyImageReceived(
        event_id=new_id(),
        watchlist_id=watchlist,
        owner="northshire",
        subject_id=subject_id,
        lawful_basis="pace_1984_s64a",
        captured_on="2026-03-01",
        image=image,
    ).SerializeToString()


def read_until(kafka: KafkaEventLog, topic: str, subjects: Sequence[str]) -> list[ReceivedEvent]:
    """Events of a topic whose key ends in one of the subjects, until there is one for each; one that was published
    twice, as it may be, counts once."""
    subscription = kafka.subscribe([topic], f"test-{new_id()}")
    found: dict[tuple[str, bytes], ReceivedEvent] = {}

    def all_there() -> bool:
        for event in subscription.poll(100, 0.5):
            if event.key.rpartition("/")[2] in subjects:
                found.setdefault((event.key, event.value), event)
        return {key.rpartition("/")[2] for key, _ in found} >= set(subjects)

    wait_until(all_there, WAIT_S, lambda: f"{subjects} in {topic}, have {sorted(key for key, _ in found)}", 0)
    subscription.close()
    return list(found.values())


def test_from_custody_event_to_verified_audit(
    real: RealPlatform, servers: Servers, kafka: KafkaEventLog, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    references = {
        "KAFKA-1": pictures["subject-1-reference.jpg"],
        "KAFKA-2": pictures["subject-2-reference.jpg"],
    }
    topic = real.names.custody_topic
    poison = Event(topic, "northshire/POISON", b"\xff no protobuf at all")
    received = [
        Event(topic, f"northshire/{subject}", custody_event(image, subject)) for subject, image in references.items()
    ]
    kafka.publish([received[0], poison, *received, *received])  # each image twice or thrice, as Kafka may deliver it

    _enrolled_once_each(kafka, list(references))
    _dead_lettered(kafka, topic)
    _images_are_kept_versioned_and_locked(real, servers.s3, references)
    _references_stand_in_their_partition(real, servers.milvus)
    _the_probe_finds_its_subject(real, pictures["subject-1-portrait.jpg"], "KAFKA-1")
    _the_ledger_adds_up(real, enrolled=2)
    _the_audit_log_verifies(real, tmp_path)


def test_every_chart_and_rule_has_data(real: RealPlatform, pictures: dict[str, bytes]) -> None:
    """A real Prometheus scrapes the running services; every query of a dashboard or an alert gets an answer from it."""
    targets = [
        {"targets": [f"{HOST}:{ports.http}"], "labels": {"service": service}}
        for service, ports in real.platform.ports.items()
    ]
    server, url = prometheus_server(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "scrape_configs": [{"job_name": "likeness", "static_configs": targets}],
            }
        )
    )
    server.start()
    try:
        wanted = {query for query in queries() if not any(name in query for name in NEVER_IN_A_GOOD_RUN)}
        missing = set(wanted)
        deadline = monotonic() + WAIT_S
        while missing and monotonic() < deadline:
            _some_of_everything(real, pictures)
            missing = {query for query in missing if not _has_data(url, query)}
        assert missing == set()
    finally:
        server.discard()


def test_after_a_restart_nothing_is_lost_or_loaded_anew(real: RealPlatform, pictures: dict[str, bytes]) -> None:
    real.platform.stop()
    real.platform.start()
    _the_probe_finds_its_subject(real, pictures["subject-1-portrait.jpg"], "KAFKA-1")
    assert "gallery_ready" in real.platform.log("search")


def test_a_gallery_that_was_lost_is_filled_again_from_the_record(
    real: RealPlatform, servers: Servers, pictures: dict[str, bytes]
) -> None:
    real.platform.kill("search")
    client = MilvusClient(servers.milvus)
    lost = client.describe_alias(real.names.collection)["collection_name"]
    client.drop_alias(real.names.collection)
    client.drop_collection(lost)
    client.close()
    real.platform.launch("search")
    real.platform.wait_ready("search")
    _the_probe_finds_its_subject(real, pictures["subject-1-portrait.jpg"], "KAFKA-1")


def test_an_erased_person_can_be_read_from_no_server(
    real: RealPlatform, servers: Servers, kafka: KafkaEventLog, pictures: dict[str, bytes]
) -> None:
    """What the servers' disks keep for how long after that, and how it is shortened, is in docs/gallery-life.md."""
    image, subject, facts = _saved_anew(pictures["not-enrolled.png"]), "KAFKA-ERASED", "CUSTODY/RECORD/OF/THE/ERASED"
    topics = [real.names.custody_topic, f"{real.names.custody_topic}.dead-letter", "likeness.custody-event-received.v1"]
    message = events_pb2.CustodyImageReceived.FromString(custody_event(image, subject))
    message.custody_reference = facts
    poison = events_pb2.CustodyImageReceived.FromString(message.SerializeToString())
    poison.event_id, poison.captured_on = new_id(), "yesterday"
    key = f"northshire/{subject}"
    kafka.publish([Event(topics[0], key, each.SerializeToString()) for each in (message, poison)])
    read_until(kafka, "likeness.reference-enrolled.v1", [subject])
    read_until(kafka, topics[1], [subject])
    needles = [image[2000:2060], facts.encode(), _template_of(real, image)[:64]]
    client = MilvusClient(servers.milvus)

    def rows() -> int:
        found = client.query(
            real.names.collection,
            filter=f"subject_id == '{subject}'",
            output_fields=["version"],
            consistency_level="Strong",
        )
        return len(found)

    assert topics_with(kafka, topics, needles) == set(topics[:2]), "the test can fail"
    assert tables_with(real.databases, needles), "the test can fail"
    assert rows() == 1
    with real.platform.client("ingest", "custodian") as custodian:
        erasure_id = erase(custodian, subject)
        done = wait_state(custodian, erasure_id, "erased")
    assert done["stores"]["images"] == 1
    assert done["stores"]["events"] >= 3, "two events and a dead letter"
    assert topics_with(kafka, topics, needles) == set()
    assert tables_with(real.databases, needles) == set()
    assert objects_with(servers.s3, [real.names.images, real.names.probes], needles) == set()
    assert rows() == 0
    client.close()
    assert files_with(real.platform.data.root, image) == set()


def _saved_anew(picture: bytes) -> bytes:
    """Bytes that nothing else has: the picture itself is a probe of other tests, and probes belong to their cases."""
    file = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").save(file, "JPEG", quality=88)
    return file.getvalue()


def _template_of(real: RealPlatform, image: bytes) -> bytes:
    with real.platform.channel("embed", "ingest") as channel:
        [face] = EmbedClient(channel).analyse(image, embed_pb2.AnalyseRequest.LARGEST).faces
    assert face.template is not None
    return face.template.vector.astype("<f4").tobytes()


def _some_of_everything(real: RealPlatform, pictures: dict[str, bytes]) -> None:
    """Searches that are answered and refused, enrolments that are enrolled and refused, a message put aside."""
    with real.platform.client("search", "operator") as operator:
        assert post_search(operator, pictures["subject-1-portrait.jpg"]).status_code == 200
        assert post_search(operator, b"no picture").status_code == 422
    with real.platform.client("review", "requester") as officer:
        assert post_request(officer, pictures["subject-1-portrait.jpg"]).status_code in {200, 201}
        assert post_request(officer, b"no picture").status_code in {400, 422}
    with real.platform.client("ingest", "custodian") as custodian:
        for picture in (pictures["not-enrolled.png"], _blank_picture()):
            accepted = post_enrolment(custodian, picture, f"CHART-{new_id()}")
            assert accepted.status_code in {200, 202}, accepted.text
    sleep(1.0)


def _blank_picture() -> bytes:
    file = io.BytesIO()
    shade = tuple(secrets.token_bytes(3))  # another picture each time, so that it is not found to be a duplicate
    Image.new("RGB", (200, 200), shade).save(file, "PNG")
    return file.getvalue()


def _has_data(url: str, query: str) -> bool:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=60)
    assert answer.status_code == 200, (query, answer.text)
    return bool(answer.json()["data"]["result"])


def _enrolled_once_each(kafka: KafkaEventLog, subjects: list[str]) -> None:
    told = read_until(kafka, "likeness.reference-enrolled.v1", subjects)
    enrolled = [events_pb2.ReferenceEnrolled.FromString(event.value) for event in told]
    assert sorted(event.subject_id for event in enrolled) == subjects
    assert all(event.owner == "northshire" and event.watchlist_id == "custody" for event in enrolled)


def _dead_lettered(kafka: KafkaEventLog, topic: str) -> None:
    [letter] = read_until(kafka, f"{topic}.dead-letter", ["POISON"])
    assert letter.value == b"\xff no protobuf at all"
    assert letter.headers["dead-letter-reason"] == "malformed_message"


def _images_are_kept_versioned_and_locked(real: RealPlatform, s3: S3Address, images: dict[str, bytes]) -> None:
    client = Minio(s3.endpoint, s3.access_key, s3.secret_key, secure=False)
    kept = list(client.list_objects(real.names.images, recursive=True, include_version=True))
    names = [str(item.object_name).rpartition("/")[2] for item in kept]
    # Sealed before they come here: each under the digest of what lies there, none under that of a picture.
    assert len(set(names)) == len(images)
    assert not set(names) & {hashlib.sha256(image).hexdigest() for image in images.values()}
    for item, name in zip(kept, names, strict=True):
        with client.get_object(real.names.images, str(item.object_name)) as answer:
            assert hashlib.sha256(answer.read()).hexdigest() == name
    for item in kept:
        assert client.get_object_retention(real.names.images, str(item.object_name), item.version_id) is not None


def _references_stand_in_their_partition(real: RealPlatform, milvus: str) -> None:
    client = MilvusClient(milvus)
    rows = client.query(
        real.names.collection,
        filter="version >= 0",
        output_fields=["subject_id"],
        partition_names=[partition_name("custody")],
        consistency_level="Strong",
    )
    client.close()
    assert sorted(row["subject_id"] for row in rows) == ["KAFKA-1", "KAFKA-2"]


def _the_probe_finds_its_subject(real: RealPlatform, probe: bytes, subject_id: str) -> None:
    with real.platform.client("search", "operator") as operator:
        answer = post_search(operator, probe)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        first = body["candidates"][0]
        assert (first["rank"], first["subject_id"]) == (1, subject_id)
        assert body["searchable"] >= 2
        later = operator.get(f"/v1/searches/{body['search_id']}")
        assert later.json()["candidates"] == body["candidates"]


def _the_ledger_adds_up(real: RealPlatform, enrolled: int) -> None:
    with real.platform.channel("ingest") as channel:
        counts = LedgerClient(channel).count()
    [custody] = [count for count in counts.watchlists if count.watchlist_id == "custody"]
    assert custody.accepted == custody.enrolled == enrolled
    assert (custody.refused, custody.quarantined, custody.pending) == (0, 0, 0)


def _the_audit_log_verifies(real: RealPlatform, folder: Path) -> None:
    token = folder / "auditor.token"
    token.write_text(real.platform.token("auditor"))
    export = folder / "audit.jsonl"
    where = ["--url", real.platform.url("audit"), "--token-file", str(token), "--reason", "end-to-end test"]
    where += ["--approval", approve_export(real.platform, "Whoever reads the test", "end-to-end test")]
    _likeness("audit", "export", str(export), *where)
    verified = _likeness("audit", "verify", str(export), "--witness", str(real.platform.data.root / "audit-witness"))
    assert "FAILED" not in verified
    log = export.read_text("utf-8")
    assert '"activity":"enrolment"' in log
    assert '"activity":"search"' in log


def _likeness(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
