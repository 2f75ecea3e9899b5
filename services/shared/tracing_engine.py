"""Tracing with OpenTelemetry, once it is on. Use services/shared/tracing.py; the edges alone come here."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Thread
from time import time_ns
from typing import ParamSpec, TypeVar

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.shared.errors import ConfigurationError, LikenessError
from services.shared.settings import TracingSettings
from services.shared.tracing import ATTRIBUTES, TRACEPARENT

_EXPORT_TIMEOUT_S = 5.0
_EXPORT_EVERY_MS = 1000
_QUEUE_SPANS = 4096  # a collector that is away costs this much memory and no request anything
_GOODBYE_S = 2.0
_PROPAGATOR = TraceContextTextMapPropagator()
_P = ParamSpec("_P")
_R = TypeVar("_R")
Attributes = Mapping[str, str | int]


def otlp_exporter(settings: TracingSettings) -> SpanExporter:
    """OTLP over HTTP, with the collector's credentials from a file. Raises ConfigurationError."""
    return OTLPSpanExporter(
        endpoint=settings.endpoint,
        headers=_headers(settings),
        certificate_file=str(settings.ca_path) if settings.ca_path else None,
        timeout=_EXPORT_TIMEOUT_S,
        compression=Compression.Gzip,
    )


def _headers(settings: TracingSettings) -> dict[str, str]:
    if settings.headers_path is None:
        return {}
    try:
        lines = settings.headers_path.read_text("utf-8").splitlines()
    except OSError as error:
        raise ConfigurationError(
            f"The file with the collector's headers cannot be read: {error}.",
            advice="Mount it, or leave TRACING__HEADERS_PATH out.",
        ) from error
    pairs = (line.partition(":") for line in lines if line.strip())
    return {name.strip(): value.strip() for name, _, value in pairs}


