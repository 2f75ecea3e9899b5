"""Traces of a request through the services. Off unless an endpoint is set; then it costs a look at one name.

A trace begins at a REST request or at an event and nowhere else: a background loop that calls a peer makes no spans. It
goes on in gRPC metadata, in the ledger row of an enrolment that is worked off later, and in the headers of events,
which stand in the outbox with them; always as a W3C `traceparent`, never with baggage.

Spans bear the stage names of docs/architecture.md. What may stand in them is `ATTRIBUTES` and nothing else: no person,
no case, no subject, no file, no score, and of an error its code and kind, never its text.

Nothing but this module and its engine imports OpenTelemetry, and the engine only once tracing is switched on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from services.shared.settings import TracingSettings
    from services.shared.tracing_engine import TracingEngine

TRACEPARENT = "traceparent"

# Everything that a span may say, by its name. A test holds every span of real processes to this.
ATTRIBUTES = frozenset(
    {
        "http.request.method",
        "http.route",  # the template of the path, never what was filled in
        "http.response.status_code",
        "rpc.system",
        "rpc.service",
        "rpc.method",
        "messaging.destination.name",  # a topic
        "messaging.batch.message_count",
        "error.type",  # a class of services/shared/errors.py or of Python
        "likeness.error.code",
    }
)

_P = ParamSpec("_P")
_R = TypeVar("_R")
_NOTHING: AbstractContextManager[None] = nullcontext()
_engine: TracingEngine | None = None


def start_tracing(service: str, settings: TracingSettings) -> None:
    """Called once by a service's `__main__`. Raises ConfigurationError."""
    global _engine  # noqa: PLW0603 - one process, one service, one engine; None is how everybody knows that it is off
    if not settings.endpoint:
        return
    # 0.2 s and 15 MB, only when it is on.
    from services.shared.tracing_engine import TracingEngine, otlp_exporter  # noqa: PLC0415

    _engine = TracingEngine(service, settings, otlp_exporter(settings))


def stop_tracing() -> None:
    """Send what is left, for at most two seconds, and switch off."""
    global _engine
    engine, _engine = _engine, None
    if engine is not None:
        engine.close()


def engine() -> TracingEngine | None:
    """For the edges (HTTP, gRPC), which are only built with tracing when it is on."""
    return _engine


def stage(name: str) -> AbstractContextManager[None]:
    """A part of what is under way in this thread; nothing where no trace is under way."""
    return _NOTHING if _engine is None else _engine.stage(name)


def stages_done(durations_ms: Mapping[str, float]) -> None:
    """Stages that ended just now, one after the other, of which only the durations are known."""
    if _engine is not None:
        _engine.stages_done(durations_ms)


def resumed(name: str, traceparent: str) -> AbstractContextManager[None]:
    """Going on with what was stored with a ledger row; nothing where there is none."""
    return _NOTHING if _engine is None or not traceparent else _engine.resumed(name, traceparent)


def together(name: str, traceparents: Sequence[str]) -> AbstractContextManager[None]:
    """One piece of work for several traces: a span of that name in each, and what it calls in the first."""
    return _NOTHING if _engine is None else _engine.together(name, traceparents)


def consumed(topic: str, headers: Mapping[str, str]) -> AbstractContextManager[None]:
    """Handling one event: a trace of its own, or the sender's where the settings trust it."""
    return _NOTHING if _engine is None else _engine.consumed(topic, headers)


def traceparent() -> str:
    """What is under way in this thread, for a row or a header; empty where nothing is."""
    return "" if _engine is None else _engine.traceparent()


def trace_id() -> str:
    """For logs and problems: 32 hexadecimal digits; empty where no trace is under way."""
    return "" if _engine is None else _engine.trace_id()


def note_problem(error: BaseException) -> None:
    """What is under way is answered with an error."""
    if _engine is not None:
        _engine.note_problem(error)


def carried(work: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same work, for another thread: its spans belong to what is under way in this one."""
    return work if _engine is None else _engine.carried(work)
