"""Where a trace begins: a request to a REST side. Pure ASGI, around everything else, so that every answer has it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.shared.tracing import TRACEPARENT, engine

if TYPE_CHECKING:
    from services.shared.tracing_engine import TracingEngine

_UNTRACED = frozenset({"/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/favicon.ico"})
_UNTRACED_FOLDERS = ("/static/",)
_UNKNOWN_ROUTE = "unknown"


def traced(app: ASGIApp) -> ASGIApp:
    """The application itself where tracing is off."""
    found = engine()
    return app if found is None else _TracedApp(app, found)


class _TracedApp:
    def __init__(self, app: ASGIApp, tracing: TracingEngine) -> None:
        self._app = app
        self._engine = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or path in _UNTRACED or path.startswith(_UNTRACED_FOLDERS):
            await self._app(scope, receive, send)
            return
        from services.shared.tracing_engine import set_attributes  # noqa: PLC0415 - loaded already, for tracing is on

        method = scope["method"]
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        attributes = {"http.request.method": method}
        with self._engine.request(
            method, _sent(scope), is_trusted=self._is_trusted(scope), attributes=attributes
        ) as span:
            try:
                await self._app(scope, receive, noting)
            finally:
                route = getattr(scope.get("route"), "path_format", _UNKNOWN_ROUTE)
                span.update_name(f"{method} {route}")
                set_attributes(span, {"http.route": route, "http.response.status_code": status})

    def _is_trusted(self, scope: Scope) -> bool:
        client = scope.get("client")
        networks = self._engine.settings.trusted_networks
        if not client or not networks:
            return False
        try:
            address = ip_address(client[0])
        except ValueError:
            return False
        return any(address in network for network in networks)


def _sent(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == TRACEPARENT.encode():
            return str(value, "latin-1")
    return None