class TracingEngine:
    """Makes the spans of one service. Safe for many threads."""

    def __init__(self, service: str, settings: TracingSettings, exporter: SpanExporter) -> None:
        self.settings = settings
        # Nothing is read from the environment or the host: no host name, no user, no command line.
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sampling_ratio)),
            resource=Resource({"service.name": f"likeness-{service}"}),
            span_limits=SpanLimits(max_attributes=32, max_events=0, max_links=128, max_attribute_length=200),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=_QUEUE_SPANS,
                max_export_batch_size=512,
                schedule_delay_millis=_EXPORT_EVERY_MS,
                export_timeout_millis=_EXPORT_TIMEOUT_S * 1000,
            )
        )
        self._tracer = self._provider.get_tracer("likeness")
        # A collector that is away is one line when a batch is lost, not one for every try.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)

    def close(self) -> None:
        """What is not sent in time is lost: a service does not stay for its collector."""
        goodbye = Thread(target=self._provider.shutdown, name="tracing-goodbye", daemon=True)
        goodbye.start()
        goodbye.join(_GOODBYE_S)

    # --- edges

    @contextmanager
    def request(self, name: str, sent: str | None, *, is_trusted: bool, attributes: Attributes) -> Iterator[Span]:
        """A request from outside. Whom we do not trust neither names our trace nor decides that it is recorded."""
        parent = _remote(sent) if sent and is_trusted else context.Context()
        with self._under(name, parent, SpanKind.SERVER, attributes) as span:
            yield span

    @contextmanager
    def served(self, name: str, sent: str, attributes: Attributes) -> Iterator[Span]:
        """A call of a peer that is in a trace."""
        with self._under(name, _remote(sent), SpanKind.SERVER, attributes) as span:
            yield span

    def called(self, name: str, attributes: Attributes) -> Span | None:
        """A call to a peer from within a trace; the caller ends it with `ended`. None where no trace is under way."""
        if not trace.get_current_span().get_span_context().is_valid:
            return None
        return self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=_allowed(attributes))

    def ended(self, span: Span, error: BaseException | None = None) -> None:
        if error is not None:
            _note(span, error)
        span.end()

    # --- what services.shared.tracing offers

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if not trace.get_current_span().is_recording():
            yield
            return
        with self._under(name, None, SpanKind.INTERNAL, {}):
            yield

    def stages_done(self, durations_ms: Mapping[str, float]) -> None:
        if not trace.get_current_span().is_recording():
            return
        at_ns = time_ns() - int(sum(durations_ms.values()) * 1e6)
        for name, duration_ms in durations_ms.items():
            span = self._tracer.start_span(name, start_time=at_ns)
            at_ns += int(duration_ms * 1e6)
            span.end(at_ns)

    @contextmanager
    def resumed(self, name: str, sent: str) -> Iterator[None]:
        with self._under(name, _remote(sent), SpanKind.INTERNAL, {}):
            yield

    @contextmanager
    def together(self, name: str, sent: Sequence[str]) -> Iterator[None]:
        parents = [parent for each in dict.fromkeys(sent) if each and _is_sampled(parent := _remote(each))]
        if not parents:
            yield
            return
        attributes = {"messaging.batch.message_count": len(sent)}
        links = [Link(_context_of(parent)) for parent in parents[1:]]
        with self._under(name, parents[0], SpanKind.INTERNAL, attributes, links) as span:
            link = [Link(span.get_span_context())]
            spans = [
                self._tracer.start_span(name, parent, attributes=_allowed(attributes), links=link)
                for parent in parents[1:]
            ]
            try:
                yield
            finally:
                for each in spans:
                    each.end()

    @contextmanager
    def consumed(self, topic: str, headers: Mapping[str, str]) -> Iterator[None]:
        sent = _remote(headers.get(TRACEPARENT, ""))
        parent = sent if self.settings.trusts_events else context.Context()
        link = _context_of(sent)
        links = [Link(link)] if link.is_valid and not self.settings.trusts_events else []
        attributes = {"messaging.destination.name": topic}
        with self._under(f"consume {topic}", parent, SpanKind.CONSUMER, attributes, links):
            yield

    def traceparent(self) -> str:
        return traceparent_of(trace.get_current_span())

    def trace_id(self) -> str:
        found = trace.get_current_span().get_span_context()
        return f"{found.trace_id:032x}" if found.is_valid else ""

    def note_problem(self, error: BaseException) -> None:
        _note(trace.get_current_span(), error)

    def carried(self, work: Callable[_P, _R]) -> Callable[_P, _R]:
        here = contextvars.copy_context()

        def elsewhere(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            return here.run(work, *args, **kwargs)

        return elsewhere

    @contextmanager
    def _under(
        self,
        name: str,
        parent: context.Context | None,
        kind: SpanKind,
        attributes: Attributes,
        links: Sequence[Link] = (),
    ) -> Iterator[Span]:
        """A span that is current in this thread while it lasts; of the exception that ends it, code and kind."""
        span = self._tracer.start_span(name, parent, kind=kind, attributes=_allowed(attributes), links=links)
        token = context.attach(trace.set_span_in_context(span))
        try:
            yield span
        except BaseException as error:
            _note(span, error)
            raise
        finally:
            context.detach(token)
            span.end()


def traceparent_of(span: Span) -> str:
    """W3C Trace Context, version 00; empty for no span."""
    found = span.get_span_context()
    if not found.is_valid:
        return ""
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{int(found.trace_flags):02x}"


def set_attributes(span: Span, attributes: Attributes) -> None:
    for name, value in _allowed(attributes).items():
        span.set_attribute(name, value)


def _note(span: Span, error: BaseException) -> None:
    """Never the text of an error: it may name a subject, a case or a file."""
    set_attributes(span, {"error.type": type(error).__name__})
    is_callers = isinstance(error, LikenessError) and error.caller_fault
    if isinstance(error, LikenessError):
        set_attributes(span, {"likeness.error.code": error.code})
    if not is_callers:
        span.set_status(Status(StatusCode.ERROR))


def _allowed(attributes: Attributes) -> dict[str, str | int]:
    return {name: value for name, value in attributes.items() if name in ATTRIBUTES}


def _remote(sent: str) -> context.Context:
    """An empty context for what is no traceparent."""
    return _PROPAGATOR.extract({TRACEPARENT: sent}, context.Context())


def _context_of(parent: context.Context) -> SpanContext:
    return trace.get_current_span(parent).get_span_context()


def _is_sampled(parent: context.Context) -> bool:
    found = _context_of(parent)
    return found.is_valid and found.trace_flags.sampled
