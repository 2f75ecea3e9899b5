"""The use case: a film is handed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, Protocol

import orjson
import structlog

from services.rpc.v1 import audit_pb2, films_pb2
from services.search.film.ports import FilmStatus, FilmStore, NewFilm
from services.search.film.sealing import seal, sha256_of
from services.search.film.settings import FilmsSettings
from services.search.film.trail import FILM, FilmTrail
from services.search.identification.acceptance import IMAGE_FIELD, Acceptance, Accepted
from services.shared.clock import Clock
from services.shared.errors import (
    AuditUnavailable,
    CallerError,
    Conflict,
    DependencyUnavailable,
    FilmRefused,
    InvalidRequest,
    LikenessError,
    Overloaded,
)
from services.shared.ids import new_id
from services.shared.multipart import Upload
from services.shared.ports.image_store import ImageStore
from services.shared.tokens import Principal

FILM_FIELD = "film"
_DESCRIBE_S = 8.0  # an upload is answered within 10 s of its last byte
_MAX_TEXT_CHARS = 200


class Films(Protocol):
    """What is needed of `services.rpc.clients.FilmsClient`."""

    def read(self, order: films_pb2.FilmOrder, content: Any, *, timeout_s: float) -> Any: ...


class SubmitFilm:
    """Takes a film in. The steps, in the order of their effects:

    1. the request is that of a search: complete, permitted, answerable; a small film is opened, to refuse what is none;
    2. the film is stored as opened, then its audit intent is durable;
    3. its bytes are sealed, and it waits to be read.

    Every film has one terminal audit entry, whatever stops the service.
    """

    def __init__(
        self,
        *,
        settings: FilmsSettings,
        acceptance: Acceptance,
        embed: Films,
        store: FilmStore,
        probes: ImageStore,
        trail: FilmTrail,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._accept = acceptance
        self._embed = embed
        self._store = store
        self._probes = probes
        self._trail = trail
        self._clock = clock

    def __call__(self, principal: Principal, upload: Upload, path: Path, idempotency_key: str | None = None) -> bytes:
        """The film lies at `path`; the JSON of the answer, which is that of the first time where the same person sends
        the same film and form with the same key again. Raises InvalidRequest, FilmRefused, Forbidden, Conflict (the key
        was another request's), GalleryIncomplete, AuditUnavailable, DependencyUnavailable."""
        try:
            accepted = self._accepted(principal, upload, path, idempotency_key)
            film = self._new_film(accepted, upload.texts, path)
            self._look_into(film, path)
            earlier = self._store.open(film)
        except CallerError as error:
            self._refuse(principal, error, upload.texts)
            raise
        if earlier is not None:
            return _handed_in(earlier, earlier.status)
        try:
            self._trail.intend(film, accepted.decision)
            self._store.queue(film.film_id, seal(self._probes, path))
        except LikenessError as error:
            self._fail(film, error)
            raise
        return _handed_in(film, FilmStatus.QUEUED)

    def reject(self, principal: Principal, error: CallerError) -> NoReturn:
        """Record and raise what made an upload unreadable. Raises AuditUnavailable instead when it cannot."""
        self._refuse(principal, error, {})
        raise error

    def _accepted(self, principal: Principal, upload: Upload, path: Path, key: str | None) -> Accepted:
        """As a search is accepted; only the probe is not there yet."""
        if len(upload.files.get(FILM_FIELD, ())) != 1:
            raise _missing(FILM_FIELD, "Required, once.")
        if "face" in upload.texts:
            raise _missing("face", "Tracks are picked once the film has been read.")
        if not path.stat().st_size:
            raise FilmRefused("The film is empty.", code="film_empty", advice="Send the file itself.")
        return self._accept(principal, Upload(upload.texts, {IMAGE_FIELD: (b"film",)}), key)

    def _new_film(self, accepted: Accepted, texts: Mapping[str, Sequence[str]], path: Path) -> NewFilm:
        with path.open("rb") as file:
            sha256 = sha256_of(file)
        return NewFilm(
            film_id=new_id(),
            outcome_entry_id=new_id(),
            principal=accepted.principal,
            texts={name: tuple(values) for name, values in texts.items()},
            case_reference=accepted.request.case_reference,
            purpose=accepted.request.purpose,
            watchlists=accepted.request.watchlists,
            sha256=sha256,
            size_bytes=path.stat().st_size,
            opened_at=accepted.accepted_at,
            idempotency_key=accepted.idempotency_key,
            retain_until=accepted.accepted_at.date() + timedelta(days=self._settings.retain_days),
        )

    def _look_into(self, film: NewFilm, path: Path) -> None:
        """Raises FilmRefused for a small film that is none; the others are refused when they are read."""
        if film.size_bytes > self._settings.describe_bytes:
            return
        order = films_pb2.FilmOrder(sha256=film.sha256, size_bytes=film.size_bytes, task=films_pb2.FilmOrder.DESCRIBE)
        try:
            with path.open("rb") as file:
                for _ in self._embed.read(order, iter(lambda: file.read(1024 * 1024), b""), timeout_s=_DESCRIBE_S):
                    return
        except (DependencyUnavailable, Overloaded) as error:
            structlog.get_logger().info("film_not_looked_into", code=error.code)

    def _fail(self, film: NewFilm, error: LikenessError) -> None:
        """What cannot be stored or recorded now is left to the sweep."""
        problem = {"code": error.code, "detail": error.detail, "advice": error.advice}
        try:
            self._store.stop(film.film_id, FilmStatus.FAILED, problem)
            self._trail.ended(film, audit_pb2.FAILED, error.code)
            self._store.close(film.film_id)
        except (AuditUnavailable, DependencyUnavailable, Conflict) as fault:
            structlog.get_logger().warning("film_left_open", film_id=film.film_id, detail=fault.detail)

    def _refuse(self, principal: Principal, error: CallerError, texts: Mapping[str, Sequence[str]]) -> None:
        about = {
            name: values[0]
            for name in ("purpose", "case_reference")
            if (values := texts.get(name)) and values[0].isprintable() and len(values[0]) <= _MAX_TEXT_CHARS
        }
        self._trail.refused(principal, FILM, error, about)


def _handed_in(film: NewFilm, status: FilmStatus) -> bytes:
    return orjson.dumps({"film_id": film.film_id, "status": status.value, "sha256": film.sha256})


def _missing(field: str, wrong: str) -> InvalidRequest:
    return InvalidRequest(
        f"Missing or invalid: {field}.",
        advice="Correct the named fields; /docs lists every field and its form.",
        context={"fields": [{"field": field, "problem": wrong}]},
    )
