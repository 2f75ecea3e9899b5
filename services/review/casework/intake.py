"""Requests come in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import orjson

from services.review.casework.caller import Caller
from services.review.casework.forms import Choices, choices, parse_form
from services.review.casework.steps import Casebook, require_role
from services.review.casework.trail import About
from services.review.model import (
    Case,
    CaseRequest,
    CaseState,
    FilmFile,
    KnownAnswer,
    ProbeFace,
    ProbeFile,
    ProbeImage,
)
from services.review.ports import FaceAnalyser, PictureRenderer
from services.review.uploads import FilmUpload
from services.review.workflow import OPERATOR, REQUESTER, SUPERVISOR, TURNAROUND, Action
from services.rpc.v1 import audit_pb2, embed_pb2
from services.shared.biometric import DetectedFace
from services.shared.errors import CallerError, Forbidden, ImageRefused, InvalidRequest
from services.shared.ids import new_id
from services.shared.originals import put_pieces, unscanned
from services.shared.ports.image_store import ImageStore
from services.shared.watchlists import WatchlistFile

SUBMIT = "submit_request"
WORKING_SIDE = 4096
MAX_KEY_CHARS = 200
FILM_PIECE_BYTES = 16 * 1024 * 1024
SUBMITTERS, PLANTERS = (REQUESTER, OPERATOR), (SUPERVISOR,)
_AT_ONCE = 2  # pictures of one request that the gate looks at together


class Pictures:
    """Takes pictures in: looked at by the gate, sealed as received, a working copy beside them."""

    def __init__(self, analyser: FaceAnalyser, renderer: PictureRenderer, store: ImageStore) -> None:
        self._analyser = analyser
        self._renderer = renderer
        self._store = store

    def take_in(self, pictures: Sequence[bytes]) -> tuple[ProbeImage, ...]:
        """Raises ImageRefused with the number of the picture, Overloaded, DependencyUnavailable."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="intake") as threads:
            return tuple(threads.map(self._take_one, range(1, len(pictures) + 1), pictures))

    def seal(self, film: FilmUpload) -> FilmFile:
        """Keep a film as received, in pieces that any image store takes. Raises FilmRefused, DependencyUnavailable."""
        pieces = put_pieces(self._store, lambda: film.pieces(FILM_PIECE_BYTES))
        return FilmFile(new_id(), film.sha256, film.size_bytes, tuple(pieces))

    def _take_one(self, number: int, content: bytes) -> ProbeImage:
        try:
            analysis = self._analyser.analyse(content, embed_pb2.AnalyseRequest.NONE)
            working = self._renderer.render(content, max_side=WORKING_SIDE)
            sha256 = self._store.put(content)
        except ImageRefused as error:
            raise ImageRefused(
                f"Picture {number}: {error.detail}",
                advice=error.advice,
                code=error.code,
                context={"fields": [{"field": "images", "problem": f"Picture {number}: {error.detail}"}]},
            ) from error
        image = analysis.image
        return ProbeImage(
            probe_id=new_id(),
            original=ProbeFile(sha256, len(content), image.format, image.width, image.height, image.frame_count),
            working_sha256=unscanned(self._store).put(working.content),
            working_scale=working.scale,
            working_width=working.width,
            working_height=working.height,
            faces=tuple(probe_face(index, face) for index, face in enumerate(analysis.faces)),
        )


