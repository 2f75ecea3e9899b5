"""Several faces of one probe searched in one request: each is a search of its own, recorded and answered alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

import orjson

from services.search.identification.acceptance import part_key
from services.shared.errors import CallerError, InvalidRequest
from services.shared.multipart import Upload
from services.shared.problems import problem_body
from services.shared.tokens import Principal

# A crowd is not a probe: whoever needs more says again why.
MAX_FACES = 8
FACE_FIELD = "face"


class Identification(Protocol):
    """What is needed of `Identify`."""

    def __call__(self, principal: Principal, upload: Upload, idempotency_key: str | None = None) -> bytes: ...

    def reject(self, principal: Principal, error: CallerError) -> NoReturn: ...

    def require_still(self, principal: Principal, document: Mapping[str, Any]) -> None: ...


class SearchFaces:
    """Runs `Identify` once for each face that the caller picked, in the order in which they were named."""

    def __init__(self, identify: Identification) -> None:
        self._identify = identify

    def __call__(self, principal: Principal, upload: Upload, idempotency_key: str | None = None) -> bytes:
        """JSON: for each face its answer, or the problem that the caller can mend.

        A problem that every face has is raised as it is; so is any fault of the platform. Searches that were answered
        before such a fault stand in the record, and are found again by their idempotency keys.
        """
        outcomes: list[dict[str, Any]] = []
        problems: list[CallerError] = []
        faces = self._faces(principal, upload)
        for face in faces:
            key = part_key(idempotency_key, f"face{face}")
            one = Upload(texts={**upload.texts, FACE_FIELD: (face,)}, files=upload.files)
            try:
                answer = self._identify(principal, one, key)
            except CallerError as error:
                problems.append(error)
                outcomes.append({FACE_FIELD: int(face), "answer": None, "problem": _problem(error)})
            else:
                outcomes.append({FACE_FIELD: int(face), "answer": answer, "problem": None})
        if len(problems) == len(faces) and len({error.code for error in problems}) == 1:
            raise problems[0]
        return orjson.dumps({"searches": [self._standing(principal, outcome) for outcome in outcomes]})

    def _standing(self, principal: Principal, outcome: dict[str, Any]) -> dict[str, Any]:
        """The first answers have waited for the last: what ended meanwhile is not given out."""
        if outcome["answer"] is None:
            return outcome
        try:
            self._identify.require_still(principal, orjson.loads(outcome["answer"]))
        except CallerError as error:
            return {**outcome, "answer": None, "problem": _problem(error)}
        return {**outcome, "answer": orjson.Fragment(outcome["answer"])}

    def _faces(self, principal: Principal, upload: Upload) -> tuple[str, ...]:
        try:
            return picked_faces(upload)
        except InvalidRequest as error:
            self._identify.reject(principal, error)


def picked_faces(upload: Upload) -> tuple[str, ...]:
    """Each picked face once. Raises InvalidRequest."""
    values = tuple(dict.fromkeys(value.strip() for value in upload.texts.get(FACE_FIELD, ())))
    are_numbers = all(value.isascii() and value.isdigit() and len(value) <= 4 for value in values)
    if not 1 <= len(values) <= MAX_FACES or not are_numbers:
        wrong = f"Repeat it for each face to search, 1 to {MAX_FACES} of them."
        raise InvalidRequest(
            f"Missing or invalid: {FACE_FIELD}.",
            advice="Send the probe to /v1/searches without `face` to see its faces, then name the ones to search.",
            context={"fields": [{"field": FACE_FIELD, "problem": wrong}]},
        )
    return values


def _problem(error: CallerError) -> dict[str, Any]:
    return problem_body(error.code, error.http_status, error.detail, error.advice, error.context)
