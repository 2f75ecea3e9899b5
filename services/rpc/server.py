"""The gRPC side of a service: one server, one error mapping, real health, reflection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import orjson
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.rpc.access import AccessInterceptor, Interceptor
from services.rpc.mtls import Certificates
from services.rpc.tracing import tracing_interceptors
from services.rpc.v1 import common_pb2
from services.shared.errors import ConfigurationError, LikenessError
from services.shared.settings import MAX_IMAGE_BYTES, TlsSettings

PROBLEM_METADATA = "likeness-problem-bin"
MAX_MESSAGE_BYTES = MAX_IMAGE_BYTES + 1024 * 1024

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
# Without this two processes can listen on one port and share its calls at random.
_SERVER_OPTIONS: tuple[tuple[str, int], ...] = (*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0))


def problem_of(error: LikenessError) -> common_pb2.Problem:
    context = {name: orjson.dumps(value).decode() for name, value in error.context.items()}
    return common_pb2.Problem(
        code=error.code,
        detail=error.detail,
        advice=error.advice,
        retriable=error.retriable,
        context_json=context,
    )


def _abort(context: grpc.ServicerContext, error: Exception) -> None:
    """End the call with the error's status; never returns."""
    if not isinstance(error, LikenessError):
        structlog.get_logger().error("unexpected_error", exc_info=error)
        error = LikenessError("An internal error; it has been logged.", advice="Tell the operators.")
    context.set_trailing_metadata(((PROBLEM_METADATA, problem_of(error).SerializeToString()),))
    context.abort(getattr(grpc.StatusCode, error.grpc_status), error.detail)


class _ErrorInterceptor(Interceptor):
    """Turns LikenessError into its gRPC status with the Problem in the trailing metadata."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler: Any = continuation(handler_call_details)
        if handler is None:
            return None
        for kind, guard in _GUARDS.items():
            behaviour = getattr(handler, kind)
            if behaviour:
                return handler._replace(**{kind: guard(behaviour)})  # type: ignore[no-any-return]
        return handler  # type: ignore[no-any-return]


def _guard_unary(
    behaviour: Callable[[Any, grpc.ServicerContext], Any],
) -> Callable[[Any, grpc.ServicerContext], Any]:
    def guarded(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return behaviour(request, context)
        except Exception as error:  # noqa: BLE001 - the border of the process: everything is mapped and logged
            return _abort(context, error)

    return guarded


def _guard_stream(
    behaviour: Callable[[Any, grpc.ServicerContext], Iterator[Any]],
) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
    def guarded(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from behaviour(request, context)
        except Exception as error:  # noqa: BLE001 - the border of the process: everything is mapped and logged
            _abort(context, error)

    return guarded


_GUARDS: Mapping[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "unary_unary": _guard_unary,
    "stream_unary": _guard_unary,
    "unary_stream": _guard_stream,
    "stream_stream": _guard_stream,
}


class GrpcServer:
    """A started server. `names` are full service names ("likeness.v1.Embed"); health says SERVING only when told.

    With `tls` on, callers are known by their certificates and may call what services/rpc/access.py grants them; without
    it anybody who reaches the port may call anything.
    """

    def __init__(
        self,
        host: str,
        port: int,
        names: Sequence[str],
        register: Callable[[grpc.Server], None],
        *,
        threads: int = 16,
        tls: TlsSettings | None = None,
    ) -> None:
        self._names = ("", *names)
        certificates = Certificates(tls) if tls is not None and tls.is_on else None
        self._health = health.HealthServicer()
        self._server = grpc.server(
            ThreadPoolExecutor(threads, thread_name_prefix="grpc"),
            interceptors=[
                _ErrorInterceptor(),
                *([AccessInterceptor()] if certificates else []),
                *tracing_interceptors(),
            ],
            options=_SERVER_OPTIONS,
        )
        register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self.set_serving(False)
        try:
            self.port = self._listen(f"{host}:{port}", certificates)
        except RuntimeError as error:
            raise ConfigurationError(
                f"gRPC port {host}:{port} cannot be opened: {error}",
                advice="Stop what listens there, or set another grpc_port for this service.",
            ) from error

    def _listen(self, address: str, certificates: Certificates | None) -> int:
        if certificates is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, certificates.server_credentials())

    def start(self) -> None:
        self._server.start()

    def set_serving(self, is_serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if is_serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            self._health.set(name, status)

    def stop(self, grace_s: float = 5.0) -> None:
        """Refuse new calls, let running ones end within the grace."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait()
