"""Tracing as its edges use it, without a collector: what is sent is kept in memory."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.rpc.tracing import traced_channel, tracing_interceptors
from services.shared import tracing, tracing_engine
from services.shared.errors import ConfigurationError, Conflict, DependencyUnavailable
from services.shared.problems import problem_body
from services.shared.settings import TracingSettings
from services.shared.tracing_http import traced

SERVICES = Path(tracing.__file__).parents[1]
SENT_TRACE = "0af7651916cd43dd8448eb211c80319c"
SENT = f"00-{SENT_TRACE}-b7ad6b7169203331-01"
ENDPOINT = "http://127.0.0.1:9/v1/traces"  # the port of nobody


class Kept:
    """What was recorded."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def spans(self) -> list[ReadableSpan]:
        """Everything until now; ends the recording."""
        tracing.stop_tracing()
        return list(self._exporter.get_finished_spans())


def _on(monkeypatch: pytest.MonkeyPatch, settings: TracingSettings) -> Kept:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(tracing_engine, "otlp_exporter", lambda _settings: exporter)
    tracing.start_tracing("unit", settings)
    return Kept(exporter)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    yield _on(monkeypatch, TracingSettings(endpoint=ENDPOINT, sampling_ratio=1))
    tracing.stop_tracing()


def test_it_is_off_without_an_endpoint_and_then_changes_nothing() -> None:
    tracing.start_tracing("unit", TracingSettings())
    assert tracing.engine() is None
    app, channel = FastAPI(), object()
    assert traced(app) is app
    assert traced_channel(channel) is channel  # type: ignore[arg-type]
    assert tracing_interceptors() == []
    assert tracing.carried(len) is len
    assert tracing.stage("gate") is tracing.stage("gallery")  # one object for all
    assert (tracing.traceparent(), tracing.trace_id()) == ("", "")
    assert "instance" not in problem_body("code", 422, "detail", "advice")


def test_a_stage_outside_of_a_trace_is_no_span(on: Kept) -> None:
    with tracing.stage("gate"):
        tracing.stages_done({"detect": 1.0})
    assert on.spans() == []


def test_what_is_stored_goes_on_in_its_trace_also_in_another_thread(on: Kept) -> None:
    with ThreadPoolExecutor(1) as pool, tracing.resumed("enrol", SENT):
        assert tracing.trace_id() == SENT_TRACE
        tracing.stages_done({"gate": 2.0, "queue": 1.0, "detect": 4.0})
        assert pool.submit(tracing.carried(tracing.trace_id)).result() == SENT_TRACE
        assert pool.submit(tracing.trace_id).result() == ""
    spans = {span.name: span for span in on.spans()}
    assert {f"{span.context.trace_id:032x}" for span in spans.values() if span.context} == {SENT_TRACE}
    gate, queue = spans["gate"], spans["queue"]
    assert gate.start_time and gate.end_time and gate.end_time - gate.start_time == 2_000_000
    assert queue.start_time == gate.end_time


def test_a_caller_that_decided_against_recording_is_heeded(on: Kept) -> None:
    with tracing.resumed("enrol", SENT[:-2] + "00"), tracing.stage("gate"):
        assert tracing.traceparent().endswith("-00")
    assert on.spans() == []


def test_one_piece_of_work_stands_in_the_trace_of_everyone_it_was_done_for(on: Kept) -> None:
    others = [f"00-{number:032x}-{number:016x}-01" for number in (1, 2)]
    unsampled = f"00-{9:032x}-{9:016x}-00"
    with tracing.together("gallery", [SENT, "", *others, SENT, unsampled]), tracing.stage("inner"):
        pass
    spans = on.spans()
    shared = [span for span in spans if span.name == "gallery"]
    assert {span.context.trace_id for span in shared if span.context} == {int(SENT_TRACE, 16), 1, 2}
    assert [f"{span.context.trace_id:032x}" for span in spans if span.name == "inner" and span.context] == [SENT_TRACE]


def test_an_error_leaves_its_code_and_kind_and_never_its_text(on: Kept) -> None:
    with pytest.raises(DependencyUnavailable), tracing.resumed("enrol", SENT):
        raise DependencyUnavailable("The store of subject NS-4711 is away.")
    with pytest.raises(Conflict), tracing.resumed("enrol", SENT):
        raise Conflict("Subject NS-4711 was erased.", code="erased")
    with pytest.raises(ValueError), tracing.resumed("enrol", SENT):
        raise ValueError("NS-4711")
    spans = on.spans()
    assert [dict(span.attributes or {}) for span in spans] == [
        {"error.type": "DependencyUnavailable", "likeness.error.code": "dependency_unavailable"},
        {"error.type": "Conflict", "likeness.error.code": "erased"},
        {"error.type": "ValueError"},
    ]
    assert [span.status.is_ok for span in spans] == [False, True, False]  # what a caller can mend is no fault of ours
    assert "4711" not in "".join(span.to_json() for span in spans)


