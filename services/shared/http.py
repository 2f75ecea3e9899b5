"""What every HTTP side has: problem+json, security headers, health, readiness and metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from services.shared.errors import LikenessError, Unauthenticated
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal, TokenVerifier

PROBLEM = "application/problem+json"
_NO_SNIFF = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}

# Names of what is not ready, with the reason; empty when the service is ready.
Readiness = Callable[[], Mapping[str, str]]


def problem_response(error: LikenessError) -> JSONResponse:
    """RFC 9457 problem details; `advice` says what to do, further members come from the error's context."""
    body = {
        "type": f"urn:likeness:problem:{error.code}",
        "title": error.code.replace("_", " "),
        "status": error.http_status,
        "code": error.code,
        "detail": error.detail,
        "advice": error.advice,
        **error.context,
    }
    headers = {"Retry-After": "2"} if error.retriable else {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status_code=error.http_status, headers=headers, media_type=PROBLEM)


def create_app(title: str, metrics: Metrics, readiness: Readiness) -> FastAPI:
    """An application with `/healthz`, `/readyz`, `/metrics` and the error mapping; routers are added by the service."""
    app = FastAPI(title=title, version="1", redoc_url=None)
    log = structlog.get_logger()

    @app.exception_handler(LikenessError)
    def _likeness(_request: Request, error: LikenessError) -> Response:
        if not error.caller_fault:
            log.warning("request_failed", code=error.code, detail=error.detail)
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    def _validation(_request: Request, error: RequestValidationError) -> Response:
        fields = [
            {
                "field": ".".join(str(part) for part in item["loc"][1:]) or str(item["loc"][0]),
                "problem": item["msg"],
            }
            for item in error.errors()
        ]
        named = ", ".join(sorted({entry["field"] for entry in fields}))
        body = {
            "type": "urn:likeness:problem:invalid_request",
            "title": "invalid request",
            "status": 422,
            "code": "invalid_request",
            "detail": f"Missing or invalid: {named}.",
            "advice": "Correct the named fields; /docs lists every field and its form.",
            "fields": fields,
        }
        return JSONResponse(body, status_code=422, media_type=PROBLEM)

    @app.exception_handler(HTTPException)
    def _http(_request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        body = {
            "type": f"urn:likeness:problem:{code}",
            "title": code.replace("_", " "),
            "status": error.status_code,
            "code": code,
            "detail": str(error.detail),
            "advice": "See /docs for the routes and their methods.",
        }
        return JSONResponse(body, status_code=error.status_code, headers=error.headers, media_type=PROBLEM)

    @app.exception_handler(Exception)
    def _unexpected(_request: Request, error: Exception) -> Response:
        log.error("unexpected_error", exc_info=error)
        return problem_response(LikenessError("An internal error; it has been logged.", advice="Tell the operators."))

    @app.middleware("http")
    async def _headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.update(_NO_SNIFF)
        return response

    @app.get("/healthz", include_in_schema=False)
    def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", include_in_schema=False)
    def readyz() -> Response:
        missing = dict(readiness())
        status = {"status": "ready"} if not missing else {"status": "not ready", "waiting_for": missing}
        return JSONResponse(status, status_code=200 if not missing else 503)

    @app.get("/metrics", include_in_schema=False)
    def metrics_page() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def bearer(verifier: TokenVerifier) -> Callable[[Request], Principal]:
    """A dependency that gives the verified caller or raises Unauthenticated before the body is looked at."""

    def principal(request: Request) -> Principal:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return verifier.verify(token.strip() if scheme.lower() == "bearer" else "")

    return principal
