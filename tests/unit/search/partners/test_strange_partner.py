"""Whatever a partner's platform does, the search at home has an entry for it, in time and of one form."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import orjson
import pytest

from services.search.partners.answers import MAX_ANSWER_BYTES, PartnerStatus, answer_of, read_answer
from services.search.partners.config import Partner, Partners
from services.search.partners.http_link import HttpPartnerLink
from services.search.partners.ports import Reply
from services.search.partners.tokens import Question
from services.shared.clock import SystemClock
from tests.support.partners import Side, introduce
from tests.unit.search.partners.conftest import PICTURE, home_document, question, view

Behaviour = Callable[[BaseHTTPRequestHandler], None]


def _answer(status: int, content: bytes, **headers: str) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return behave


def _trickle(stop: Event) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not stop.wait(0.05):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    return behave


def _endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(2 + MAX_ANSWER_BYTES // 65536):
        handler.wfile.write(b"[" * 65536)


@contextmanager
def _partner(side: Side, asking: Side, behave: Behaviour) -> Iterator[list[str]]:
    """A server with the side's certificate that does as it likes; the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            behave(self)

        do_GET = do_POST  # noqa: N815 - the name is the library's

        def log_message(self, *_: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None: ...  # a caller that has gone away

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(side.certificates.certificate(side.name), side.certificates.key(side.name))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(str(asking.certificates.authority))
    server = Server(("127.0.0.1", side.port), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.fixture
def ask(asking: tuple[Partners, Partner], clock: SystemClock) -> Iterator[Callable[[Question], Reply]]:
    link = HttpPartnerLink(clock)
    yield lambda asked: link.ask(*asking, asked, PICTURE)
    link.close()


def test_an_answer_to_this_question(north: Side, east: Side, ask: Callable[[Question], Reply]) -> None:
    asked = question()
    with _partner(east, north, _answer(200, answer_of(asked, home_document()))) as paths:
        reply = ask(asked)
    assert reply.status is PartnerStatus.ANSWERED
    assert reply.answer is not None
    assert reply.answer.candidates[0].subject_id == "EM-1"
    assert paths == ["/v1/partner-searches"]


@pytest.mark.parametrize(
    ("behave", "status"),
    [
        pytest.param(_answer(200, b"<html>hello</html>"), PartnerStatus.NONSENSE, id="html"),
        pytest.param(_answer(200, b"{}"), PartnerStatus.NONSENSE, id="empty"),
        pytest.param(_answer(200, b"[" * 200_000), PartnerStatus.NONSENSE, id="deep"),
        pytest.param(_endless, PartnerStatus.NONSENSE, id="endless"),
        pytest.param(_answer(500, b"oops"), PartnerStatus.NONSENSE, id="no problem"),
        pytest.param(
            _answer(403, orjson.dumps({"code": "forbidden", "detail": "No\x1b[31m agreement.", "advice": ""})),
            PartnerStatus.REFUSED,
            id="refusal",
        ),
        pytest.param(_answer(503, orjson.dumps({"code": "audit_unavailable"})), PartnerStatus.FAILED, id="failure"),
        pytest.param(_answer(307, b"", Location="https://127.0.0.1:1/x"), PartnerStatus.NONSENSE, id="redirection"),
    ],
)
def test_anything_else_is_named(
    north: Side, east: Side, ask: Callable[[Question], Reply], behave: Behaviour, status: PartnerStatus
) -> None:
    with _partner(east, north, behave) as paths:
        reply = ask(question())
    assert (reply.status, reply.answer) == (status, None)
    assert reply.code
    assert reply.detail.isprintable()
    assert len(paths) == 1


def test_a_slow_partner_has_its_time_and_no_more(north: Side, east: Side, clock: SystemClock) -> None:
    introduce(north, east, timeout_s=0.3)
    stop, link = Event(), HttpPartnerLink(clock)
    with _partner(east, north, _trickle(stop)):
        # Where even the handshake takes longer than that, it is the time that is over too.
        reply = link.ask(*view(north), question(), PICTURE)
        stop.set()
    link.close()
    assert reply.status is PartnerStatus.TIMED_OUT  # the answer would never end


def test_nobody_there_and_somebody_else_there(
    north: Side, east: Side, asking: tuple[Partners, Partner], ask: Callable[[Question], Reply]
) -> None:
    assert ask(question()).status is PartnerStatus.UNREACHABLE
    # A server with a certificate of another authority under the partner's address gets no picture.
    impostor = Side(north.name, north.force, north.folder, east.port, north.public_key)
    with _partner(impostor, north, _answer(200, b"{}")) as paths:
        assert ask(question()).status is PartnerStatus.UNREACHABLE
    assert paths == []


CHANGES: list[tuple[str, Any]] = [
    ("format", "likeness.partner-answer.v9"),
    ("exchange_id", "another"),
    ("mode", "identification"),
    ("search_id", "x" * 129),
    ("searched", []),
    ("searched", [{"watchlist": "custody", "owners": ["eastmoor"], "agreements": []}]),
    ("searched", [{"watchlist": "op_liberal", "owners": ["westhaven"], "agreements": []}]),
    ("policy", {"digest": "no digest", "watchlists": "b" * 64}),
    ("statements", ["line\nbreak"]),
    ("searchable", -1),
]
CANDIDATE_CHANGES: list[tuple[str, Any]] = [
    ("rank", 2),
    ("score", 1.5),
    ("score", "nan"),
    ("score", None),
    ("watchlist", "custody"),
    ("owner", "northshire"),
    ("subject_id", "<b>\u0000"),
    ("subject_id", ""),
]


def test_an_answer_of_another_form_is_none() -> None:
    asked = question()
    whole = json.loads(answer_of(asked, home_document()))
    assert read_answer(json.dumps(whole).encode(), asked).search_id == whole["search_id"]
    for name, value in CHANGES:
        with pytest.raises(ValueError, match=r"\w"):
            read_answer(json.dumps({**whole, name: value}).encode(), asked)
    for name, value in CANDIDATE_CHANGES:
        changed = {**whole, "candidates": [{**whole["candidates"][0], name: value}]}
        with pytest.raises(ValueError, match=r"\w"):
            read_answer(json.dumps(changed).encode(), asked)
    for scores in ((0.3, 0.4), (0.5,) * 6):  # rising; more than were asked for
        listed = [{**whole["candidates"][0], "rank": rank, "score": score} for rank, score in enumerate(scores, 1)]
        with pytest.raises(ValueError, match=r"\w"):
            read_answer(json.dumps({**whole, "candidates": listed}).encode(), asked)


def test_a_partner_is_told_nothing_but_its_answer() -> None:
    told = answer_of(question(), home_document())
    assert b"not told" not in told
