"""Where partners' platforms call: one route, TLS 1.3 with their certificate, apart from the REST API."""

from __future__ import annotations

import asyncio
import ssl
from threading import Thread
from typing import Any

import orjson
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from services.search.http_api import Slots
from services.search.partners.answering import AnswerPartner
from services.search.partners.config import PartnerFile
from services.search.partners.http_link import ASK_PATH
from services.search.partners.settings import PartnersSettings
from services.shared.errors import InvalidRequest, LikenessError
from services.shared.http_guard import HttpGuard
from services.shared.problems import SECURITY_HEADERS, ProblemResponse, problem_body
from services.shared.settings import MAX_IMAGE_BYTES

_STOPPED_WITHIN_S = 10.0


def create_gateway(answer: AnswerPartner, slots: Slots) -> Starlette:
    """The application. Who calls is settled before the picture is read."""

    async def ask(request: Request) -> Response:
        certificate = request.scope.get("state", {}).get("peer_certificate")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        signed = token.strip() if scheme.lower() == "bearer" else ""
        caller = await run_in_threadpool(answer.caller, certificate, signed)
        with slots.taken():
            try:
                picture = await request.body()
            except ClientDisconnect as error:
                raise InvalidRequest("The picture broke off.", advice="Send it again.") from error
            content = await run_in_threadpool(answer, caller, picture)
        return Response(content, media_type="application/json", headers=SECURITY_HEADERS)

    return Starlette(
        routes=[Route(ASK_PATH, ask, methods=["POST"])],
        middleware=[Middleware(HttpGuard, max_body_bytes=MAX_IMAGE_BYTES)],
        exception_handlers={LikenessError: _problem, Exception: _unexpected},
    )


def _problem(_request: Request, error: Exception) -> Response:
    """What is wrong in words; nothing of a context, which may hold faces or what another force has."""
    assert isinstance(error, LikenessError)  # noqa: S101 - registered for it
    body = problem_body(error.code, error.http_status, error.detail, error.advice)
    return ProblemResponse(orjson.dumps(body), status_code=error.http_status, headers=SECURITY_HEADERS)


def _unexpected(request: Request, error: Exception) -> Response:
    structlog.get_logger().error("unexpected_error", exc_info=error)
    return _problem(request, LikenessError("An internal error; it has been logged.", advice="Tell the operators."))


class _PeerProtocol(H11Protocol):
    """Puts the verified certificate of the other side into the state of each of its requests."""

    def connection_made(self, transport: Any) -> None:  # asyncio's and uvicorn's types differ
        super().connection_made(transport)
        connection = transport.get_extra_info("ssl_object")
        der = None if connection is None else connection.getpeercert(binary_form=True)
        self.app_state = {**self.app_state, "peer_certificate": der}


class PartnerGateway:
    """Serves the gateway in a thread of its own. `renew` takes files that have changed since."""

    def __init__(self, settings: PartnersSettings, file: PartnerFile, app: Starlette) -> None:
        """Raises ConfigurationError: the file, a key or a certificate cannot be used."""
        self._file = file
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a certificate may be pinned
        self.renew()
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port or 0,
            http=_PeerProtocol,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=5,
            timeout_keep_alive=15,
            server_header=False,
        )
        config.load()
        config.ssl = self._context
        self._server = uvicorn.Server(config)
        self._thread = Thread(target=self._run, name="partner-gateway", daemon=True)

    def renew(self) -> None:
        """For connections to come. Who is no partner any more is refused on every request, whatever stands here."""
        partners = self._file.current()
        certificate, key = partners.certificate_paths()
        self._context.load_cert_chain(certificate, key)
        for partner in partners.all:
            self._context.load_verify_locations(cafile=str(partners.authority_path(partner)))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_STOPPED_WITHIN_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._server.serve())
        except SystemExit:  # uvicorn's word for a port that is taken
            structlog.get_logger().critical("partner_gateway_not_started")
