"""kill -9 of ingest at every step of an enrolment: nothing that was acknowledged is lost, nothing is doubled."""

from __future__ import annotations

import hashlib
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Event
from time import sleep, time

import httpx
import pytest

from services.rpc.v1 import audit_pb2
from tests.integration.ingest.fakes import FakePeers
from tests.integration.ingest.ledger_of_client import PATIENCE_S, ClientLedger
from tests.integration.ingest.service import IngestProcess
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def client(ingest: IngestProcess) -> ClientLedger:
    """One ledger for all tests of the module, on one platform that is killed over and over: what one test enrolled has
    to survive the kills of the next."""
    return ClientLedger(ingest)


@pytest.fixture(autouse=True)
def unarmed(peers: FakePeers) -> Iterator[None]:
    yield
    peers.audit.after = lambda _entry: None
    peers.embed.before = lambda _image: None
    peers.gallery.after = lambda: None
    peers.embed.delay_s = 0.0


def images(name: str, count: int) -> list[bytes]:
    """Two of them are refused and one is quarantined."""
    kinds = {3: b"noface", 4: b"twofaces", 5: b"crash"}
    return [kinds.get(number, b"portrait") + b"-%s-%06d" % (name.encode(), number) for number in range(count)]


def after_calls(count: int, kill: Callable[[], None]) -> Callable[..., None]:
    """A hook that kills at its `count`th call, and blocks as long as the dying caller would wait."""
    calls = iter(range(count))

    def hook(*_: object) -> None:
        if next(calls, None) == count - 1:
            kill()

    return hook


def _at_intent(peers: FakePeers, kill: Callable[[], None]) -> None:
    hook = after_calls(4, kill)
    peers.audit.after = lambda entry: hook() if entry.phase == audit_pb2.INTENT else None


def _at_outcome(peers: FakePeers, kill: Callable[[], None]) -> None:
    hook = after_calls(4, kill)
    peers.audit.after = lambda entry: hook() if entry.phase != audit_pb2.INTENT else None


def _at_embed(peers: FakePeers, kill: Callable[[], None]) -> None:
    peers.embed.before = after_calls(4, kill)


def _at_gallery(peers: FakePeers, kill: Callable[[], None]) -> None:
    peers.gallery.after = after_calls(1, kill)


@pytest.mark.parametrize("arm", [_at_intent, _at_embed, _at_gallery, _at_outcome])
def test_killed_at_a_step(
    ingest: IngestProcess,
    peers: FakePeers,
    client: ClientLedger,
    arm: Callable[[FakePeers, Callable[[], None]], None],
) -> None:
    killed = Event()

    def kill() -> None:
        ingest.kill()
        killed.set()

    arm(peers, kill)
    sender = client.start(images(arm.__name__, 30))
    assert killed.wait(120), "the step was never reached"
    ingest.start_ready()
    sender.join(PATIENCE_S)
    client.expect(enrolled=27, refused=2, quarantined=1)
    client.check(peers)


def test_killed_again_and_again_at_any_moment(ingest: IngestProcess, peers: FakePeers, client: ClientLedger) -> None:
    """Two hundred images, three kills at random moments: between commits, before and after the outbox is published."""
    peers.embed.delay_s = 0.03
    random = Random(17)
    sender = client.start(images("random", 200))
    for _ in range(3):
        sleep(random.uniform(0.2, 1.2))
        ingest.kill()
        ingest.start_ready()
    sender.join(PATIENCE_S)
    client.expect(enrolled=197, refused=2, quarantined=1)
    client.check(peers)


def test_killed_before_the_body_is_whole(ingest: IngestProcess, peers: FakePeers, client: ClientLedger) -> None:
    entries = len(peers.audit.entries)
    with socket.create_connection(("127.0.0.1", ingest.http_port)) as connection:
        connection.sendall(
            f"POST /v1/enrolments HTTP/1.1\r\nHost: likeness\r\nAuthorization: Bearer {ingest.token()}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000\r\n\r\n--b\r\n".encode()
        )
        sleep(0.2)
        ingest.kill()
    ingest.start_ready()
    assert len(peers.audit.entries) == entries
    client.check(peers)


def test_killed_between_image_and_ledger_the_image_is_swept(
    ingest: IngestProcess, peers: FakePeers, client: ClientLedger
) -> None:
    """The image is stored and the ledger cannot commit: its write lock is taken once the intent is in the audit log."""
    image = b"portrait-between"
    sha256 = hashlib.sha256(image).hexdigest()
    ledger = sqlite3.connect(ingest.root / "ingest.sqlite", isolation_level=None, timeout=60, check_same_thread=False)

    def take_lock(entry: audit_pb2.AuditEntry) -> None:
        if entry.phase == audit_pb2.INTENT and not ledger.in_transaction:
            ledger.execute("BEGIN IMMEDIATE")

    def stored() -> list[Path]:
        return list((ingest.root / "images").rglob(sha256))

    peers.audit.after = take_lock
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(ingest.custodian().enrol, image, subject_id="NS-between")
        try:
            wait_until(lambda: bool(stored()) or upload.done(), PATIENCE_S, "the image to be stored")
            ingest.kill()
        finally:
            peers.audit.after = lambda _entry: None
            ledger.close()
        with pytest.raises(httpx.TransportError):
            upload.result(PATIENCE_S)
    ingest.start_ready()
    [orphan] = stored()
    custodian = ingest.custodian()
    long_ago_s = time() - 30 * 86_400
    os.utime(orphan, (long_ago_s, long_ago_s))

    def is_swept() -> bool:
        # Not while the intent of the upload stands open, and not while the sweep of the start is under way.
        answer = custodian.http.post("/v1/gallery/image-sweep", json={})
        assert answer.status_code in (200, 409), answer.text
        return not orphan.exists()

    wait_until(is_swept, PATIENCE_S, "the image that nothing names to be swept")
    told = [entry.phase for entry in peers.audit.entries if f"image:{sha256}" in entry.objects]
    assert told == [audit_pb2.INTENT, audit_pb2.FAILED, audit_pb2.INTENT, audit_pb2.DONE]
    client.start([image]).join(PATIENCE_S)
    client.expect(enrolled=1)
    client.check(peers)


def test_stopped_in_order_it_goes_on(ingest: IngestProcess, peers: FakePeers, client: ClientLedger) -> None:
    peers.embed.delay_s = 0.05
    known = len(client.acknowledged)
    sender = client.start(images("stopped", 60))
    wait_until(lambda: len(client.acknowledged) > known, PATIENCE_S, "an image to be acknowledged")
    assert ingest.stop() == 0
    ingest.start_ready()
    sender.join(PATIENCE_S)
    client.expect(enrolled=57, refused=2, quarantined=1)
    client.check(peers)


def test_everything_asked_again_is_what_it_was(peers: FakePeers, client: ClientLedger) -> None:
    client.repeat_all()
    client.check(peers)
