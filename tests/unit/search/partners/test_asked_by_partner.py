"""The gateway, over real TLS: who may ask, what a question has to be, what is recorded and what is given out."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import httpx
import orjson
import pytest

from services.rpc.auditing import AuditRecorder
from services.rpc.v1 import audit_pb2
from services.search.http_api import Slots
from services.search.partners.answering import AnswerPartner
from services.search.partners.answers import PartnerStatus
from services.search.partners.config import Partner, PartnerFile, Partners
from services.search.partners.gateway import PartnerGateway, create_gateway
from services.search.partners.http_link import ASK_PATH, HttpPartnerLink
from services.search.partners.ports import Direction
from services.search.partners.settings import PartnersSettings
from services.search.partners.sql_store import SqlPartnerStore
from services.search.partners.tokens import Question, sign, verify
from services.search.partners.trail import ORPHAN_AGE, PartnerTrail
from services.shared.clock import SystemClock
from services.shared.errors import CallerError, FaceChoiceNeeded, Forbidden, LikenessError
from services.shared.multipart import Upload
from services.shared.rate_limits import RateLimits
from services.shared.settings import RateLimitSettings
from services.shared.tokens import Principal
from tests.support.partners import Side, introduce, make_side
from tests.support.waiting import wait_until
from tests.unit.search.fakes import ManualClock, MemoryAudit, open_store
from tests.unit.search.partners.conftest import PICTURE, home_document, question, view


@dataclass
class FakeIdentify:
    """Answers with a document, or raises; remembers who searched with which key."""

    error: LikenessError | None = None
    searched: list[tuple[Principal, str | None, Mapping[str, str]]] = field(default_factory=list)
    details: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, principal: Principal, upload: Upload, idempotency_key: str | None = None) -> bytes:
        self.searched.append((principal, idempotency_key, self.details))
        if self.error is not None:
            raise self.error
        return orjson.dumps(home_document())

    def reject(self, principal: Principal, error: CallerError) -> NoReturn:
        raise error

    def require_still(self, principal: Principal, document: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def made(self, details: Mapping[str, str]) -> FakeIdentify:
        self.details = details
        return self


@dataclass
class Answering:
    """Eastmoor's gateway and what stands behind it."""

    side: Side
    identify: FakeIdentify
    audit: MemoryAudit
    store: SqlPartnerStore

    def entries(self) -> list[tuple[str, str, str]]:
        """(activity, phase, reason) in the order in which they were written."""
        return [
            (one.activity, audit_pb2.Phase.Name(one.phase), one.details.get("reason", ""))
            for one in self.audit.entries.values()
        ]


@contextmanager
def _answering(side: Side, folder: Path, clock: SystemClock) -> Iterator[Answering]:
    _, engine = open_store(folder)
    store, audit, identify = SqlPartnerStore(engine), MemoryAudit(), FakeIdentify()
    file = PartnerFile(side.file)
    answer = AnswerPartner(
        file=file,
        identify_for=identify.made,
        store=store,
        trail=PartnerTrail(AuditRecorder(audit, "search", clock), store, clock),
        limits=RateLimits(RateLimitSettings()),
        person_limits=RateLimits(RateLimitSettings()),
        clock=clock,
    )
    settings = PartnersSettings(path=side.file, port=side.port)
    gateway = PartnerGateway(settings, file, create_gateway(answer, Slots(2)))
    gateway.start()
    try:
        yield Answering(side, identify, audit, store)
    finally:
        gateway.stop()
        engine.dispose()


@pytest.fixture
def eastmoor(east: Side, asking: tuple[Partners, Partner], clock: SystemClock, tmp_path: Path) -> Iterator[Answering]:
    with _answering(east, tmp_path, clock) as answering:
        wait_until(lambda: _is_listening(east.port), 60.0, "the gateway")
        yield answering


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def _client(caller: Side, other: Side) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(other.certificates.authority))
    context.load_cert_chain(caller.certificates.certificate(caller.name), caller.certificates.key(caller.name))
    return httpx.Client(verify=context, trust_env=False, timeout=60.0)


def _post(client: httpx.Client, other: Side, token: str, picture: bytes = PICTURE) -> httpx.Response:
    return client.post(
        f"https://127.0.0.1:{other.port}{ASK_PATH}",
        content=picture,
        headers={"Authorization": f"Bearer {token}"},
        extensions={"sni_hostname": other.host_name},
    )


def test_a_question_is_answered_and_recorded_as_a_disclosure(
    eastmoor: Answering, asking: tuple[Partners, Partner], clock: SystemClock
) -> None:
    link, asked = HttpPartnerLink(clock), question()
    reply = link.ask(*asking, asked, PICTURE)
    link.close()
    assert reply.status is PartnerStatus.ANSWERED, reply
    [(principal, key, details)] = eastmoor.identify.searched
    # For our policy: their force, a name that is nobody's here, no role but the one, no watchlist but those agreed on.
    assert (principal.person_id, principal.force) == ("northshire/op-7", "northshire")
    assert (set(principal.roles), set(principal.watchlists)) == ({"operator"}, {"op_liberal"})
    assert key == f"partner:{asked.exchange_id}"
    assert details["partner"] == "northshire"
    intent, done = eastmoor.audit.entries.values()
    assert [audit_pb2.Phase.Name(one.phase) for one in (intent, done)] == ["INTENT", "DONE"]
    assert intent.operation == done.operation == audit_pb2.DISCLOSURE
    assert list(done.recipients) == ["partner:northshire"]
    assert intent.details["authority"] == asked.authority
    assert f"search:{reply.answer.search_id if reply.answer else ''}" in done.objects
    assert not eastmoor.store.open_exchanges(clock.now() + timedelta(days=1), 10)


