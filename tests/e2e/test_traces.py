"""One trace from the request or the event to the gallery and the audit log, over real processes, and nothing in it that
says who or what was searched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest

from services.rpc.v1 import events_pb2
from services.shared.adapters.sqlite_event_log import SqliteEventLog
from services.shared.ids import new_id
from services.shared.ports.event_log import Event, ReceivedEvent
from tests.support.casework import post_enrolment, post_search, wait_settled
from tests.support.collector import CollectedSpan, Collector
from tests.support.platform import Platform
from tests.support.portraits import portraits
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SERVICES = ("search", "ingest", "audit", "embed")
WAIT_S = 120.0
SUBJECT, CUSTODY_SUBJECT, CASE = "TRACED-SUBJECT-1", "TRACED-SUBJECT-2", "NC/2026/TRACED-CASE"
SECRET = "Bearer of-the-collector"
# Whoever adds an attribute adds it here, and says what it can hold.
PERMITTED = {
    "http.request.method": r"GET|POST|DELETE|PUT",
    "http.route": r"/v1/[a-z_/{}-]*|unknown",
    "http.response.status_code": r"\d{3}",
    "rpc.system": r"grpc",
    "rpc.service": r"likeness\.v1\.[A-Z][A-Za-z]+",
    "rpc.method": r"[A-Z][A-Za-z]+",
    "messaging.destination.name": r"likeness\.[a-z-]+\.v1",
    "messaging.batch.message_count": r"\d+",
    "error.type": r"[A-Za-z_]+",
    "likeness.error.code": r"[a-z_]+",
}
CUSTODY_TOPIC = "likeness.custody-image-received.v1"
SENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"  # the sender's, after the W3C's own example


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    secret = tmp_path_factory.mktemp("secret") / "headers"
    secret.write_text(f"Authorization: {SECRET}\n")
    settings: dict[str, str] = {}
    for service in SERVICES:
        prefix = f"LIKENESS_{service.upper()}__TRACING__"
        settings |= {
            f"{prefix}ENDPOINT": collector.url,
            f"{prefix}SAMPLING_RATIO": "1",
            f"{prefix}HEADERS_PATH": str(secret),
        }
    with Platform(tmp_path_factory.mktemp("traced"), services=SERVICES, settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def enrolled(traced: Platform) -> str:
    with traced.client("ingest", "custodian") as custodian:
        # A caller's own trace does not count: nobody outside decides what is recorded, or in whose trace.
        custodian.headers["traceparent"] = SENT
        answer = post_enrolment(custodian, portraits()[1], SUBJECT)
        assert answer.status_code in {200, 202}, answer.text
        enrolment_id: str = answer.json()["enrolment_id"]
        assert wait_settled(custodian, [enrolment_id])[enrolment_id] == "enrolled"
    return enrolment_id


def _trace_of(collector: Collector, root: str, holds: Callable[[Sequence[CollectedSpan]], bool]) -> list[CollectedSpan]:
    """The trace that begins with `root`, once it has everything that is looked for, and all from there to its root:
    each service sends its spans when it likes."""
    found: list[CollectedSpan] = []

    def complete() -> bool:
        for spans in collector.traces().values():
            if any(span.name == root and not span.parent_id for span in spans) and holds(spans) and _is_one_tree(spans):
                found[:] = spans
                return True
        return False

    wait_until(complete, WAIT_S, lambda: f"a whole trace of {root}; have {_shape(collector.spans())}")
    return found


def _shape(spans: Sequence[CollectedSpan]) -> set[tuple[str, str]]:
    return {(span.service.removeprefix("likeness-"), span.name) for span in spans}


def _has(wanted: set[tuple[str, str]], spans: Sequence[CollectedSpan]) -> bool:
    return wanted <= _shape(spans)


def _appended(spans: Sequence[CollectedSpan]) -> int:
    return sum(span.service == "likeness-audit" for span in spans)


def _is_one_tree(spans: Sequence[CollectedSpan]) -> bool:
    ids = {span.span_id for span in spans}
    return [span.parent_id in ids for span in spans].count(False) == 1


def test_a_search_is_one_trace_from_rest_to_the_gallery(traced: Platform, collector: Collector, enrolled: str) -> None:
    with traced.client("search", "operator") as operator:
        answer = post_search(operator, portraits()[2], case_reference=CASE)
    assert answer.status_code == 200, answer.text
    wanted = {
        ("search", "POST /v1/searches"),
        ("search", "likeness.v1.Embed/Analyse"),
        ("embed", "likeness.v1.Embed/Analyse"),
        ("embed", "gate"),
        ("embed", "detect"),
        ("embed", "template"),
        ("search", "gallery"),
        ("search", "audit"),
        ("audit", "likeness.v1.Audit/Append"),
    }
    # The intent and the outcome are two entries of the log.
    spans = _trace_of(collector, "POST /v1/searches", lambda spans: _has(wanted, spans) and _appended(spans) == 2)
    by_id = {span.span_id: span for span in spans}
    [served] = [span for span in spans if span.service == "likeness-embed" and span.name.endswith("/Analyse")]
    called = by_id[served.parent_id]
    assert (called.service, by_id[called.parent_id].name) == ("likeness-search", "POST /v1/searches")
    # Each under its stage.
    appended = [span for span in spans if span.service == "likeness-audit"]
    assert {by_id[by_id[span.parent_id].parent_id].name for span in appended} == {"audit"}
    assert not any(span.is_error for span in spans)


ENROL = {
    ("ingest", "enrol"),
    ("embed", "likeness.v1.Embed/Analyse"),
    ("embed", "template"),
    ("ingest", "gallery"),
    ("search", "likeness.v1.Gallery/PutReferences"),
    ("search", "gallery"),
    ("ingest", "audit"),
    ("ingest", "publish"),
}


def test_an_enrolment_is_one_trace_from_rest_to_gallery_audit_and_event(
    traced: Platform, collector: Collector, enrolled: str
) -> None:
    wanted = {("ingest", "POST /v1/enrolments"), ("audit", "likeness.v1.Audit/Append"), *ENROL}
    spans = _trace_of(collector, "POST /v1/enrolments", partial(_has, wanted))
    assert spans[0].trace_id != SENT.split("-")[1]
    [event] = [e for e in _events(traced, "likeness.reference-enrolled.v1") if e.key.endswith(SUBJECT)]
    assert event.headers["traceparent"].split("-")[1] == spans[0].trace_id


def test_a_custody_event_is_one_trace_linked_to_its_senders(
    traced: Platform, collector: Collector, enrolled: str
) -> None:
    log = SqliteEventLog(traced.data.root / "events.sqlite")
    message = events_pb2.CustodyImageReceived(
        event_id=new_id(),
        watchlist_id="custody",
        owner="northshire",
        subject_id=CUSTODY_SUBJECT,
        lawful_basis="pace_1984_s64a",
        captured_on="2026-03-01",
        image=portraits()[3],
    )
    headers = {"traceparent": SENT}
    log.publish([Event(CUSTODY_TOPIC, f"northshire/{CUSTODY_SUBJECT}", message.SerializeToString(), headers)])
    log.close()
    root = f"consume {CUSTODY_TOPIC}"
    spans = _trace_of(collector, root, partial(_has, {("ingest", root), *ENROL}))
    [consumed] = [span for span in spans if span.name == root]
    assert consumed.trace_id != SENT.split("-")[1]
    assert consumed.linked == {SENT.split("-")[1]}


def test_an_error_is_recorded_by_its_code_and_its_trace_named_in_answer_and_log(
    traced: Platform, collector: Collector, enrolled: str
) -> None:
    with traced.client("search", "operator") as operator:
        refused = post_search(operator, b"no picture", case_reference=CASE)
    assert refused.status_code == 422
    instance = refused.json()["instance"]
    assert re.fullmatch(r"urn:likeness:trace:[0-9a-f]{32}", instance)
    trace_id = instance.rpartition(":")[2]
    wait_until(
        lambda: any(
            span.attributes.get("likeness.error.code") == "image_format_not_allowed"
            and span.attributes.get("http.response.status_code") == 422
            for span in collector.traces().get(trace_id, ())
        ),
        WAIT_S,
        lambda: f"the refusal in its trace; have {collector.traces().get(trace_id)}",
    )

    traced.kill("audit")
    try:
        with traced.client("search", "operator") as operator:
            failed = post_search(operator, portraits()[2], case_reference=CASE)
        assert failed.status_code == 503, failed.text
        trace_id = failed.json()["instance"].rpartition(":")[2]
        assert f'"trace_id":"{trace_id}"' in traced.log("search").replace(" ", "")
        wait_until(
            lambda: any(
                span.is_error and span.name == "POST /v1/searches" for span in collector.traces().get(trace_id, ())
            ),
            WAIT_S,
            lambda: f"the failure in its trace; have {collector.traces().get(trace_id)}",
        )
    finally:
        traced.restart("audit")


def test_nothing_in_a_trace_says_who_or_what(collector: Collector, enrolled: str) -> None:
    """After all the others: over everything that was sent."""
    spans = collector.spans()
    assert len(spans) > 30
    for span in spans:
        assert not span.has_text, span
        for name, value in span.attributes.items():
            assert name in PERMITTED, span
            assert re.fullmatch(PERMITTED[name], str(value)), (name, value)
        assert re.fullmatch(r"[A-Za-z0-9 ./{}_-]{1,80}", span.name), span.name
    sent = b"".join(collector.bodies)
    for secret in (SUBJECT, CUSTODY_SUBJECT, CASE, "test-operator", "test-custodian", "northshire", enrolled):
        assert secret.encode() not in sent
    assert {each.get("authorization", each.get("Authorization")) for each in collector.headers} == {SECRET}


def _events(platform: Platform, topic: str) -> list[ReceivedEvent]:
    log = SqliteEventLog(platform.data.root / "events.sqlite")
    member = log.subscribe([topic], f"test-{new_id()}")
    try:
        return list(member.poll(1000, 10.0))
    finally:
        member.close()
        log.close()
