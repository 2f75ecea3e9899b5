"""Films in search: what is known of one, and the store that keeps it through restarts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from services.rpc.v1 import films_pb2
from services.shared.biometric import Box
from services.shared.tokens import Principal


class FilmStatus(StrEnum):
    """OPENED: not sealed yet. QUEUED and READING: frames are looked at. CHOOSING: tracks and their stills are made.
    CLOSING: all is there but the audit entry. The others are terminal."""

    OPENED = "opened"
    QUEUED = "queued"
    READING = "reading"
    CHOOSING = "choosing"
    CLOSING = "closing"
    DONE = "done"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    FAILED = "failed"
    ERASED = "erased"


WORKABLE = (FilmStatus.QUEUED, FilmStatus.READING, FilmStatus.CHOOSING, FilmStatus.CLOSING)
TERMINAL = (FilmStatus.DONE, FilmStatus.REFUSED, FilmStatus.CANCELLED, FilmStatus.FAILED, FilmStatus.ERASED)


@dataclass(frozen=True, slots=True)
class NewFilm:
    """A film as it stands before anything is done with it. `texts` is the form of the searches that may come of it.

    `outcome_entry_id` is the id of its one terminal audit entry, chosen beforehand, so that writing it twice keeps one.
    """

    film_id: str
    outcome_entry_id: str
    principal: Principal
    texts: Mapping[str, Sequence[str]]
    case_reference: str
    purpose: str
    watchlists: tuple[str, ...]
    sha256: str
    size_bytes: int
    opened_at: datetime
    idempotency_key: str | None
    # None only for films of versions that kept no day.
    retain_until: date | None


@dataclass(frozen=True, slots=True)
class StoredFilm(NewFilm):
    """A film as it was stored. `description` is what embed found it to be, `pieces` the images that hold its bytes;
    of an erased film what is still to be removed."""

    status: FilmStatus
    pieces: tuple[str, ...]
    description: Mapping[str, Any] | None
    segments_read: int
    frames_looked_at: int
    warnings: tuple[str, ...]
    read_s: float
    failures: int
    problem: Mapping[str, Any] | None
    is_closed: bool
    erasure: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """One face in one frame."""

    frame_number: int
    pts: int
    time_s: float
    face: int
    box: Box
    inter_eye_px: float
    quality: float
    vector: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TrackStill:
    """One of the best frames of a track: the still that was cut out of the film, which of its faces, and its chip."""

    frame_number: int
    pts: int
    time_s: float
    face: int
    quality: float
    inter_eye_px: float
    sha256: str
    chip_jpeg: bytes


@dataclass(frozen=True, slots=True)
class FilmTrack:
    """One person as far as the machine can tell. `appearances` are (from_s, until_s), in order; stills best first."""

    track: int
    appearances: tuple[tuple[float, float], ...]
    frames_seen: int
    quality: float
    stills: tuple[TrackStill, ...]


@dataclass(frozen=True, slots=True)
class Pick:
    """A search that somebody made of a track."""

    track: int
    search_id: str
    person_id: str
    picked_at: datetime


@dataclass(frozen=True, slots=True)
class FilmContents:
    """What was found in a film."""

    tracks: Sequence[FilmTrack] = ()
    picks: Sequence[Pick] = field(default=())


class FilmStore(Protocol):
    """Films and what is read of them. Every method is one transaction, durable when it returns; all raise
    DependencyUnavailable when the store cannot be used."""

    def open(self, film: NewFilm) -> StoredFilm | None:
        """Record a film before anything is done with it, or give the one that the same request made before.

        A film that failed gives its key up. Raises Conflict `idempotency_key_reused` where the key was another's.
        """
        ...

    def queue(self, film_id: str, pieces: Sequence[str]) -> None:
        """It is sealed: these images, in order, are its bytes."""
        ...

    def find(self, film_id: str) -> StoredFilm | None:
        """The film as it stands, of any force: whoever asks checks who may see it."""
        ...

    def claim(self, worker: str, now_s: float, until_s: float) -> StoredFilm | None:
        """The oldest film that waits for work and that nobody has claimed beyond now; nobody else gets it till then."""
        ...

    def renew(self, film_id: str, worker: str, until_s: float) -> bool:
        """Keep a claim. False when the film is the worker's no more, or was cancelled: stop working on it."""
        ...

    def release(self, film_id: str, worker: str, *, until_s: float, failures: int) -> None:
        """Let anybody go on with it after `until_s`, and remember how often it failed in a row."""
        ...

    def describe(self, film_id: str, description: Mapping[str, Any], warnings: Sequence[str]) -> None:
        """What embed found the film to be; it is being read."""
        ...

    def add_segment(self, film_id: str, segment: films_pb2.FilmSegment, read_s: float) -> None:
        """Keep what was read; the same segment again changes nothing."""
        ...

    def segments(self, film_id: str) -> Sequence[films_pb2.FilmSegment]:
        """All that was read, in order."""
        ...

    def warn(self, film_id: str, warning: str) -> None:
        """Something that whoever reads the result has to know."""
        ...

    def set_status(self, film_id: str, status: FilmStatus) -> None:
        """Go on to the next stage; a film that was cancelled stays so."""
        ...

    def put_tracks(self, film_id: str, tracks: Sequence[FilmTrack]) -> None:
        """Replace the tracks, and forget the faces of all frames that they were made of; the film is CLOSING."""
        ...

    def contents(self, film_id: str) -> FilmContents:
        """All that was read of it: segments, tracks and who was picked."""
        ...

    def stop(self, film_id: str, status: FilmStatus, problem: Mapping[str, Any]) -> bool:
        """End a film that has not ended, and forget what was read of it. False when it had ended."""
        ...

    def close(self, film_id: str) -> None:
        """Its terminal audit entry is in the log. A film that was CLOSING is DONE."""
        ...

    def unclosed(self, limit: int) -> Sequence[StoredFilm]:
        """Films that have ended or were never sealed, and whose terminal audit entry is not known to be in the log."""
        ...

    def erase(self, film_id: str, erasure: Mapping[str, Any]) -> Sequence[str]:
        """Forget everything of a film that has ended but that it was there and who picked whom. Returns the images to
        remove: its pieces and stills, without those that another film or a search holds. Again: what is left of them.
        """
        ...

    def removed(self, film_id: str) -> None:
        """The images of an erased film are gone."""
        ...

    def listed(self, force: str) -> Sequence[StoredFilm]:
        """The films of a force that are not erased, oldest first; at most 1,000."""
        ...

    def add_pick(self, film_id: str, pick: Pick) -> None:
        """Who picked a track, and which search came of it; the same search again changes nothing."""
        ...
