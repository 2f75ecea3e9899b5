"""Traces over gRPC: the context goes in the metadata of a call, and comes out of it on the other side.

Both interceptors stand only in processes where tracing is on. A call outside of any trace makes no span on either side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from services.rpc.access import Interceptor
from services.shared.tracing import TRACEPARENT, engine

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from services.shared.tracing_engine import TracingEngine

    UnaryClientInterceptor = grpc.UnaryUnaryClientInterceptor[Any, Any]
    StreamClientInterceptor = grpc.UnaryStreamClientInterceptor[Any, Any]
else:
    UnaryClientInterceptor = grpc.UnaryUnaryClientInterceptor
    StreamClientInterceptor = grpc.UnaryStreamClientInterceptor


def traced_channel(channel: grpc.Channel) -> grpc.Channel:
    """The channel itself where tracing is off."""
    found = engine()
    return channel if found is None else grpc.intercept_channel(channel, _ClientInterceptor(found))


def tracing_interceptors() -> list[Interceptor]:
    """To stand last, after access: a refused call leaves no span."""
    found = engine()
    return [] if found is None else [_ServerInterceptor(found)]


@dataclass(frozen=True, slots=True)
class _Details(grpc.ClientCallDetails):
    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: Any


class _ClientInterceptor(UnaryClientInterceptor, StreamClientInterceptor):
    def __init__(self, tracing: TracingEngine) -> None:
        self._engine = tracing

    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        return self._call(continuation, client_call_details, request)

    def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        return self._call(continuation, client_call_details, request)

    def _call(self, continuation: Callable[..., Any], details: grpc.ClientCallDetails, request: Any) -> Any:
        span = self._engine.called(details.method.lstrip("/"), _attributes(details.method))
        if span is None:
            return continuation(details, request)
        try:
            call = continuation(_with_context(details, span), request)
        except BaseException as error:
            self._engine.ended(span, error)
            raise
        call.add_done_callback(lambda done: self._engine.ended(span, _error_of(done)))
        return call


def _with_context(details: grpc.ClientCallDetails, span: Span) -> _Details:
    from services.shared.tracing_engine import traceparent_of  # noqa: PLC0415 - loaded already, for tracing is on

    metadata = (*(details.metadata or ()), (TRACEPARENT, traceparent_of(span)))
    return _Details(
        details.method,
        details.timeout,
        metadata,
        details.credentials,
        getattr(details, "wait_for_ready", None),
        getattr(details, "compression", None),
    )


def _error_of(call: Any) -> BaseException | None:
    """The call as an exception where it failed; a call that nobody wanted any more did not."""
    if call.code() in {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}:
        return None
    return call if isinstance(call, BaseException) else grpc.RpcError()


class _ServerInterceptor(Interceptor):
    def __init__(self, tracing: TracingEngine) -> None:
        self._engine = tracing

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler: Any = continuation(handler_call_details)
        sent = [value for name, value in handler_call_details.invocation_metadata or () if name == TRACEPARENT]
        if handler is None or not sent:
            return handler  # type: ignore[no-any-return]
        method, parent = str(handler_call_details.method), str(sent[0])
        if handler.unary_unary:
            return handler._replace(unary_unary=self._unary(method, parent, handler.unary_unary))  # type: ignore[no-any-return]
        if handler.unary_stream:
            return handler._replace(unary_stream=self._stream(method, parent, handler.unary_stream))  # type: ignore[no-any-return]
        return handler  # type: ignore[no-any-return]

    def _unary(self, method: str, parent: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def spanned(request: Any, context: grpc.ServicerContext) -> Any:
            with self._engine.served(method.lstrip("/"), parent, _attributes(method)):
                return behaviour(request, context)

        return spanned

    def _stream(self, method: str, parent: str, behaviour: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        def spanned(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            # One thread takes the answers, from the first to the last.
            with self._engine.served(method.lstrip("/"), parent, _attributes(method)):
                yield from behaviour(request, context)

        return spanned


def _attributes(method: str) -> dict[str, str]:
    service, _, name = method.lstrip("/").partition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
