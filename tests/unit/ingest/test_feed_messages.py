"""Custody messages as they stand in topics: both forms, what is malformed, and the published schemas."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

import pytest

from services.ingest.feed.messages import about, parse
from services.rpc.v1 import events_pb2
from services.shared.consume import InvalidMessage
from services.shared.ports.event_log import ReceivedEvent
from tests.support.repository import ROOT

IMAGES = "likeness.custody-image-received.v1"
FIELDS: dict[str, Any] = {
    "event_id": "e-1",
    "occurred_at": "2026-03-01T10:00:00+01:00",
    "watchlist_id": "custody",
    "owner": "northshire",
    "subject_id": "S-1",
    "captured_on": "2026-03-01",
    "is_notice_given": True,
}


def received(value: bytes, topic: str = IMAGES, **headers: str) -> ReceivedEvent:
    return ReceivedEvent(topic, 2, 7, "northshire/S-1", value, headers)


def test_json_and_protobuf_say_the_same() -> None:
    message = events_pb2.CustodyImageReceived(**FIELDS, image=b"\x00\xff bytes")
    as_json = {**FIELDS, "image": base64.b64encode(b"\x00\xff bytes").decode()}
    camel = {"subjectId" if name == "subject_id" else name: value for name, value in as_json.items()}
    forms = [message.SerializeToString(), json.dumps(as_json).encode(), json.dumps(camel).encode()]
    assert [parse(received(form)) for form in forms] == [parse(received(forms[0]))] * 3
    assert parse(received(forms[1])).occurred_at_ms == 1772355600000
    assert {about(received(form)) for form in forms} == {about(received(forms[0]))}


def test_the_topic_says_what_it_is_also_for_dead_letters() -> None:
    fields = {"occurred_at": "2026-03-01T10:00:00Z", "owner": "northshire", "subject_id": "S-1"}
    topic = "likeness.custody-subject-merged.v1"
    for name in (topic, f"{topic}.dead-letter", f"northshire.{topic}"):
        found = parse(received(json.dumps({**fields, "into_subject_id": "S-2"}).encode(), name))
        assert isinstance(found.message, events_pb2.CustodySubjectMerged)
        assert found.event_id == f"{name}/2/7", "the place names what has no id"


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (b"\xff\xff no protobuf", {}, "malformed_message"),
        (b"{", {}, "malformed_message"),
        (b"[]", {"content-type": "application/json"}, "malformed_message"),
        (b'{"i\xed\xa4\x98owner": "a"}', {}, "malformed_message"),  # half a character, as bytes
        (b'{"\\ud918": "a"}', {}, "malformed_message"),  # and escaped
        (b'{"owner": "\\ud918"}', {}, "malformed_message"),
        (b'{"owner": ' + b"[" * 100_000, {}, "malformed_message"),
        (b'{"image": "not base64 !", "owner": "a"}', {}, "malformed_message"),
        (b'{"owner": "a", "nickname": "b", "image": ""}', {}, "malformed_message"),
        (b'{"owner": "a"}', {}, "malformed_message"),
        (b'{"image": "AAAA", "occurred_at": "yesterday"}', {}, "occurred_at_malformed"),
        (b'{"image": "AAAA", "occurred_at": "2026-03-01T10:00:00"}', {}, "occurred_at_malformed"),
        (b'{"image": "AAAA"}', {"schema-version": "2"}, "unknown_schema_version"),
    ],
)
def test_what_cannot_be_read_says_why(value: bytes, headers: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidMessage) as failure:
        parse(received(value, **headers))
    assert failure.value.reason == reason


def test_the_published_schemas_are_those_of_the_messages() -> None:
    command = [sys.executable, "scripts/custody_schemas.py", "--check"]
    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