def test_no_attribute_gets_in_that_is_not_on_the_list(on: Kept) -> None:
    engine = tracing.engine()
    assert engine is not None
    with engine.served("likeness.v1.Embed/Analyse", SENT, {"rpc.method": "Analyse", "subject_id": "NS-4711"}):
        pass
    assert dict(on.spans()[0].attributes or {}) == {"rpc.method": "Analyse"}


def test_a_process_says_nothing_of_its_host_or_its_user(on: Kept) -> None:
    with tracing.resumed("enrol", SENT):
        pass
    [span] = on.spans()
    assert dict(span.resource.attributes) == {"service.name": "likeness-unit"}


@pytest.mark.parametrize(("networks", "is_taken"), [((), False), (("10.0.0.0/8",), False), (("192.0.2.0/24",), True)])
def test_a_callers_trace_counts_only_from_a_trusted_network(
    monkeypatch: pytest.MonkeyPatch, networks: tuple[str, ...], is_taken: bool
) -> None:
    settings = TracingSettings.model_validate({"endpoint": ENDPOINT, "sampling_ratio": 1, "trusted_networks": networks})
    kept = _on(monkeypatch, settings)
    app = FastAPI()
    seen: list[str] = []

    @app.get("/v1/subjects/{subject_id}")
    def _subject(subject_id: str) -> dict[str, Any]:
        seen.append(tracing.trace_id())
        return problem_body("code", 422, "detail", "advice")

    client = TestClient(traced(app), client=("192.0.2.7", 5000))
    answer = client.get("/v1/subjects/NS-4711?case=C-1", headers={"traceparent": SENT, "baggage": "case=C-1"})
    client.get("/metrics")
    [span] = kept.spans()
    assert (seen == [SENT_TRACE]) is is_taken
    assert answer.json()["instance"] == f"urn:likeness:trace:{seen[0]}"
    assert span.name == "GET /v1/subjects/{subject_id}"
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/v1/subjects/{subject_id}",
        "http.response.status_code": 200,
    }


def test_a_share_of_the_requests_is_recorded_and_every_one_has_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _on(monkeypatch, TracingSettings(endpoint=ENDPOINT, sampling_ratio=0))
    ids = []

    async def request() -> None:
        engine = tracing.engine()
        assert engine is not None
        with engine.request("GET", None, is_trusted=False, attributes={}):
            ids.append(tracing.trace_id())

    asyncio.run(request())
    assert len(ids[0]) == 32
    assert kept.spans() == []


def test_logs_name_the_trace(on: Kept) -> None:
    from services.shared.telemetry import _add_trace_id  # noqa: PLC0415 - a private part, of interest here alone

    with tracing.resumed("enrol", SENT):
        assert _add_trace_id(structlog.get_logger(), "info", {"event": "e"}) == {"event": "e", "trace_id": SENT_TRACE}
    assert _add_trace_id(structlog.get_logger(), "info", {"event": "e"}) == {"event": "e"}


def test_a_collector_that_is_away_delays_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing_engine, "_GOODBYE_S", 0.2)
    secret = tmp_path / "headers"
    secret.write_text("Authorization: Bearer x\n")
    settings = TracingSettings(endpoint=ENDPOINT, sampling_ratio=1, headers_path=secret)
    tracing.start_tracing("unit", settings)
    with tracing.resumed("enrol", SENT):
        pass
    tracing.stop_tracing()  # bounded by itself; pytest's own limit would tell
    assert tracing.engine() is None


def test_a_secret_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    settings = TracingSettings(endpoint=ENDPOINT, headers_path=tmp_path / "nothing")
    with pytest.raises(ConfigurationError):
        tracing_engine.otlp_exporter(settings)


def test_nobody_else_knows_the_library() -> None:
    """So that the list of attributes holds: spans are made in one place."""
    found = {
        path.relative_to(SERVICES).as_posix()
        for path in SERVICES.rglob("*.py")
        if re.search(r"^\s*(from|import) opentelemetry", path.read_text("utf-8"), re.MULTILINE)
    }
    # services/rpc/tracing.py for the type of a span alone.
    assert found == {"shared/tracing_engine.py", "rpc/tracing.py"}


def test_while_it_is_off_neither_sdk_nor_exporter_are_loaded() -> None:
    script = (
        "import sys\n"
        "import services.rpc.clients, services.rpc.server, services.shared.http, services.shared.runner\n"
        "from services.shared.settings import TracingSettings\n"
        "from services.shared.tracing import start_tracing\n"
        "start_tracing('unit', TracingSettings())\n"
        "sys.exit('opentelemetry.sdk' in sys.modules or 'opentelemetry.exporter' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
