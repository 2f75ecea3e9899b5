"""F2: kill -9 of embed at four steps of an enrolment: all are analysed again, and each has one template.

ingest and embed are real processes. What passes between ingest and the others passes through this one, which knows
therefore at which step an enrolment is, and kills there.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import grpc
import httpx
import pytest

from services.local.deployment import free_ports
from services.rpc.server import CHANNEL_OPTIONS
from services.rpc.v1 import audit_pb2, common_pb2, embed_pb2, embed_pb2_grpc, events_pb2
from services.shared.adapters.sqlite_event_log import SqliteEventLog
from services.shared.errors import DependencyUnavailable, Overloaded
from services.shared.ids import new_id
from services.shared.ports.event_log import Event as Message
from tests.integration.ingest.fakes import FakeEmbed, FakePeers
from tests.integration.ingest.service import FORM, IngestProcess
from tests.support.fault_report import Tally, record
from tests.support.noise import picture
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

TOPIC = "likeness.custody-image-received.v1"
GROUP = "likeness-ingest"
IMAGES = 8
BOUND_S = 240.0


@dataclass
class EmbedProcess:
    """`python -m services.embed` with its stand-in for the networks, killed and started again on the same ports."""

    log: Path
    # How often it was seen gone, in order that a test knows that its kill hit.
    kills: int = 0

    def __post_init__(self) -> None:
        self._ports = free_ports()["embed"]
        self.address = f"127.0.0.1:{self._ports.grpc}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        variables = {
            "LIKENESS_EMBED__HTTP_PORT": str(self._ports.http),
            "LIKENESS_EMBED__GRPC_PORT": str(self._ports.grpc),
            "LIKENESS_EMBED__MODEL__KIND": "stub",
        }
        with self.log.open("ab") as stream:
            command = [sys.executable, "-m", "services.embed"]
            self._process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=stream, stderr=stream)
        wait_until(self._is_ready, BOUND_S, "embed to be ready", 0.1)

    def _is_ready(self) -> bool:
        assert self._process is not None
        status = self._process.poll()
        assert status is None, f"embed ended with {status}: {self.log.read_text('utf-8', 'replace')[-4000:]}"
        try:
            return httpx.get(f"http://127.0.0.1:{self._ports.http}/readyz", timeout=10).status_code == 200
        except httpx.HTTPError:
            return False

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def kill(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(60)
            self._process = None
            self.kills += 1

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@dataclass
class Relay(FakeEmbed):
    """Hands every call on to the real embed, and tells when."""

    process: EmbedProcess
    sent: Callable[[], None] = lambda: None
    templates: dict[str, set[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        # Looks for a killed server again at once, and not after ever longer pauses.
        options = [*CHANNEL_OPTIONS, ("grpc.max_reconnect_backoff_ms", 200)]
        self._stub = embed_pb2_grpc.EmbedStub(grpc.insecure_channel(self.process.address, options))

    def Analyse(  # noqa: N802 - the stub's name
        self, request: embed_pb2.AnalyseRequest, context: grpc.ServicerContext
    ) -> embed_pb2.AnalyseResponse:
        self.before(request.image)
        call = self._stub.Analyse.future(request, timeout=60)
        self.sent()
        answer: embed_pb2.AnalyseResponse = _passed_on(call)
        for each in answer.faces:
            name = hashlib.sha256(request.image).hexdigest()
            self.templates.setdefault(name, set()).add(each.template.SerializeToString(deterministic=True))
        return answer

    def DescribeModel(  # noqa: N802 - the stub's name
        self, request: embed_pb2.DescribeModelRequest, context: grpc.ServicerContext
    ) -> common_pb2.ModelProvenance:
        answer: common_pb2.ModelProvenance = _passed_on(self._stub.DescribeModel.future(request, timeout=60))
        return answer


def _passed_on(call: Any) -> Any:
    """The real embed's answer, or its failure as a caller of embed sees it."""
    try:
        return call.result()
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise Overloaded(str(error.details())) from error
        raise DependencyUnavailable(f"embed: {error.code()} {error.details()}") from error


