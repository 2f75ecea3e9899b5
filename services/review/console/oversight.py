"""What custodians and auditors see is kept by other services: read over their own API with the person's own token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import date
from threading import Thread
from typing import Any

import httpx
import structlog
from pydantic import BaseModel

from services.shared.errors import (
    Conflict,
    DependencyUnavailable,
    Forbidden,
    InvalidRequest,
    LikenessError,
    NotFound,
    Unauthenticated,
    error_from_code,
)

_TIMEOUT_S = 10.0
# Whoever looks at the log while audit hangs is told so within the 3 s that hold for everything that discloses.
_ALIVE_S = 2.0
# The first question after a start counts the whole log, and the report is set as a PDF.
_REPORT_TIMEOUT_S = 60.0
# While a report is made its service is asked whether it can do its work at all. What misses two in a row hangs: told
# within the same 3 s, while one late answer of a busy machine ends nothing.
_LOOK_EVERY_S = 0.2
_LOOK_TIMEOUT_S = 0.9
_MISSED = 2
_KINDS: Mapping[int, type[LikenessError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: InvalidRequest,
    503: DependencyUnavailable,
}


class OversightSettings(BaseModel):
    """Where the HTTP sides of ingest and audit are."""

    ingest_url: str = "http://127.0.0.1:8081"
    audit_url: str = "http://127.0.0.1:8082"


class Oversight:
    """Reads for one person; whatever they may not see is refused, and recorded, by the service that is asked."""

    def __init__(self, settings: OversightSettings, search_url: str) -> None:
        self._settings = settings
        self._search_url = search_url
        self._client = httpx.Client(timeout=_TIMEOUT_S, trust_env=False, follow_redirects=False)

    def enrolments(self, bearer: str, state: str, limit: int = 1000) -> dict[str, Any]:
        """Raises Forbidden, DependencyUnavailable."""
        return self._get(bearer, self._settings.ingest_url, "/v1/enrolments", {"state": state, "limit": limit})

    def agreements(self, bearer: str) -> dict[str, Any]:
        """Every agreement that this person may see, as search judges by it. Raises Forbidden, DependencyUnavailable."""
        return self._get(bearer, self._search_url, "/v1/agreements", {})

    def reviews(self, bearer: str, until: date, limit: int) -> dict[str, Any]:
        """References whose review is due by a day. Raises Forbidden, DependencyUnavailable."""
        return self._get(bearer, self._settings.ingest_url, "/v1/reviews", {"until": until.isoformat(), "limit": limit})

    def decide_review(self, bearer: str, enrolment_id: str, decision: str, reason: str) -> None:
        """Raises InvalidRequest, Conflict, NotFound, Forbidden, DependencyUnavailable."""
        body = {"decision": decision, "reason": reason}
        self._post(bearer, self._settings.ingest_url, f"/v1/reviews/{enrolment_id}", body)

    def flags(self, bearer: str, limit: int) -> dict[str, Any]:
        """Open flags of the person's force. Raises Forbidden, DependencyUnavailable."""
        return self._get(bearer, self._settings.ingest_url, "/v1/flags", {"limit": limit})

    def flag(self, bearer: str, flag_id: str) -> dict[str, Any]:
        """One flag of the person's force. Raises Forbidden, NotFound, DependencyUnavailable."""
        return self._get(bearer, self._settings.ingest_url, f"/v1/flags/{flag_id}", {})

    def decide_flag(self, bearer: str, flag_id: str, decision: str, reason: str) -> None:
        """Raises InvalidRequest, Conflict, NotFound, Forbidden, DependencyUnavailable."""
        body = {"decision": decision, "reason": reason}
        self._post(bearer, self._settings.ingest_url, f"/v1/flags/{flag_id}/decision", body)

    def log_page(self, bearer: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Raises Forbidden, InvalidRequest, DependencyUnavailable."""
        return self._of_audit(bearer, "/v1/audit/entries", wanted)

    def log_entry(self, bearer: str, sequence: int, reason: str) -> dict[str, Any]:
        """Raises Forbidden, NotFound, DependencyUnavailable."""
        return self._of_audit(bearer, f"/v1/audit/entries/{sequence}", {"reason": reason})

    def sample(self, bearer: str, seed: str, count: int) -> dict[str, Any]:
        """Searches drawn by a seed of the auditor's own. Raises Forbidden, InvalidRequest, DependencyUnavailable."""
        query = {"seed": seed, "count": count, "reason": "console"}
        return self._of_audit(bearer, "/v1/audit/sample", query)

    def statistics(self, bearer: str, month: str) -> dict[str, Any]:
        """What the unit did, counted from the log; all months where none is named. Raises Forbidden, InvalidRequest,
        DependencyUnavailable."""
        query = {"reason": "console", **({"month": month} if month else {})}
        return self._of_audit(bearer, "/v1/audit/statistics", query)

    def transparency(self, bearer: str, months: Sequence[str]) -> dict[str, Any]:
        """What may be published of these months, all where none is named. Raises Forbidden, InvalidRequest,
        DependencyUnavailable."""
        query = {"reason": "console", "month": list(months)}
        return _body(self._report(bearer, "/v1/audit/transparency", query))

    def transparency_files(self, bearer: str, months: Sequence[str]) -> bytes:
        """The files to publish, as a ZIP. Raises Forbidden, InvalidRequest, DependencyUnavailable."""
        query = {"reason": "console: to publish", "month": list(months)}
        return self._report(bearer, "/v1/audit/transparency/files", query).content

    def checkpoint(self, bearer: str) -> dict[str, Any]:
        """Raises Forbidden, DependencyUnavailable."""
        return self._of_audit(bearer, "/v1/audit/checkpoint", {})

    def close(self) -> None:
        self._client.close()

    def _of_audit(self, bearer: str, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        self._require_audit()
        return self._asked(bearer, "GET", self._settings.audit_url + path, params=dict(query))

    def _report(self, bearer: str, path: str, query: Mapping[str, Any]) -> httpx.Response:
        """Given up as soon as audit hangs or cannot write: then a report that came all the same would not be given."""
        self._require_audit()
        address = self._settings.audit_url + path
        asked: Future[httpx.Response] = Future()

        def ask() -> None:
            try:
                asked.set_result(self._answered(bearer, "GET", address, params=dict(query), timeout=_REPORT_TIMEOUT_S))
            except LikenessError as error:
                asked.set_exception(error)
            except Exception as error:  # noqa: BLE001 - the border of the thread: whoever waits must hear
                structlog.get_logger().error("report_not_read", exc_info=error)
                asked.set_exception(_unanswered())

        # One that is given up ends by its own timeout, and nobody waits for it, not even the end of the process.
        Thread(target=ask, name="report", daemon=True).start()
        missed = 0
        while missed < _MISSED:
            try:
                return asked.result(_LOOK_EVERY_S)
            except FutureTimeout:
                missed = 0 if self._can_work() else missed + 1
        raise _unanswered()

    def _can_work(self) -> bool:
        try:
            return self._client.get(self._settings.audit_url + "/readyz", timeout=_LOOK_TIMEOUT_S).is_success
        except httpx.HTTPError:
            return False

    def _require_audit(self) -> None:
        """A report may take a minute, a service that answers nothing may not. What it says of itself is left to it:
        where its log cannot be written it refuses by itself."""
        try:
            self._client.get(self._settings.audit_url + "/healthz", timeout=_ALIVE_S)
        except httpx.HTTPError as error:
            raise _unanswered() from error

    def _get(self, bearer: str, base: str, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        return self._asked(bearer, "GET", base + path, params=dict(query))

    def _post(self, bearer: str, base: str, path: str, body: Mapping[str, Any]) -> None:
        self._asked(bearer, "POST", base + path, json=dict(body))

    def _asked(self, bearer: str, method: str, address: str, **content: Any) -> dict[str, Any]:
        return _body(self._answered(bearer, method, address, **content))

    def _answered(self, bearer: str, method: str, address: str, **content: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {bearer}"}
        try:
            answer = self._client.request(method, address, headers=headers, **content)
            if answer.is_success:
                return answer
            body: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise _unanswered() from error
        code, detail, advice = (str(body.get(name, "")) for name in ("code", "detail", "advice"))
        kind = _KINDS.get(answer.status_code, DependencyUnavailable)
        raise error_from_code(code, detail, advice, {}) or kind(detail, advice=advice, code=code)


def _body(answer: httpx.Response) -> dict[str, Any]:
    try:
        body: dict[str, Any] = answer.json()
    except ValueError as error:
        raise _unanswered() from error
    return body


def _unanswered() -> DependencyUnavailable:
    return DependencyUnavailable("The service that keeps this does not answer.", advice="Try again in a few seconds.")
