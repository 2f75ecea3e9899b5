"""kill -9 of ingest at every step of an enrolment: nothing that was acknowledged is lost, nothing is doubled."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from threading import Event, Thread
from time import sleep

import pytest

from services.rpc.v1 import audit_pb2
from tests.integration.ingest.fakes import FakePeers
from tests.integration.ingest.ledger_of_client import ClientLedger
from tests.integration.ingest.service import IngestProcess


@pytest.fixture
def peers() -> Iterator[FakePeers]:
    with FakePeers().running() as peers:
        yield peers


@pytest.fixture
def ingest(peers: FakePeers, tmp_path: Path) -> Iterator[IngestProcess]:
    process = IngestProcess(tmp_path, peers)
    process.start_ready()
    yield process
    process.close()


def images(count: int) -> list[bytes]:
    kinds = {3: b"noface", 4: b"twofaces", 5: b"crash"}
    return [kinds.get(number, b"portrait") + b"-%06d" % number for number in range(count)]


EXPECTED = {"refused": 2, "quarantined": 1}


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
    ingest: IngestProcess, peers: FakePeers, arm: Callable[[FakePeers, Callable[[], None]], None]
) -> None:
    killed = Event()

    def kill() -> None:
        ingest.kill()
        killed.set()

    arm(peers, kill)
    client = ClientLedger(ingest)
    sender = Thread(target=client.enrol_all, args=(images(30),))
    sender.start()
    assert killed.wait(20), "the step was never reached"
    ingest.start_ready()
    sender.join(60)
    assert len(client.acknowledged) == 30
    client.check(peers, {"enrolled": 27, **EXPECTED})
    client.repeat_all()
    client.check(peers, {"enrolled": 27, **EXPECTED})


def test_killed_again_and_again_at_any_moment(ingest: IngestProcess, peers: FakePeers) -> None:
    """Two hundred images, three kills at random moments: between commits, before and after the outbox is published."""
    peers.embed.delay_s = 0.03
    random = Random(17)
    client = ClientLedger(ingest)
    sender = Thread(target=client.enrol_all, args=(images(200),))
    sender.start()
    for _ in range(3):
        sleep(random.uniform(0.2, 1.2))
        ingest.kill()
        ingest.start_ready()
    sender.join(90)
    assert len(client.acknowledged) == 200
    client.check(peers, {"enrolled": 197, **EXPECTED})


def test_killed_before_the_body_is_whole(ingest: IngestProcess, peers: FakePeers) -> None:
    with socket.create_connection(("127.0.0.1", ingest.http_port)) as connection:
        connection.sendall(
            f"POST /v1/enrolments HTTP/1.1\r\nHost: likeness\r\nAuthorization: Bearer {ingest.token()}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000\r\n\r\n--b\r\n".encode()
        )
        sleep(0.2)
        ingest.kill()
    ingest.start_ready()
    assert list(ingest.ledger().count().watchlists) == []
    assert peers.audit.entries == []


def test_stopped_in_order_it_leaves_nothing_to_repair(ingest: IngestProcess, peers: FakePeers) -> None:
    peers.embed.delay_s = 0.05
    client = ClientLedger(ingest)
    sender = Thread(target=client.enrol_all, args=(images(60),))
    sender.start()
    sleep(0.5)
    assert ingest.stop() == 0
    ingest.start_ready()
    sender.join(60)
    client.check(peers, {"enrolled": 57, **EXPECTED})
