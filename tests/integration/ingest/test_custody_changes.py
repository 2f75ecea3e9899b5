"""What custody systems say later: JSON, receipts, disposals, merges, splits, withdrawals, late and out of order."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import Message

from services.rpc.v1 import events_pb2
from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.adapters.sqlite_event_log import SqliteEventLog
from services.shared.ids import new_id
from services.shared.ports.event_log import Event
from tests.integration.ingest.fakes import FakePeers
from tests.integration.ingest.service import IngestProcess
from tests.support.repository import ROOT
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

IMAGES = "likeness.custody-image-received.v1"
DISPOSALS = "likeness.custody-disposal-changed.v1"
MERGES = "likeness.custody-subject-merged.v1"
SPLITS = "likeness.custody-subject-split.v1"
WITHDRAWALS = "likeness.custody-image-withdrawn.v1"
WAIT_S = 120.0
TOPICS = [IMAGES, DISPOSALS, MERGES, SPLITS, WITHDRAWALS]


@pytest.fixture
def log(ingest: IngestProcess) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog(ingest.root / "events.sqlite")
    yield log
    log.close()


def image_fields(subject_id: str, image: bytes, **changes: Any) -> dict[str, Any]:
    """With the image in it, or without where the changes name one that is stored."""
    inline = {} if "image_sha256" in changes else {"image": base64.b64encode(image).decode()}
    return {
        "event_id": new_id(),
        "occurred_at": "2026-03-01T10:00:00Z",
        "watchlist_id": "custody",
        "owner": "northshire",
        "subject_id": subject_id,
        "lawful_basis": "pace_1984_s64a",
        "captured_on": "2026-03-01",
        "custody_reference": f"{subject_id}/2026",
        **inline,
        **changes,
    }


def image_event(subject_id: str, image: bytes, **changes: Any) -> Event:
    """As JSON, which is how a simple producer sends it."""
    value = json.dumps(image_fields(subject_id, image, **changes)).encode()
    return Event(IMAGES, f"northshire/{subject_id}", value, {"content-type": "application/json"})


def change(topic: str, message: Message) -> Event:
    return Event(topic, "northshire/any", message.SerializeToString())


def said(subject_id: str, at: str = "2026-03-02T10:00:00Z", **fields: Any) -> dict[str, Any]:
    return {"event_id": new_id(), "occurred_at": at, "owner": "northshire", "subject_id": subject_id, **fields}


def publish(log: SqliteEventLog, *events: Event) -> None:
    log.publish(events)
    wait_until(lambda: log.lag(TOPICS, "likeness-ingest") == 0, WAIT_S, "the feed to be read")


def receipts(log: SqliteEventLog, event_id: str) -> list[tuple[str, str]]:
    """Outcome and reason of each receipt of an event, in order."""
    member = log.subscribe(["likeness.custody-event-received.v1"], f"test-{new_id()}")
    found = [events_pb2.CustodyEventReceived.FromString(each.value) for each in member.poll(10_000, 0.2)]
    member.close()
    return [(each.outcome, each.reason) for each in found if each.event_id == event_id]


def wait_receipts(log: SqliteEventLog, event_id: str, *expected: tuple[str, str]) -> None:
    wait_until(
        lambda: receipts(log, event_id) == list(expected), WAIT_S, lambda: f"{expected}, have {receipts(log, event_id)}"
    )


def held(peers: FakePeers, subject_id: str) -> set[str]:
    """The references that the gallery has under a subject."""
    return {key for key, (_, _, subject) in dict(peers.gallery.references).items() if subject == subject_id}


def test_every_input_has_a_receipt(ingest: IngestProcess, peers: FakePeers, log: SqliteEventLog) -> None:
    good = image_event("R-1", b"receipts 1")
    event_id = json.loads(good.value)["event_id"]
    publish(log, good, good)
    wait_receipts(log, event_id, ("accepted", ""), ("repeated", ""))
    wait_until(lambda: len(held(peers, "R-1")) == 1, WAIT_S, "the image to be enrolled once")
    other = image_event("R-2", b"receipts 2", event_id=event_id)
    publish(log, other)
    wait_until(
        lambda: ("refused", "event_id_reused") in receipts(log, event_id), WAIT_S, "the id used twice to be refused"
    )
    untold = image_event("R-3", b"receipts 3", is_notice_given=False)
    publish(log, untold)
    wait_until(
        lambda: ("refused", "notice_not_given") in receipts(log, json.loads(untold.value)["event_id"]),
        WAIT_S,
        "a refusal",
    )
    assert not held(peers, "R-3")


def test_of_two_disposals_the_one_that_occurred_last_counts(log: SqliteEventLog, ingest: IngestProcess) -> None:
    facts = {"custody_reference": "D-1/2026"}
    late = events_pb2.CustodyDisposalChanged(
        **said("D-1", "2026-05-01T10:00:00Z", disposal="no_further_action", disposal_on="2026-05-01", **facts)
    )
    early = events_pb2.CustodyDisposalChanged(
        **said("D-1", "2026-04-01T10:00:00Z", disposal="charged", disposal_on="2026-04-01", **facts)
    )
    publish(log, change(DISPOSALS, late), change(DISPOSALS, early))
    wait_receipts(log, late.event_id, ("applied", ""))
    wait_receipts(log, early.event_id, ("stale", ""))


def test_merged_and_split_subjects_are_found_under_their_new_ids(
    ingest: IngestProcess, peers: FakePeers, log: SqliteEventLog
) -> None:
    publish(log, image_event("M-1", b"merge 1"), image_event("M-1", b"merge 2"), image_event("M-2", b"merge 3"))
    wait_until(lambda: len(held(peers, "M-1")) == 2 and len(held(peers, "M-2")) == 1, WAIT_S, "all to be enrolled")
    merged = events_pb2.CustodySubjectMerged(**said("M-1", into_subject_id="M-2"))
    publish(log, change(MERGES, merged))
    wait_until(lambda: len(held(peers, "M-2")) == 3 and not held(peers, "M-1"), WAIT_S, "one subject")
    late = image_event("M-1", b"merge 4, on its way when they were merged")
    publish(log, late)
    wait_until(lambda: len(held(peers, "M-2")) == 4, WAIT_S, "the late image under the new id")
    sha256 = hashlib.sha256(b"merge 2").hexdigest()
    split = events_pb2.CustodySubjectSplit(
        **said("M-2", "2026-03-03T10:00:00Z", into_subject_id="M-3", image_sha256s=[sha256])
    )
    publish(log, change(SPLITS, split), change(MERGES, merged))
    wait_until(lambda: len(held(peers, "M-3")) == 1 and len(held(peers, "M-2")) == 3, WAIT_S, "the split")
    wait_receipts(log, merged.event_id, ("applied", ""), ("repeated", ""))


def test_a_merge_sent_with_its_image_counts_whichever_is_taken_first(
    ingest: IngestProcess, peers: FakePeers, log: SqliteEventLog
) -> None:
    """The topics have no order among them: both come in one batch and are taken at the same time."""
    names = [f"MM-{number}" for number in range(40)]
    for name in names:
        merged = events_pb2.CustodySubjectMerged(**said(name, "2026-03-01T11:00:00Z", into_subject_id=f"{name}-into"))
        pair = [image_event(name, name.encode()), change(MERGES, merged)]
        log.publish(pair if int(name[3:]) % 2 else pair[::-1])
    publish(log)
    wait_until(lambda: all(len(held(peers, f"{name}-into")) == 1 for name in names), WAIT_S, "each under its new id")
    assert not [name for name in names if held(peers, name)]


def test_a_withdrawal_sent_with_its_image_counts_whichever_is_taken_first(
    ingest: IngestProcess, peers: FakePeers, log: SqliteEventLog
) -> None:
    names = [f"WW-{number}" for number in range(40)]
    for name in names:
        withdrawn = events_pb2.CustodyImageWithdrawn(**said(name, reason="taken under the wrong power"))
        log.publish([image_event(name, name.encode()), change(WITHDRAWALS, withdrawn)])
    last = image_event("WW-last", b"the last one")
    publish(log, last)
    wait_until(lambda: len(held(peers, "WW-last")) == 1, WAIT_S, "what came last to be enrolled")
    wait_until(lambda: not [name for name in names if held(peers, name)], WAIT_S, "none of them in the gallery")
    states = ingest.custodian().http.get("/v1/enrolments", params={"state": "enrolled", "limit": 1000}).json()
    assert not [each for each in states["enrolments"] if each["subject_id"] in names]


def test_a_withdrawal_counts_before_and_after_its_image(
    ingest: IngestProcess, peers: FakePeers, log: SqliteEventLog
) -> None:
    publish(log, image_event("W-1", b"withdraw 1"))
    wait_until(lambda: len(held(peers, "W-1")) == 1, WAIT_S, "the image to be enrolled")
    after = events_pb2.CustodyImageWithdrawn(**said("W-1", reason="taken under the wrong power"))
    before = events_pb2.CustodyImageWithdrawn(**said("W-2", reason="taken under the wrong power"))
    publish(log, change(WITHDRAWALS, after), change(WITHDRAWALS, before))
    wait_until(lambda: not held(peers, "W-1"), WAIT_S, "the reference to leave the gallery")
    overtaken = image_event("W-2", b"withdraw 2")
    publish(log, overtaken)
    wait_until(
        lambda: ("refused", "withdrawn") in receipts(log, json.loads(overtaken.value)["event_id"]), WAIT_S, "a refusal"
    )
    publish(log, image_event("W-2", b"withdraw 3, another arrest", occurred_at="2026-06-01T10:00:00Z"))
    wait_until(lambda: len(held(peers, "W-2")) == 1, WAIT_S, "a later image to be enrolled")
    late = events_pb2.CustodyImageWithdrawn(**said("W-2", "2026-05-01T10:00:00Z", reason="said of what was before"))
    publish(log, change(WITHDRAWALS, late))
    wait_receipts(log, late.event_id, ("applied", ""))
    assert len(held(peers, "W-2")) == 1, "what came of a later event stays"


def test_dead_letters_are_listed_and_go_through_once_mended(
    ingest: IngestProcess, peers: FakePeers, log: SqliteEventLog
) -> None:
    custodian = ingest.custodian()
    sha256 = hashlib.sha256(b"stored too late").hexdigest()
    fields = image_fields("DLQ-1", b"", image_sha256=sha256)
    publish(log, Event(IMAGES, "northshire/DLQ-1", json.dumps(fields).encode()))

    def letters() -> list[dict[str, Any]]:
        answer = custodian.http.get("/v1/dead-letters").json()["letters"]
        return [letter for letter in answer if letter["subject_id"] == "DLQ-1"]

    wait_until(lambda: len(letters()) == 1, WAIT_S, "the dead letter")
    [letter] = letters()
    assert (letter["reason"], letter["event_id"]) == ("image_not_stored", fields["event_id"])
    assert not letter["is_settled"]
    FolderImageStore(ingest.root / "images").put(b"stored too late")
    answer = custodian.http.post("/v1/dead-letters/replay", json={"places": [letter["place"]]})
    assert answer.json() == {"replayed": 1}
    wait_until(lambda: len(held(peers, "DLQ-1")) == 1, WAIT_S, "the letter to go through")
    wait_until(lambda: letters()[0]["is_settled"], WAIT_S, "the letter to be settled")
    stranger = ingest.custodian(force="eastmoor").http
    assert stranger.get("/v1/dead-letters").json()["letters"] == []
    assert stranger.post("/v1/dead-letters/replay", json={"places": [letter["place"]]}).status_code == 404


def test_by_its_digest_nobody_makes_a_reference_of_an_image_that_others_hold(
    ingest: IngestProcess, peers: FakePeers, log: SqliteEventLog
) -> None:
    content = b"held by northshire"
    publish(log, image_event("OWN-1", content))
    wait_until(lambda: len(held(peers, "OWN-1")) == 1, WAIT_S, "the image to be enrolled")
    sha256 = hashlib.sha256(content).hexdigest()
    theirs = image_event("OWN-2", b"", owner="eastmoor", image_sha256=sha256)
    publish(log, theirs, image_event("OWN-3", b"", image_sha256=sha256))
    wait_until(lambda: len(held(peers, "OWN-3")) == 1, WAIT_S, "their own to be enrolled again")
    stranger = ingest.custodian(force="eastmoor").http

    def reasons() -> list[str]:
        letters = stranger.get("/v1/dead-letters").json()["letters"]
        return [letter["reason"] for letter in letters if letter["subject_id"] == "OWN-2"]

    wait_until(lambda: reasons() == ["image_not_stored"], WAIT_S, "the same words as where nobody holds it")
    assert not held(peers, "OWN-2")


def test_the_owner_learns_where_each_of_its_images_is_and_why(
    ingest: IngestProcess, peers: FakePeers, log: SqliteEventLog
) -> None:
    there, refused = image_event("C-1", b"compare 1"), image_event("C-2", b"compare 2", watchlist_id="nowhere")
    blurred = image_event("C-3", b"blurred, compare 3")
    publish(log, there, refused, blurred)
    wait_until(lambda: len(held(peers, "C-1")) == 1, WAIT_S, "the image to be enrolled")
    ids = [json.loads(each.value)["event_id"] for each in (there, refused, blurred)]
    by_hash = {"subject_id": "C-1", "image_sha256": hashlib.sha256(b"compare 1").hexdigest()}
    asked = [*({"event_id": each} for each in ids), {"event_id": new_id()}, by_hash]

    def answer() -> list[tuple[str, str]]:
        body = ingest.custodian().http.post("/v1/custody/comparison", json={"images": asked}).json()
        return [(each["state"], each["reason"]) for each in body["images"]]

    expected = [
        ("enrolled", ""),
        ("refused", "unknown_watchlist"),
        ("refused", "quality_too_low"),
        ("never_received", ""),
        ("enrolled", ""),
    ]
    wait_until(lambda: answer() == expected, WAIT_S, lambda: f"the comparison, have {answer()}")


def test_the_example_producer_is_understood(ingest: IngestProcess, peers: FakePeers, log: SqliteEventLog) -> None:
    """docs/examples writes what it would send as lines; each is sent as it is."""
    picture = ingest.root / "picture.jpg"
    picture.write_bytes(b"a picture of the example")
    arguments = [str(picture), "--subject-id", "EX-1", "--owner", "northshire", "--dry-run"]
    command = [sys.executable, str(ROOT / "docs/examples/send_custody_image.py"), *arguments]
    done = subprocess.run(command, capture_output=True, check=True, timeout=WAIT_S)
    key, _, value = done.stdout.partition(b"\t")
    publish(log, Event(IMAGES, key.decode(), value.strip()))
    wait_until(lambda: len(held(peers, "EX-1")) == 1, WAIT_S, "the example's image to be enrolled")