class Intake:
    """Takes requests, refuses incomplete ones with what is missing, lets a requester take one back."""

    def __init__(self, book: Casebook, pictures: Pictures, watchlists: WatchlistFile) -> None:
        self._book = book
        self._pictures = pictures
        self._watchlists = watchlists

    def choices(self, caller: Caller) -> Choices:
        """What a form can offer this caller."""
        return choices(self._watchlists.current(), caller.principal.watchlists)

    def admit(self, caller: Caller, *roles: str) -> None:
        """Before a body of megabytes is read: may this caller send one at all? Raises Forbidden, AuditUnavailable."""
        try:
            require_role(caller, *roles)
        except CallerError as error:
            self._book.trail.refused(caller.principal, SUBMIT, About(), error)
            raise

    def submit(
        self,
        caller: Caller,
        texts: Mapping[str, Sequence[str]],
        pictures: Sequence[bytes],
        idempotency_key: str | None = None,
        film: FilmUpload | None = None,
    ) -> Case:
        """A new case, RECEIVED, its originals sealed. The same key with the same request again gives the same case.

        Raises InvalidRequest (`fields` names all that is wrong), Forbidden, ImageRefused, Conflict
        (`idempotency_key_reused`), AuditUnavailable, DependencyUnavailable.
        """
        return self._submit(caller, texts, pictures, idempotency_key, film=film)

    def plant(
        self,
        caller: Caller,
        texts: Mapping[str, Sequence[str]],
        pictures: Sequence[bytes],
        subject: tuple[str, str] | None,
        shown_requester: str,
    ) -> Case:
        """A known-answer probe, by a supervisor: to everybody else a request like any other, until it is decided.

        `subject` is (owner, subject_id) of who is right, None when nobody enrolled is.
        """
        return self._submit(caller, texts, pictures, None, planted=(subject, shown_requester))

    def withdraw(self, caller: Caller, request_id: str, version: int) -> Case:
        """Taken back by the requesting force before it was searched."""
        with self._book.step(caller, request_id, Action.WITHDRAW, version) as step:
            return step.move()

    def _submit(
        self,
        caller: Caller,
        texts: Mapping[str, Sequence[str]],
        pictures: Sequence[bytes],
        key: str | None,
        *,
        planted: tuple[tuple[str, str] | None, str] | None = None,
        film: FilmUpload | None = None,
    ) -> Case:
        trail = self._book.trail
        try:
            request = self._accept(caller, texts, pictures, key, is_planted=planted is not None, film=film)
        except CallerError as error:
            trail.refused(caller.principal, SUBMIT, About(), error)
            raise
        digests = [hashlib.sha256(picture).hexdigest() for picture in pictures]
        digests += [film.sha256] if film is not None else []
        objects = tuple(f"probe:{digest}" for digest in digests)
        about = About(objects, request.purpose, request.case_reference)
        told = {
            "urgency": request.urgency.value,
            "watchlists": ",".join(request.watchlists),
            "offence": request.offence,
            "source": request.source.value,
            "case_type": request.case_type.value,
        }
        with trail.act(caller.principal, SUBMIT, about, audit_pb2.COLLECTION, told) as act:
            case = self._open(caller, request, self._pictures.take_in(pictures), planted)
            if film is not None:
                case = replace(case, films=(self._pictures.seal(film),))
            act.objects.append(f"request:{case.request_id}")
            if planted is not None:
                act.details["planted"] = "known answer"
            with act.settling() as settles:
                earlier = self._book.store.add(case, key, _fingerprint(request, digests), settles)
            if earlier is None:
                return case
            act.objects[-1] = f"request:{earlier.request_id}"
            return earlier

    def _accept(
        self,
        caller: Caller,
        texts: Mapping[str, Sequence[str]],
        pictures: Sequence[bytes],
        key: str | None,
        *,
        is_planted: bool,
        film: FilmUpload | None,
    ) -> CaseRequest:
        require_role(caller, *(PLANTERS if is_planted else SUBMITTERS))
        if key is not None and not (0 < len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
            raise InvalidRequest(f"Idempotency-Key is 1 to {MAX_KEY_CHARS} printable characters.", advice="Use a UUID.")
        request = parse_form(texts, len(pictures), self._watchlists.current(), has_film=film is not None)
        missing = sorted(set(request.watchlists) - caller.principal.watchlists)
        if missing:
            raise Forbidden(
                f"You may not ask for {', '.join(missing)}.",
                advice="Ask for the watchlists that your token permits, or ask your administrator.",
                context={"reasons": ["watchlist_not_permitted"]},
            )
        return request

    def _open(
        self,
        caller: Caller,
        request: CaseRequest,
        probes: tuple[ProbeImage, ...],
        planted: tuple[tuple[str, str] | None, str] | None,
    ) -> Case:
        now = self._book.clock.now()
        subject, shown = planted or (None, caller.person_id)
        return Case(
            request_id=new_id(),
            number=f"{now.year}-{self._book.store.next_number(caller.force, now.year):05d}",
            force=caller.force,
            state=CaseState.RECEIVED,
            version=1,
            request=request,
            requested_by=shown,
            requested_at=now,
            due_at=now + TURNAROUND[request.urgency],
            updated_at=now,
            probes=probes,
            known_answer=KnownAnswer(caller.person_id, now, subject) if planted is not None else None,
        )


def probe_face(index: int, face: DetectedFace) -> ProbeFace:
    """A face as casework keeps it: never its template."""
    box = face.box
    return ProbeFace(
        index=index,
        box=(_px(box.x), _px(box.y), _px(box.width), _px(box.height)),
        landmarks=tuple((_px(x), _px(y)) for x, y in face.landmarks),
        inter_eye_px=_px(face.inter_eye_px),
        detection_score=round(face.detection_score, 4),
        unified_quality=round(face.quality.unified, 1),
        quality={name: round(value, 1) for name, value in sorted(face.quality.components.items())},
    )


def _px(value: float) -> float:
    """Hundredths of a pixel: more is noise of the detector."""
    return round(float(value), 2)


def _fingerprint(request: CaseRequest, digests: Sequence[str]) -> str:
    """Tells this request with these pictures from any other."""
    return hashlib.sha256(orjson.dumps([request, digests])).hexdigest()
