"""What the docs show for custody systems with plain tools is run as it stands there, and the feed understands it."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.ingest.feed.messages import parse
from services.rpc.v1 import events_pb2
from services.shared.adapters.kafka_event_log import KafkaConnection, KafkaEventLog, TopicDefaults
from services.shared.ids import new_id
from services.shared.ports.event_log import Event
from tests.contract.test_event_log import read
from tests.stack.servers.base import program
from tests.stack.servers.kafka import console_producer
from tests.support.repository import ROOT

_LINES = re.compile(r"```\n(python docs/examples/send_custody_image\.py .*?)```", re.DOTALL)
_TOPICS = ("likeness.custody-image-received.v1", "likeness.custody-disposal-changed.v1")


@pytest.fixture
def log(kafka_address: str) -> Iterator[KafkaEventLog]:
    log = KafkaEventLog(KafkaConnection(kafka_address, timeout_s=60), TopicDefaults(partitions=1))
    yield log
    log.close()


def test_the_lines_of_the_docs_send_what_the_feed_reads(kafka_address: str, log: KafkaEventLog, tmp_path: Path) -> None:
    [lines] = _LINES.findall((ROOT / "docs/gallery-life.md").read_text("utf-8"))
    program("kcat", "kcat")
    picture, mine, event_id = tmp_path / "picture.jpg", f"of-{new_id()}.likeness.custody-", new_id()
    picture.write_bytes(b"a picture of the example")
    for said, meant in (
        ("python ", f"{sys.executable} "),
        ("picture.jpg", str(picture)),
        ("kafka:9092", kafka_address),
        ("likeness.custody-", mine),
        ("kafka-console-producer.sh", str(console_producer(tmp_path))),
        ('"event_id":"…"', f'"event_id":"{event_id}"'),
    ):
        assert said in lines
        lines = lines.replace(said, meant)
    topics = [name.replace("likeness.custody-", mine) for name in _TOPICS]
    log.publish([Event(topic, "first", b"{}") for topic in topics])  # which makes them

    command = ["bash", "-o", "pipefail", "-ec", lines]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    subscription = log.subscribe(topics, f"group-{new_id()}")
    events = {event.topic: event for event in read(subscription, 4) if event.value != b"{}"}
    subscription.close()
    image, disposal = (parse(events[topic]) for topic in topics)
    assert [events[topic].key for topic in topics] == ["northshire/NS-000123"] * 2
    assert isinstance(image.message, events_pb2.CustodyImageReceived)
    assert hashlib.sha256(image.message.image).digest() == hashlib.sha256(picture.read_bytes()).digest()
    assert isinstance(disposal.message, events_pb2.CustodyDisposalChanged)
    assert (disposal.event_id, disposal.message.disposal) == (event_id, "no_further_action")