@dataclass
class Yard:
    """The processes, what is between them, and the clients' ledger: subject -> SHA-256 of its picture."""

    ingest: IngestProcess
    embed: EmbedProcess
    relay: Relay
    peers: FakePeers
    log: SqliteEventLog
    sent: dict[str, str] = field(default_factory=dict)

    def send(self, name: str) -> None:
        """Custody events, each with a picture of its own."""
        events = []
        for number in range(IMAGES):
            subject, image = f"{name}-{number}", picture(f"{name}-{number}")
            self.sent[subject] = hashlib.sha256(image).hexdigest()
            fields: dict[str, Any] = {
                key: value for key, value in FORM.items() if key not in {"watchlist", "subject_id"}
            }
            message = events_pb2.CustodyImageReceived(
                event_id=new_id(), watchlist_id="custody", subject_id=subject, image=image, **fields
            )
            events.append(Message(TOPIC, f"northshire/{subject}", message.SerializeToString()))
        self.log.publish(events)

    def judge(self) -> Tally:
        """Every event is committed, every subject enrolled once, each image has one template and one reference."""
        custodian = self.ingest.custodian()

        def listed() -> list[dict[str, str]]:
            found: list[dict[str, str]] = custodian.http.get("/v1/enrolments", params={"limit": 1000}).json()[
                "enrolments"
            ]
            return found

        def all_enrolled() -> bool:
            return Counter(each["state"] for each in listed()) == {"enrolled": len(self.sent)}

        wait_until(all_enrolled, BOUND_S, lambda: f"{len(self.sent)} enrolled: {Counter(e['state'] for e in listed())}")
        wait_until(lambda: self.log.lag([TOPIC], GROUP) == 0, BOUND_S, "every event to be committed")
        assert {each["subject_id"] for each in listed()} == set(self.sent)
        held = Counter(subject for _, _, subject in dict(self.peers.gallery.references).values())
        assert held == Counter(dict.fromkeys(self.sent, 1)), "one reference a subject, however often it was written"
        assert set(self.relay.templates) == set(self.sent.values())
        assert {len(each) for each in self.relay.templates.values()} == {1}, "analysed again, it is the same template"
        wait_until(lambda: not self._unended(), BOUND_S, lambda: f"each intent to have its one end: {self._unended()}")
        return Tally(accepted=len(self.sent), enrolled=len(self.sent), refused=0, quarantined=0)

    def _unended(self) -> dict[str, list[str]]:
        """Enrolments whose entries in the audit log are not an intent and one end."""
        told: dict[str, list[str]] = {}
        for entry in list(self.peers.audit.entries):
            if entry.activity == "enrolment":
                told.setdefault(entry.activity_id, []).append(audit_pb2.Phase.Name(entry.phase))
        return {one: phases for one, phases in told.items() if sorted(phases) != ["DONE", "INTENT"]}


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("embed-killed")
    embed = EmbedProcess(folder / "embed.log")
    embed.start()
    peers = FakePeers()
    relay = Relay(embed)
    peers.embed = relay
    with peers.running():
        ingest = IngestProcess(folder, peers)
        log = SqliteEventLog(folder / "events.sqlite")
        try:
            ingest.start_ready()
            yield Yard(ingest, embed, relay, peers, log)
        finally:
            ingest.close()
            log.close()
            embed.kill()


def _after_poll(yard: Yard, kill: Callable[[], None]) -> None:
    """ingest has taken it up and is about to ask."""
    yard.relay.before = lambda _image: kill()


def _mid_inference(yard: Yard, kill: Callable[[], None]) -> None:
    """embed has the picture and cannot have answered: it stood still when it was sent."""
    yard.relay.before = lambda _image: yard.embed.pause()
    yard.relay.sent = kill


def _after_vector_write(yard: Yard, kill: Callable[[], None]) -> None:
    """The gallery has the reference, the ledger does not say so yet."""
    yard.peers.gallery.after = kill


def _before_offset_commit(yard: Yard, kill: Callable[[], None]) -> None:
    """The event is read, its enrolment not in the ledger and so its offset not committed."""
    yard.peers.audit.after = lambda entry: kill() if entry.phase == audit_pb2.INTENT else None


@pytest.mark.parametrize("arm", [_after_poll, _mid_inference, _after_vector_write, _before_offset_commit])
def test_f02_killed_at_a_step(yard: Yard, arm: Callable[[Yard, Callable[[], None]], None]) -> None:
    killed = Event()

    def disarm() -> None:
        yard.relay.before = lambda _image: None
        yard.relay.sent = yard.peers.gallery.after = lambda: None
        yard.peers.audit.after = lambda _entry: None

    def kill() -> None:
        disarm()
        yard.embed.kill()
        killed.set()

    arm(yard, kill)
    yard.send(arm.__name__.strip("_"))
    assert killed.wait(BOUND_S), "the step was never reached"
    began = monotonic()
    yard.embed.start()
    tally = yard.judge()
    what = arm.__name__.strip("_").replace("_", " ")
    record("F2", f"kill -9 of embed: {what}", "embedded", recovery_s=monotonic() - began, tally=tally)
