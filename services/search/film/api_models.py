"""The answers about films as OpenAPI describes them. Answers are made in view.py; a test holds the two together."""

from __future__ import annotations

import copy
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.search.api_models import SEARCH_FORM, SearchAnswer
from services.search.film.picks import MAX_PICKS
from services.search.identification.requests import MAX_TEXT_CHARS

Status = Literal[
    "opened", "queued", "reading", "choosing", "closing", "done", "refused", "cancelled", "failed", "erased"
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FilmAccepted(_Strict):
    """The film is sealed and waits to be read."""

    film_id: str
    status: Status
    sha256: str


class FilmCancelled(_Strict):
    film_id: str
    status: Status


class FilmInfo(_Strict):
    """What the film is by its content; only digest and size until it has been opened."""

    sha256: str
    size_bytes: int
    container: str | None = None
    codec: str | None = None
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    frame_count: int | None = None
    key_frame_count: int | None = None


class FilmProgress(_Strict):
    segments: int | None
    segments_read: int
    share: float
    frames_looked_at: int
    read_s: float


class Appearance(_Strict):
    from_s: float
    until_s: float


class FilmStill(_Strict):
    """A frame that can be found again: its number from 0 in order of presentation, and its timestamp."""

    frame_number: int
    pts: int
    time_s: float
    face: int
    quality: float
    inter_eye_px: float
    still_sha256: str
    chip_jpeg_base64: str | None = None


class Track(_Strict):
    """One person as far as the machine can tell: a person can be several tracks, and must not be judged by one."""

    track: int
    appearances: list[Appearance]
    frames_seen: int
    quality: float
    stills: list[FilmStill]


class PickedTrack(_Strict):
    track: int
    search_id: str
    picked_by: str
    picked_at: str


class FilmErasure(_Strict):
    """Who erased the film, when and why."""

    erased_by: str
    erased_at: str
    reason: str


class FilmErased(_Strict):
    """`removed`: images of the store; what was searched stays with its searches."""

    film_id: str
    status: Status
    removed: int


class ErasureReason(_Strict):
    reason: str = Field(min_length=1, max_length=MAX_TEXT_CHARS)


class ListedFilm(_Strict):
    """A film without anybody in it."""

    film_id: str
    status: Status
    case_reference: str
    sha256: str
    size_bytes: int
    opened_at: str
    opened_by: str
    retain_until: str | None
    is_due: bool = Field(description="Its day has come. One of which nobody was searched may go before.")


class ListedFilms(_Strict):
    films: list[ListedFilm]


class FilmAnswer(_Strict):
    """A film: how far it has been read, and once it is done its tracks and who searched them."""

    film_id: str
    status: Status
    opened_at: str
    opened_by: str
    request: dict[str, str | list[str]]
    film: FilmInfo
    progress: FilmProgress
    is_whole: bool = Field(description="False where something was not read or not listed; `warnings` say what.")
    warnings: list[str]
    model: dict[str, Any] | None
    tracks: list[Track]
    searches: list[PickedTrack]
    retain_until: str | None = Field(description="The day from which it may be erased, where people were searched.")
    erasure: FilmErasure | None
    problem: dict[str, Any] | None


class TrackChoice(_Strict):
    """The tracks to search, one search each."""

    tracks: list[int] = Field(min_length=1, max_length=MAX_PICKS)


class TrackSearch(_Strict):
    """One search: an answer as of any search, or why there is none. `unavailable`: the platform was too busy, or a part
    of it away, for as long as the request tried; ask for this track again."""

    track: int
    status: Literal["done", "refused", "unavailable"]
    answer: SearchAnswer | None
    problem: dict[str, Any] | None


class TrackSearches(_Strict):
    film_id: str
    searches: list[TrackSearch]


def _film_form() -> dict[str, Any]:
    form = copy.deepcopy(SEARCH_FORM)
    content = form["content"]["multipart/form-data"]
    schema = content["schema"]
    properties = {name: value for name, value in schema["properties"].items() if name not in {"image", "face"}}
    film = {"type": "string", "format": "binary", "description": "MP4, MOV, MKV, WebM, AVI, FLV, MPEG or MPEG-TS."}
    schema["properties"] = {"film": film, **properties}
    schema["required"] = ["film", *(name for name in schema["required"] if name != "image")]
    content["example"] = {
        "film": "(file)",
        **{name: value for name, value in content["example"].items() if name not in {"image", "face"}},
    }
    return form


FILM_FORM = _film_form()
