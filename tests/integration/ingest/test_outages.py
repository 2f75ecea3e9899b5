"""The other services go away, come back, fail or are killed by an image: enrolments wait, none is lost or wronged."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event, Thread
from time import sleep

import pytest

from services.rpc.v1 import audit_pb2
from services.shared.errors import GalleryIncomplete, ModelMismatch
from tests.integration.ingest.fakes import FakePeers
from tests.integration.ingest.service import READY_S, IngestProcess
from tests.support.promises import within
from tests.support.waiting import wait_until

FAIL_CLOSED_S = 3.0
BOUND_S = 120.0


@pytest.fixture
def quiet(peers: FakePeers) -> Iterator[FakePeers]:
    """Peers whose faults end with the test."""
    yield peers
    peers.embed.before = lambda _image: None
    peers.embed.delay_s = peers.audit.delay_s = 0.0
    peers.audit.is_down = False
    peers.gallery.error = None


def test_without_the_audit_log_nothing_is_accepted_or_stored(
    ingest: IngestProcess, quiet: FakePeers, tmp_path: Path
) -> None:
    custodian = ingest.custodian()
    files = {path.name for path in (ingest.root / "images").rglob("*") if path.is_file()}
    quiet.stop("audit")
    try:
        for number in range(3):
            answer = within(FAIL_CLOSED_S, partial(custodian.enrol, b"audit is away %d" % number))
            assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")
            assert answer.headers["retry-after"]
        for what in ("enrolments", "flags", "erasures", "reviews", "exports", "dead-letters"):
            answer = within(FAIL_CLOSED_S, partial(custodian.http.get, f"/v1/{what}"))
            assert (answer.status_code, answer.json().get("code")) == (503, "audit_unavailable"), what
    finally:
        quiet.start("audit")
    # The list is recorded too: it is refused until the log is found again, and then there is nothing in it.
    wait_until(
        lambda: custodian.http.get("/v1/enrolments").status_code == 200, BOUND_S, "the audit log to be found for a list"
    )
    assert custodian.http.get("/v1/enrolments").json()["enrolments"] == []
    assert {path.name for path in (ingest.root / "images").rglob("*") if path.is_file()} == files
    wait_until(
        lambda: custodian.enrol(b"audit is back").status_code in (200, 202), BOUND_S, "the audit log to be found again"
    )


def test_a_slow_audit_log_is_refused_within_three_seconds(ingest: IngestProcess, quiet: FakePeers) -> None:
    quiet.audit.delay_s = 10.0
    custodian = ingest.custodian()
    assert within(FAIL_CLOSED_S, lambda: custodian.enrol(b"audit is slow")).status_code == 503
    quiet.audit.delay_s = 0.0
    wait_until(
        lambda: custodian.enrol(b"audit is slow").status_code in (200, 202), BOUND_S, "the audit log to be trusted"
    )


def test_while_embed_is_away_enrolments_are_accepted_and_wait(ingest: IngestProcess, quiet: FakePeers) -> None:
    custodian = ingest.custodian()
    quiet.stop("embed")
    try:
        accepted = [custodian.enrol(b"embed is away %d" % number) for number in range(12)]
        assert {answer.status_code for answer in accepted} == {202}
        sleep(1.0)
        assert {custodian.get(answer.json()["enrolment_id"])["state"] for answer in accepted} == {"accepted"}
    finally:
        quiet.start("embed")
    for answer in accepted:
        assert custodian.settled(answer.json()["enrolment_id"])["state"] == "enrolled"


def test_an_image_that_takes_embed_down_is_quarantined_and_no_other_is(ingest: IngestProcess, quiet: FakePeers) -> None:
    """Embed dies whenever it has this one, and whatever it had beside it fails with it."""
    custodian = ingest.custodian()
    poisoned, is_over = Event(), Event()

    def supervise() -> None:
        while not is_over.is_set():
            if poisoned.wait(0.1):
                quiet.stop("embed")
                poisoned.clear()
                sleep(0.3)
                quiet.start("embed")

    def before(image: bytes) -> None:
        if image == b"bomb":
            poisoned.set()
            is_over.wait(BOUND_S)

    quiet.embed.before = before
    quiet.embed.delay_s = 0.05
    supervisor = Thread(target=supervise)
    supervisor.start()
    try:
        portraits = [custodian.enrol(b"beside the bomb %d" % number) for number in range(10)]
        bomb = custodian.enrol(b"bomb")
        portraits += [custodian.enrol(b"after the bomb %d" % number) for number in range(10)]
        body = custodian.settled(bomb.json()["enrolment_id"])
        for answer in portraits:
            assert custodian.settled(answer.json()["enrolment_id"])["state"] == "enrolled"
    finally:
        is_over.set()
        supervisor.join()
    assert (body["state"], body["reason"]) == ("quarantined", "crashes_analysis")
    assert quiet.embed.calls[b"bomb"] <= 3


def test_while_the_gallery_is_away_enrolments_wait_and_outcomes_are_not_told(
    ingest: IngestProcess, quiet: FakePeers
) -> None:
    custodian = ingest.custodian()
    quiet.gallery.error = GalleryIncomplete("still loading")
    accepted = custodian.enrol(b"gallery is loading").json()["enrolment_id"]
    sleep(1.0)
    assert custodian.get(accepted)["state"] == "accepted"
    assert quiet.audit.terminal(accepted) == []
    quiet.gallery.error = None
    assert custodian.settled(accepted)["state"] == "enrolled"
    assert [entry.phase for entry in quiet.audit.terminal(accepted)] == [audit_pb2.DONE]


def test_a_gallery_of_another_model_holds_up_references_but_not_refusals(
    ingest: IngestProcess, quiet: FakePeers
) -> None:
    custodian = ingest.custodian()
    quiet.gallery.error = ModelMismatch("the gallery is of another model")
    stuck = custodian.enrol(b"of the wrong model").json()["enrolment_id"]
    sleep(0.5)
    refused = custodian.enrol(b"noface beside it").json()["enrolment_id"]
    assert custodian.settled(refused)["state"] == "refused"
    assert custodian.get(stuck)["state"] == "accepted"
    quiet.gallery.error = None
    assert custodian.settled(stuck)["state"] == "enrolled"


def test_a_damaged_image_is_quarantined(ingest: IngestProcess, quiet: FakePeers) -> None:
    custodian = ingest.custodian()
    quiet.stop("embed")
    try:
        body = custodian.get(custodian.enrol(b"whole when it came").json()["enrolment_id"])
        sha256 = body["image_sha256"]
        path = ingest.root / "images" / sha256[:2] / sha256[2] / sha256
        path.chmod(0o640)
        path.write_bytes(b"not any more")
    finally:
        quiet.start("embed")
    settled = custodian.settled(body["enrolment_id"])
    assert (settled["state"], settled["reason"]) == ("quarantined", "image_damaged")


def test_on_a_full_disk_nothing_is_accepted_reads_go_on_and_it_recovers(
    ingest: IngestProcess, quiet: FakePeers
) -> None:
    custodian = ingest.custodian()
    known = custodian.enrol(b"before the disk was full").json()["enrolment_id"]
    assert custodian.settled(known)["state"] == "enrolled"
    ingest.limit_files(1024)
    try:
        for number in range(3):
            answer = custodian.enrol(b"the disk is full %d" % number)
            assert (answer.status_code, answer.json()["code"]) == (503, "dependency_unavailable")
        assert custodian.get(known)["state"] == "enrolled"
    finally:
        ingest.limit_files(-1)
    wait_until(
        lambda: custodian.enrol(b"there is room again").status_code in (200, 202), BOUND_S, "the disk to be found"
    )
    again = custodian.enrol(b"the disk is full 1").json()["enrolment_id"]
    assert custodian.settled(again)["state"] == "enrolled"
    ledger = ingest.ledger()
    wait_until(
        lambda: sum(watchlist.pending for watchlist in ledger.count().watchlists) == 0, BOUND_S, "nothing to be pending"
    )


def test_readiness_says_what_is_waited_for(quiet: FakePeers, tmp_path: Path) -> None:
    quiet.stop("embed")
    process = IngestProcess(tmp_path, quiet)
    try:
        process.start()
        wait_until(lambda: process.readiness() == (503, {"model"}), READY_S, "ingest to say that it waits for embed")
    finally:
        quiet.start("embed")
    try:
        wait_until(lambda: process.readiness() == (200, set()), READY_S, "ingest to be ready")
    finally:
        process.close()
