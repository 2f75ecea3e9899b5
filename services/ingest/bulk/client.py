"""The enrolment API as a bulk load calls it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import httpx

from services.ingest.bulk.manifest import BulkRow
from services.shared.errors import DependencyUnavailable, InvalidRequest, Unauthenticated

_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_PAUSE_S = 0.5
_LAST_PAUSE_S = 5.0
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Image:
    """A row's file, read; `key` names this content under these fields in the journal."""

    row: BulkRow
    key: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of one image: an enrolment, or why it could not be submitted."""

    row: BulkRow
    enrolment_id: str = ""
    key: str = ""
    problem: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    state: str
    reason: str
    detail: str


class EnrolmentClient:
    """Sends batches and looks enrolments up. Waits out a platform that is busy, restarting or away, for `patience_s`
    without a good answer. Safe for several threads."""

    def __init__(self, url: str, token_path: Path, patience_s: float, stop: Event) -> None:
        self._token_path = token_path
        self._patience_s = patience_s
        self._stop = stop
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def submit(self, batch: Sequence[Image]) -> list[Submitted]:
        """One answer an image. Raises Unauthenticated, and DependencyUnavailable when patience is over or stop was
        asked for."""
        answers: dict[int, Submitted] = {}
        waiting = list(batch)
        retries = self._retries()
        while True:
            answers |= self._send(waiting)
            waiting = [image for image in waiting if image.row.line not in answers]
            if not waiting:
                return [answers[image.row.line] for image in batch]
            next(retries)("The platform could not take every image.")

    def _send(self, batch: Sequence[Image]) -> dict[int, Submitted]:
        """Answers by line; an image that was refused for a reason that passes is left out."""
        items = json.dumps([dict(image.row.fields) for image in batch])
        files = [("image", ("image", image.content, "application/octet-stream")) for image in batch]
        answer = self._post("/v1/enrolments/batch", data={"items": items, "source": "cli"}, files=files)
        if answer.status_code != 200:
            problem = _problem(answer)
            return {image.row.line: _refused(image, problem) for image in batch}
        results: list[dict[str, Any]] = answer.json()["results"]
        return {
            image.row.line: _submitted(image, result)
            for image, result in zip(batch, results, strict=True)
            if result["status"] not in _RETRIED
        }

    def look_up(self, enrolment_ids: Sequence[str]) -> Mapping[str, Outcome]:
        """Where these enrolments stand. Raises as `submit` does."""
        answer = self._post("/v1/enrolments/lookup", json={"enrolment_ids": list(enrolment_ids)})
        if answer.status_code != 200:
            raise InvalidRequest(f"The enrolments cannot be looked up: {_problem(answer)['detail']}")
        return {
            item["enrolment_id"]: Outcome(item["state"], item["reason"], item["detail"])
            for item in answer.json()["enrolments"]
        }

    def _post(self, path: str, **body: Any) -> httpx.Response:
        retries = self._retries()
        while True:
            try:
                answer = self._http.post(path, headers={"Authorization": f"Bearer {self._token()}"}, **body)
            except httpx.TransportError as error:
                why = f"{self._http.base_url} does not answer ({type(error).__name__})."
            else:
                if answer.status_code == 401:
                    raise Unauthenticated(
                        str(_problem(answer)["detail"]),
                        advice=f"Put a current custodian's token into {self._token_path}.",
                    )
                if answer.status_code not in _RETRIED:
                    return answer
                why = str(_problem(answer)["detail"])
            next(retries)(why)

    def _retries(self) -> Iterator[Callable[[str], None]]:
        """Pauses before each further try: call one with the reason; it raises when patience is over."""
        gives_up_at_s = monotonic() + self._patience_s
        pause_s = _FIRST_PAUSE_S

        def pause(why: str) -> None:
            if monotonic() + pause_s > gives_up_at_s or self._stop.wait(pause_s):
                raise DependencyUnavailable(why, advice="Start the platform, or wait, and give the same command again.")

        while True:
            yield pause
            pause_s = min(pause_s * 2, _LAST_PAUSE_S)

    def _token(self) -> str:
        # Read each time, so that a token renewed during a long load counts.
        try:
            return self._token_path.read_text("utf-8").strip()
        except OSError as error:
            raise Unauthenticated(
                f"The token file {self._token_path} cannot be read: {error.strerror}.",
                advice="Give --token FILE with a custodian's token; `likeness up` writes DATA/tokens/custodian.token.",
            ) from error


def _submitted(image: Image, result: Mapping[str, Any]) -> Submitted:
    if result["enrolment_id"]:
        return Submitted(image.row, enrolment_id=result["enrolment_id"], key=image.key)
    return _refused(image, result["problem"])


def _refused(image: Image, problem: Mapping[str, Any]) -> Submitted:
    return Submitted(image.row, problem=str(problem["code"]), detail=str(problem["detail"]))


def _problem(answer: httpx.Response) -> Mapping[str, Any]:
    """Its problem+json, or what can be said without one."""
    fallback = {"code": f"http_{answer.status_code}", "detail": f"Status {answer.status_code}."}
    try:
        body = answer.json()
    except ValueError:
        return fallback
    return {**fallback, **body} if isinstance(body, dict) else fallback
