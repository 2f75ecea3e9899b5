"""A small collector of traces: takes OTLP over HTTP and keeps every span that it was sent."""

from __future__ import annotations

import gzip
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from types import TracebackType

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class CollectedSpan:
    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: Mapping[str, str | int]
    is_error: bool
    has_text: bool  # events, a status message, a trace state: nothing that Likeness sends has any
    linked: frozenset[str]  # ids of the traces that it is linked to


class Collector:
    """Use it as a context manager; `url` is what TRACING__ENDPOINT takes."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._spans: list[CollectedSpan] = []
        self.bodies: list[bytes] = []  # as they were sent, unpacked
        self.headers: list[Mapping[str, str]] = []
        self._server = ThreadingHTTPServer((HOST, 0), self._handler())
        self.url = f"http://{HOST}:{self._server.server_address[1]}/v1/traces"

    def __enter__(self) -> Collector:
        Thread(target=self._server.serve_forever, name="collector", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def spans(self) -> Sequence[CollectedSpan]:
        with self._lock:
            return list(self._spans)

    def traces(self) -> Mapping[str, Sequence[CollectedSpan]]:
        """By trace id."""
        found: dict[str, list[CollectedSpan]] = defaultdict(list)
        for span in self.spans():
            found[span.trace_id].append(span)
        return found

    def take(self, body: bytes, headers: Mapping[str, str]) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self._spans += _spans_of(request)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(body, dict(self.headers.items()))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *_arguments: object) -> None:
                """Nothing: tests print what they have to say."""

        return Handler


def _spans_of(request: ExportTraceServiceRequest) -> list[CollectedSpan]:
    found = []
    for resource in request.resource_spans:
        about = {each.key: each.value.string_value for each in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                attributes: dict[str, str | int] = {}
                for each in span.attributes:
                    value = each.value
                    attributes[each.key] = value.int_value if value.HasField("int_value") else value.string_value
                found.append(
                    CollectedSpan(
                        service=about.get("service.name", ""),
                        name=span.name,
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_id=span.parent_span_id.hex(),
                        attributes=attributes,
                        is_error=span.status.code == span.status.STATUS_CODE_ERROR,
                        has_text=bool(span.events or span.status.message or span.trace_state),
                        linked=frozenset(link.trace_id.hex() for link in span.links),
                    )
                )
    return found
