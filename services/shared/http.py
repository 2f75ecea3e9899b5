"""What every HTTP side has: problem+json, security headers, body limits, health, readiness and metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated

import orjson
import structlog
from fastapi import Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from services.shared.api_page import add_api_page
from services.shared.errors import LikenessError
from services.shared.http_guard import HttpGuard
from services.shared.problems import PROBLEM, ProblemResponse, problem_body, problem_response
from services.shared.rate_limits import RateExceeded, RateLimits, Report
from services.shared.scraping import aggregated, may_see_watchlists
from services.shared.settings import MAX_IMAGE_BYTES, RateLimitSettings
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal, TokenVerifier

__all__ = ["PROBLEM", "Readiness", "bearer", "create_app", "problem_response"]

# One image and the fields around it.
MAX_BODY_BYTES = MAX_IMAGE_BYTES + 1024 * 1024

# Names of what is not ready, with the reason; empty when the service is ready.
Readiness = Callable[[], Mapping[str, str]]

_DOCUMENTED_BEARER = HTTPBearer(
    auto_error=False, bearerFormat="JWT", description="A token of the configured issuer; see docs/api.md."
)


def create_app(
    title: str,
    metrics: Metrics,
    readiness: Readiness,
    *,
    max_body_bytes: int = MAX_BODY_BYTES,
    larger_bodies: Mapping[str, int] | None = None,
    description: str = "",
    about: Mapping[str, str] | None = None,
) -> FastAPI:
    """An application with health, readiness, metrics, `/docs` and the error mapping; the service adds its routers.

    `larger_bodies` are limits of single paths that take more than `max_body_bytes`. `about` stands in `/readyz` once
    the service is ready: what it really runs on.
    """
    app = FastAPI(title=title, version="1", description=description, docs_url=None, redoc_url=None)
    app.add_middleware(HttpGuard, max_body_bytes=max_body_bytes, larger=larger_bodies)
    _map_errors(app)
    _add_operations(app, metrics, readiness, about or {})
    add_api_page(app)
    app.state.rate_limits = RateLimits(RateLimitSettings(), metrics)
    app.state.metrics_token_path = None
    return app


def limit_rates(app: FastAPI, settings: RateLimitSettings, metrics: Metrics, report: Report | None = None) -> None:
    """Limits of a service's own in place of the usual ones; `report` records who ran into them."""
    app.state.rate_limits = RateLimits(settings, metrics, report)


def show_watchlists(app: FastAPI, token_path: Path | None) -> None:
    """Whoever bears the token of this file sees in `/metrics` what is counted by watchlist; others see sums."""
    app.state.metrics_token_path = token_path


def _map_errors(app: FastAPI) -> None:
    log = structlog.get_logger()

    @app.exception_handler(LikenessError)
    async def _likeness(_request: Request, error: LikenessError) -> Response:
        if not error.caller_fault:
            log.warning("request_failed", code=error.code, detail=error.detail)
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    async def _validation(_request: Request, error: RequestValidationError) -> Response:
        fields = [
            {
                "field": ".".join(str(part) for part in item["loc"][1:]) or str(item["loc"][0]),
                "problem": item["msg"],
            }
            for item in error.errors()
        ]
        named = ", ".join(sorted({entry["field"] for entry in fields}))
        body = problem_body(
            "invalid_request",
            422,
            f"Missing or invalid: {named}.",
            "Correct the named fields; /docs lists every field and its form.",
            {"fields": fields},
        )
        return ProblemResponse(orjson.dumps(body), status_code=422)

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        body = problem_body(code, error.status_code, str(error.detail), "See /docs for the routes and their methods.")
        return ProblemResponse(orjson.dumps(body), status_code=error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def _unexpected(_request: Request, error: Exception) -> Response:
        log.error("unexpected_error", exc_info=error)
        return problem_response(LikenessError("An internal error; it has been logged.", advice="Tell the operators."))


def _add_operations(app: FastAPI, metrics: Metrics, readiness: Readiness, about: Mapping[str, str]) -> None:
    @app.get("/healthz", include_in_schema=False)
    def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", include_in_schema=False)
    def readyz() -> Response:
        missing = dict(readiness())
        status = {"status": "ready", **about} if not missing else {"status": "not ready", "waiting_for": missing}
        return JSONResponse(status, status_code=200 if not missing else 503)

    @app.get("/metrics", include_in_schema=False)
    def metrics_page(request: Request) -> Response:
        sees_all = may_see_watchlists(app.state.metrics_token_path, request.headers.get("authorization", ""))
        shown = metrics.registry if sees_all else aggregated(metrics.registry)
        return Response(generate_latest(shown), media_type=CONTENT_TYPE_LATEST)


def bearer(verifier: TokenVerifier) -> Callable[..., Awaitable[Principal]]:
    """A dependency that gives the verified caller. Raises Unauthenticated, RateExceeded for one that asks too often.

    It comes before the body only where the route reads the body itself (services/shared/multipart.py): FastAPI parses
    declared body parameters before any dependency runs. Asynchronous, because a verification takes a fraction of a
    millisecond and a change of threads as long again.
    """

    async def principal(
        request: Request,
        _documented: Annotated[HTTPAuthorizationCredentials | None, Depends(_DOCUMENTED_BEARER)] = None,
    ) -> Principal:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        caller = verifier.verify(token.strip() if scheme.lower() == "bearer" else "")
        await within_limits(request.app.state.rate_limits, caller)
        return caller

    return principal


async def within_limits(limits: RateLimits, caller: Principal) -> None:
    """Count the request. Raises RateExceeded, after it has been reported where that is due, or AuditUnavailable."""
    try:
        limits.take(caller)
    except RateExceeded as error:
        if limits.report is not None and error.is_reportable:
            await run_in_threadpool(limits.report, caller, error)
        raise
