"""RFC 9457 problem details: the one form in which every error reaches an HTTP client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi.responses import Response

from services.shared.errors import LikenessError, Unauthenticated
from services.shared.tracing import note_problem, trace_id

PROBLEM = "application/problem+json"

# On every answer that does not bring its own. Problems bring them themselves, because an unexpected error is answered
# outside the guard. An answer of the API opened in a browser may load, run, send and be framed by nothing.
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    # Two years; a browser heeds it over TLS only, so it changes nothing on the loopback interface.
    "strict-transport-security": "max-age=63072000; includeSubDomains",
}


class ProblemResponse(Response):
    media_type = PROBLEM


def problem_body(
    code: str, status: int, detail: str, advice: str, context: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    found = trace_id()
    return {
        "type": f"urn:likeness:problem:{code}",
        "title": code.replace("_", " "),
        "status": status,
        "code": code,
        "detail": detail,
        "advice": advice,
        # What to tell the operators, where traces are on: their logs have it too.
        **({"instance": f"urn:likeness:trace:{found}"} if found else {}),
        **(context or {}),
    }


def problem_response(error: LikenessError) -> ProblemResponse:
    """`advice` says what to do; further members come from the error's context."""
    headers = dict(SECURITY_HEADERS)
    note_problem(error)
    if error.retriable:
        headers["Retry-After"] = str(error.context.get("retry_after_s", 2))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    body = problem_body(error.code, error.http_status, error.detail, error.advice or _advice(error), error.context)
    return ProblemResponse(orjson.dumps(body), status_code=error.http_status, headers=headers)


def _advice(error: LikenessError) -> str:
    """For errors that bring none, so that no problem leaves its reader without a next step."""
    if error.retriable:
        return "Try again in a few seconds; if it persists, tell the operators."
    return "Correct the request; /docs describes it." if error.caller_fault else "Tell the operators."
