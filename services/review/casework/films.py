"""Films of a request: sealed as received, read by search, and the people in them picked by an operator as probes.

Nobody in a film is searched by being in it. Search finds faces and follows them (docs/films.md); whom an operator picks
becomes a probe of the case, the best frame of the track, whole and lossless, with its number and time named. From there
on it is a probe like any other.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, Any

from services.review.casework.caller import Caller
from services.review.casework.intake import Pictures
from services.review.casework.steps import Casebook, not_found
from services.review.casework.trail import About
from services.review.model import Case, FilmFile, FilmReading, FrameOrigin
from services.review.ports import FilmReader
from services.review.uploads import FilmSettings, spooled
from services.review.workflow import OPERATOR, Action
from services.rpc.v1 import audit_pb2
from services.shared.errors import Conflict, IntegrityError, InvalidRequest
from services.shared.ports.image_store import ImageStore

SEE_FILM = "see_film"
SEALED, DONE = "sealed", "done"
ENDED = frozenset({SEALED, DONE, "refused", "failed", "cancelled"})
MAX_PROBES = 40  # of one case: every one has to be looked at


@dataclass(frozen=True, slots=True)
class ShownStill:
    """A frame of a track. `chip` is a small JPEG of the platform's own making; empty where none was asked for."""

    frame_number: int
    pts: int
    time_s: float
    face: int
    quality: float
    inter_eye_px: float
    sha256: str
    chip: bytes


@dataclass(frozen=True, slots=True)
class ShownTrack:
    """One person of a film as far as the machine can tell; stills best first. `probe_id` once it was picked."""

    track: int
    appearances: tuple[tuple[float, float], ...]
    frames_seen: int
    stills: tuple[ShownStill, ...]
    probe_id: str | None


@dataclass(frozen=True, slots=True)
class FilmView:
    """How far a film is, and who is in it once it is done. `problem`: what hindered it, and what to do."""

    case: Case
    film: FilmFile
    status: str
    share: float
    duration_s: float | None
    frames_looked_at: int
    warnings: tuple[str, ...]
    problem: tuple[str, str] | None
    tracks: tuple[ShownTrack, ...]

    @property
    def is_under_way(self) -> bool:
        return self.status not in ENDED


class Films:
    """Reads films of a case and takes probes out of them."""

    def __init__(
        self, book: Casebook, images: ImageStore, pictures: Pictures, reader: FilmReader, settings: FilmSettings
    ) -> None:
        self._book = book
        self._images = images
        self._pictures = pictures
        self._reader = reader
        self._settings = settings

    def read(self, caller: Caller, request_id: str, version: int, film_id: str) -> Case:
        """Hand a film to search with the operator's own token. What could not be read may be handed in again.

        Raises Conflict (`film_is_read`), Forbidden, FilmRefused, NotFound, and what search answers with.
        """
        with self._book.step(
            caller,
            request_id,
            Action.READ_FILM,
            version,
            operation=audit_pb2.CONSULTATION,
            objects=(f"film:{film_id[:36]}",),
        ) as step:
            film = _film(step.case, film_id)
            if film.reading is not None and self._status(caller, film.reading) not in {"refused", "failed"}:
                raise Conflict("The film is read already.", advice="Look at its tracks.", code="film_is_read")
            with self._unsealed(film) as file:
                reading_id = self._reader.hand_in(caller.bearer, _form(step.case), file, _key(film))
            step.act.details |= {"sha256": film.sha256, "reading": reading_id}
            reading = FilmReading(reading_id, caller.person_id, self._book.clock.now())
            return step.move(films=_with(step.case, replace(film, reading=reading)))

    def see(self, caller: Caller, request_id: str, film_id: str, *, with_chips: bool) -> FilmView:
        """How far it is; who is in it is shown once the look is recorded. Raises NotFound, Forbidden."""
        book = self._book
        with book.refusals(caller, SEE_FILM, request_id):
            case = book.working(caller, request_id, OPERATOR)
            film = _film(case, film_id)
        book.trail.consulted(caller.principal, SEE_FILM, About.case(case, f"film:{film_id}"))
        if film.reading is None:
            return FilmView(case, film, SEALED, 0.0, None, 0, (), None, ())
        document = self._reader.see(caller.bearer, film.reading.reading_id, with_chips=with_chips)
        return _view(case, film, document)

    def pick(self, caller: Caller, request_id: str, version: int, film_id: str, tracks: Sequence[int]) -> Case:
        """Make probes of the picked tracks: the best frame of each, sealed like any original.

        Raises InvalidRequest (no such track, none picked), Conflict (`already_picked`, `too_many_probes`), NotFound.
        """
        with self._book.step(
            caller,
            request_id,
            Action.PICK_FACES,
            version,
            operation=audit_pb2.COLLECTION,
            objects=(f"film:{film_id[:36]}",),
        ) as step:
            film = _film(step.case, film_id)
            if film.reading is None:
                raise Conflict("The film has not been read.", advice="Have it read first.", code="film_not_done")
            shown = _view(step.case, film, self._reader.see(caller.bearer, film.reading.reading_id, with_chips=False))
            picked = _picked(shown, tracks)
            stills = [self._still(caller, film.reading, track.stills[0]) for track in picked]
            taken = self._pictures.take_in(stills)
            probes = tuple(
                replace(probe, frame=_origin(film, track)) for probe, track in zip(taken, picked, strict=True)
            )
            step.act.objects.extend(f"probe:{probe.original.sha256}" for probe in probes)
            step.act.details["tracks"] = ",".join(str(track.track) for track in picked)
            return step.move(probes=(*step.case.probes, *probes))

    def _still(self, caller: Caller, reading: FilmReading, still: ShownStill) -> bytes:
        content = self._reader.still(caller.bearer, reading.reading_id, still.sha256)
        if hashlib.sha256(content).hexdigest() != still.sha256:
            raise IntegrityError("A frame is not what the film's record says.", advice="Tell the operators.")
        return content

    def _status(self, caller: Caller, reading: FilmReading) -> str:
        return str(self._reader.see(caller.bearer, reading.reading_id, with_chips=False)["status"])

    @contextmanager
    def _unsealed(self, film: FilmFile) -> Iterator[IO[bytes]]:
        """The film's bytes in a file without a name, as they were received. Raises IntegrityError."""
        digest = hashlib.sha256()
        with spooled(self._settings) as file:
            for piece in film.pieces:
                content = self._images.get(piece)
                digest.update(content)
                file.write(content)
            if digest.hexdigest() != film.sha256:
                raise IntegrityError("The sealed film is not what was received.", advice="Tell the operators.")
            file.seek(0)
            yield file