def test_a_token_is_used_once_by_its_partner_for_its_picture(
    eastmoor: Answering, north: Side, asking: tuple[Partners, Partner], clock: SystemClock
) -> None:
    partners, partner = asking
    asked = question()
    with _client(north, eastmoor.side) as client:
        token = sign(partners, partner, asked, clock)
        assert _post(client, eastmoor.side, token, b"another picture").status_code == 422
        assert _post(client, eastmoor.side, token).status_code == 200
        again = _post(client, eastmoor.side, token)
        assert (again.status_code, again.json()["code"]) == (401, "token_used_before")
        # The same exchange, signed anew, is the same search to `Identify`.
        assert _post(client, eastmoor.side, sign(partners, partner, asked, clock)).status_code == 200
        assert len({key for _, key, _ in eastmoor.identify.searched}) == 1

        early = ManualClock()  # long ago
        for bad in ("x", token[:-8] + "AAAAAAAA", sign(partners, partner, asked, early)):
            assert _post(client, eastmoor.side, bad).status_code == 401
        # For somebody else, by somebody else, of a force that the partner does not speak for.
        elsewhere = Partner.model_validate({**partner.model_dump(), "name": "westhaven"})
        assert _post(client, eastmoor.side, sign(partners, elsewhere, asked, clock)).status_code == 401
        assert _post(client, eastmoor.side, sign(view(eastmoor.side)[0], partner, asked, clock)).status_code == 401
        stolen = question(force="eastmoor")
        assert _post(client, eastmoor.side, sign(partners, partner, stolen, clock)).status_code == 401
    assert len(eastmoor.identify.searched) == 2
    assert ("partner_search_answered", "REFUSED", "token_used_before") in eastmoor.entries()


def test_who_is_no_partner_gets_no_word(
    eastmoor: Answering, north: Side, asking: tuple[Partners, Partner], clock: SystemClock, tmp_path: Path
) -> None:
    east, token = eastmoor.side, sign(*asking, question(), clock)
    west = make_side(tmp_path / "west", "westhaven")
    with _client(west, east) as client, pytest.raises(httpx.TransportError):
        _post(client, east, token)
    # Struck out of the file, a partner is nobody with the next question.
    introduce(east, west)
    with _client(north, east) as client:
        answer = _post(client, east, token)
    assert (answer.status_code, answer.json()["code"]) == (403, "partner_unknown")
    assert eastmoor.identify.searched == []


def test_a_refusal_is_a_refusal_in_both_logs_and_tells_no_more(
    eastmoor: Answering, north: Side, asking: tuple[Partners, Partner], clock: SystemClock
) -> None:
    link = HttpPartnerLink(clock)
    denied = link.ask(*asking, question(watchlists=("sex_offenders",)), PICTURE)
    assert (denied.status, denied.code) == (PartnerStatus.REFUSED, "forbidden")
    assert eastmoor.identify.searched == []  # not even whether there is such a watchlist
    eastmoor.identify.error = Forbidden("Your force has no agreement in force.", context={"reasons": ["secret"]})
    assert link.ask(*asking, question(), PICTURE).detail == "Your force has no agreement in force."
    eastmoor.identify.error = FaceChoiceNeeded("2 faces", context={"faces": ["a chip"]})
    with _client(north, eastmoor.side) as client:
        answer = _post(client, eastmoor.side, sign(*asking, question(), clock))
    assert answer.status_code == 409
    assert "chip" not in answer.text
    assert [phase for _, phase, _ in eastmoor.entries()] == ["INTENT", "REFUSED"] * 3
    eastmoor.identify.error = None
    eastmoor.audit.is_down = True
    assert link.ask(*asking, question(), PICTURE).status is PartnerStatus.FAILED
    assert len(eastmoor.identify.searched) == 2
    link.close()


def test_a_question_that_a_stop_cut_off_gets_its_outcome(tmp_path: Path) -> None:
    _, engine = open_store(tmp_path)
    clock, audit = ManualClock(), MemoryAudit()
    store = SqlPartnerStore(engine)
    trail = PartnerTrail(AuditRecorder(audit, "search", clock), store, clock)
    act = trail.exchange(
        Direction.SENT, "eastmoor", Principal("op", "northshire", frozenset(), frozenset()), "p", "c", (), {}
    )
    act.__enter__()  # and then nothing
    trail.sweep()
    assert [audit_pb2.Phase.Name(one.phase) for one in audit.entries.values()] == ["INTENT"]
    clock.pass_(ORPHAN_AGE.total_seconds() + 1)
    trail.sweep()
    trail.sweep()
    assert [audit_pb2.Phase.Name(one.phase) for one in audit.entries.values()] == ["INTENT", "UNKNOWN"]
    engine.dispose()


def test_a_question_holds_nothing_unprintable(asking: tuple[Partners, Partner], clock: SystemClock, east: Side) -> None:
    theirs, north = view(east)
    assert verify(theirs, north, sign(*asking, question(), clock)).question.person == "op-7"
    changes: list[dict[str, Any]] = [{"offence": "a\x07b"}, {"exchange_id": "7"}, {"person": "o\u202ep"}]
    for change in changes:
        asked: Question = question(**change)
        with pytest.raises(CallerError):
            verify(theirs, north, sign(*asking, asked, clock))
