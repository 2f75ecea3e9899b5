"""Custody images from the event log: enrolled as from any other door; what is no good becomes a dead letter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from services.rpc.v1 import events_pb2
from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.adapters.sqlite_event_log import SqliteEventLog
from services.shared.ids import new_id
from services.shared.ports.event_log import Event, ReceivedEvent
from tests.integration.ingest.fakes import FakePeers
from tests.integration.ingest.service import FORM, IngestProcess
from tests.support.promises import within
from tests.support.waiting import wait_until

TOPIC = "likeness.custody-image-received.v1"
WAIT_S = 120.0


@pytest.fixture
def log(ingest: IngestProcess) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog(ingest.root / "events.sqlite")
    yield log
    log.close()


def message(subject_id: str, **changes: str | bytes) -> events_pb2.CustodyImageReceived:
    fields: dict[str, Any] = {
        "event_id": new_id(),
        "watchlist_id": "custody",
        **{name: value for name, value in FORM.items() if name != "watchlist"},
        "subject_id": subject_id,
        **changes,
    }
    if "image_sha256" not in fields:
        fields.setdefault("image", b"custody image of " + subject_id.encode())
    return events_pb2.CustodyImageReceived(**fields)


def event(subject_id: str, **changes: str | bytes) -> Event:
    return Event(TOPIC, f"northshire/{subject_id}", message(subject_id, **changes).SerializeToString())


def enrolled_subjects(peers: FakePeers) -> list[str]:
    return [subject_id for _, _, subject_id in dict(peers.gallery.references).values()]


def dead_letters(log: SqliteEventLog) -> list[ReceivedEvent]:
    member = log.subscribe([f"{TOPIC}.dead-letter"], f"test-{new_id()}")
    found = list(member.poll(1000, 0.2))
    member.close()
    return found


def test_events_are_enrolled_once_however_often_they_come(
    ingest: IngestProcess, peers: FakePeers, log: SqliteEventLog
) -> None:
    events = [event(f"KF-{number}") for number in range(20)]
    log.publish([*events, *events])
    log.publish(events)
    wait_until(lambda: log.lag([TOPIC], "likeness-ingest") == 0, WAIT_S, "the feed to be read")
    expected = sorted(f"KF-{number}" for number in range(20))
    wait_until(
        lambda: sorted(s for s in enrolled_subjects(peers) if s.startswith("KF-")) == expected,
        WAIT_S,
        "all enrolled once",
    )
    page = ingest.custodian().http.get("/v1/enrolments", params={"limit": 1000}).json()
    assert {item["source"] for item in page["enrolments"] if item["subject_id"].startswith("KF-")} == {"kafka"}


def test_an_event_may_name_an_image_of_the_store(ingest: IngestProcess, peers: FakePeers, log: SqliteEventLog) -> None:
    sha256 = FolderImageStore(ingest.root / "images").put(b"brought by other means")
    log.publish([event("KF-STORED", image_sha256=sha256)])
    wait_until(lambda: "KF-STORED" in enrolled_subjects(peers), WAIT_S, "the stored image to be enrolled")


def test_f25_events_of_an_older_and_of_a_newer_producer_are_read(peers: FakePeers, log: SqliteEventLog) -> None:
    """While versions are rolled out both write to the same topic: fields are added, and never needed or renumbered."""
    first = ("event_id", "watchlist_id", "owner", "subject_id", "lawful_basis", "captured_on", "image")
    today = message("V-OLD")
    older = events_pb2.CustodyImageReceived(**{name: getattr(today, name) for name in first})
    unheard_of = b"\xc2\x3e\x05later"  # field 1000, five bytes
    log.publish(
        [
            Event(TOPIC, "northshire/V-OLD", older.SerializeToString(), {"schema-version": "1"}),
            Event(TOPIC, "northshire/V-NEW", event("V-NEW").value + unheard_of),
        ]
    )
    wait_until(lambda: {"V-OLD", "V-NEW"} <= set(enrolled_subjects(peers)), WAIT_S, "both to be enrolled")


def test_poison_goes_aside_with_its_reason_and_the_others_move_on(peers: FakePeers, log: SqliteEventLog) -> None:
    wrong = {
        "malformed_message": Event(TOPIC, "northshire/P-1", b"\xff\xffno protobuf"),
        "unknown_schema_version": Event(TOPIC, "northshire/P-2", event("P-2").value, {"schema-version": "9"}),
        "unknown_watchlist": event("P-3", watchlist_id="nowhere"),
        "lawful_basis_not_allowed": event("P-4", lawful_basis="curiosity"),
        "captured_on_malformed": event("P-5", captured_on="yesterday"),
        "image_not_stored": event("P-6", image_sha256="0" * 64),
        "image_empty": event("P-7", image=b""),
    }
    log.publish([*wrong.values(), event("P-GOOD")])
    wait_until(lambda: "P-GOOD" in enrolled_subjects(peers), WAIT_S, "the others to move on")
    wait_until(lambda: len(dead_letters(log)) == len(wrong), WAIT_S, "every dead letter")
    for letter in dead_letters(log):
        source = wrong[letter.headers["dead-letter-reason"]]
        assert (letter.key, letter.value) == (source.key, source.value)
        assert letter.headers["dead-letter-topic"] == TOPIC
        assert letter.headers["dead-letter-tries"] == "3"
        assert letter.headers["dead-letter-detail"]
    assert not any(subject.startswith("P-") and subject != "P-GOOD" for subject in enrolled_subjects(peers))

    def move_on() -> None:
        subject_id, letters = f"P-{new_id()}", len(dead_letters(log))
        log.publish([wrong["malformed_message"], event(subject_id)])
        wait_until(lambda: subject_id in enrolled_subjects(peers), WAIT_S, "the others to move on")
        wait_until(lambda: len(dead_letters(log)) == letters + 1, WAIT_S, "its dead letter")

    within(5.0, move_on)


def test_the_feed_waits_while_the_audit_log_is_away(
    ingest: IngestProcess, peers: FakePeers, log: SqliteEventLog
) -> None:
    letters = len(dead_letters(log))
    peers.audit.is_down = True
    log.publish([event("KF-PATIENT")])
    try:
        wait_until(lambda: log.lag([TOPIC], "likeness-ingest") == 1, WAIT_S, "the event to be unread")
    finally:
        peers.audit.is_down = False
    wait_until(lambda: "KF-PATIENT" in enrolled_subjects(peers), WAIT_S, "the event to be enrolled after all")
    assert len(dead_letters(log)) == letters


def test_a_kill_repeats_events_and_skips_none(ingest: IngestProcess, peers: FakePeers, log: SqliteEventLog) -> None:
    log.publish([event(f"KILL-{number}") for number in range(60)])
    wait_until(lambda: any(s.startswith("KILL-") for s in enrolled_subjects(peers)), WAIT_S, "the first to be enrolled")
    ingest.kill()
    ingest.start_ready()
    expected = sorted(f"KILL-{number}" for number in range(60))
    wait_until(
        lambda: sorted(s for s in enrolled_subjects(peers) if s.startswith("KILL-")) == expected,
        WAIT_S,
        "all, each once",
    )