def _key(film: FilmFile) -> str:
    """The same until this reading is known: handed in again after a stop, the film is read once, and kept once."""
    return f"{film.film_id}:{film.reading.reading_id if film.reading is not None else 'first'}"


def _form(case: Case) -> Mapping[str, str | list[str]]:
    """The fields of the searches that may come of it."""
    request = case.request
    return {
        "case_reference": request.case_reference,
        "purpose": request.purpose,
        "offence": request.offence,
        "source": request.source.value,
        "nature": request.nature.value,
        "case_type": request.case_type.value,
        "face_chosen_by": request.face_chosen_by,
        "watchlists": list(request.watchlists),
    }


def _view(case: Case, film: FilmFile, document: Mapping[str, Any]) -> FilmView:
    progress, problem = document["progress"], document.get("problem")
    return FilmView(
        case=case,
        film=film,
        status=str(document["status"]),
        share=float(progress["share"]),
        duration_s=document["film"].get("duration_s"),
        frames_looked_at=int(progress["frames_looked_at"]),
        warnings=tuple(str(warning) for warning in document["warnings"]),
        problem=(str(problem["detail"]), str(problem["advice"])) if problem else None,
        tracks=tuple(_track(case, film, track) for track in document["tracks"]),
    )


def _track(case: Case, film: FilmFile, document: Mapping[str, Any]) -> ShownTrack:
    number = int(document["track"])
    frames = [(probe, probe.frame) for probe in case.probes if probe.frame is not None]
    return ShownTrack(
        track=number,
        appearances=tuple((float(one["from_s"]), float(one["until_s"])) for one in document["appearances"]),
        frames_seen=int(document["frames_seen"]),
        stills=tuple(_shown_still(still) for still in document["stills"]),
        probe_id=next(
            (probe.probe_id for probe, frame in frames if (frame.film_id, frame.track) == (film.film_id, number)), None
        ),
    )


def _shown_still(document: Mapping[str, Any]) -> ShownStill:
    chip = str(document.get("chip_jpeg_base64", ""))
    return ShownStill(
        frame_number=int(document["frame_number"]),
        pts=int(document["pts"]),
        time_s=float(document["time_s"]),
        face=int(document["face"]),
        quality=float(document["quality"]),
        inter_eye_px=float(document["inter_eye_px"]),
        sha256=str(document["still_sha256"]),
        chip=base64.b64decode(chip),
    )


def _picked(shown: FilmView, numbers: Sequence[int]) -> list[ShownTrack]:
    by_number = {track.track: track for track in shown.tracks}
    unknown = sorted(set(numbers) - by_number.keys())
    if not numbers or unknown:
        problem = f"No such track: {unknown}." if unknown else "Pick at least one track."
        raise InvalidRequest(
            problem, advice="Pick from the tracks shown.", context={"fields": [{"field": "tracks", "problem": problem}]}
        )
    picked = [by_number[number] for number in dict.fromkeys(numbers)]
    if any(track.probe_id is not None for track in picked):
        raise Conflict("A picked track is a probe already.", advice="Look at the case again.", code="already_picked")
    if len(shown.case.probes) + len(picked) > MAX_PROBES:
        raise Conflict(f"A case has at most {MAX_PROBES} probes.", advice="Pick fewer.", code="too_many_probes")
    return picked


def _origin(film: FilmFile, track: ShownTrack) -> FrameOrigin:
    still = track.stills[0]
    return FrameOrigin(
        film_id=film.film_id,
        film_sha256=film.sha256,
        track=track.track,
        frame_number=still.frame_number,
        pts=still.pts,
        time_s=still.time_s,
        face=still.face,
    )


def _film(case: Case, film_id: str) -> FilmFile:
    found = next((film for film in case.films if film.film_id == film_id), None)
    if found is None or case.erasure is not None:
        raise not_found()
    return found


def _with(case: Case, changed: FilmFile) -> tuple[FilmFile, ...]:
    return tuple(changed if film.film_id == changed.film_id else film for film in case.films)
