"""Between what embed says about a film and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.rpc.convert import template_from_message
from services.rpc.v1 import embed_pb2, films_pb2
from services.search.film.ports import FilmTrack, Sighting, TrackStill
from services.search.film.tracking import FoundTrack, Tracking, intersection_over_union
from services.shared.biometric import Box

_SAME_PLACE = 0.5  # of a face that is found again in the frame that was cut out


@dataclass(frozen=True, slots=True)
class CutStill:
    """A frame that was cut out and looked at anew: what was found in it, and the image that holds it."""

    still: films_pb2.FilmStill
    sha256: str


def sightings_of(segments: Iterable[films_pb2.FilmSegment]) -> Iterator[Sighting]:
    """Faces that have a template, in order of time."""
    for segment in segments:
        for frame in segment.frames:
            for index, face in enumerate(frame.faces):
                if face.HasField("template"):
                    yield Sighting(
                        frame_number=frame.number,
                        pts=frame.pts,
                        time_s=frame.time_s,
                        face=index,
                        box=_box(face),
                        inter_eye_px=face.inter_eye_px,
                        quality=face.quality.unified,
                        vector=template_from_message(face.template).vector,
                    )


def wished_stills(tracking: Tracking) -> list[films_pb2.StillWish]:
    """Every best frame once, in order of time."""
    stamps = sorted({sighting.pts for track in tracking.tracks for sighting in track.best})
    return [films_pb2.StillWish(pts=stamp, with_picture=True) for stamp in stamps]


def found_tracks(tracking: Tracking, stills: Sequence[CutStill]) -> list[FilmTrack]:
    """Tracks with the stills that show their face again; one of which none could be cut out is left out."""
    by_stamp = {cut.still.frame.pts: cut for cut in stills}
    tracks: list[FilmTrack] = []
    for found in tracking.tracks:
        cut = tuple(still for sighting in found.best if (still := _cut(sighting, by_stamp)) is not None)
        if cut:
            tracks.append(_track(len(tracks), found, cut))
    return tracks


def _track(number: int, found: FoundTrack, stills: tuple[TrackStill, ...]) -> FilmTrack:
    frames = {sighting.frame_number for sighting in found.sightings}
    return FilmTrack(number, found.appearances, len(frames), stills[0].quality, stills)


def _cut(sighting: Sighting, by_stamp: Mapping[int, CutStill]) -> TrackStill | None:
    cut = by_stamp.get(sighting.pts)
    if cut is None:
        return None
    still = cut.still
    places = [intersection_over_union(sighting.box, _box(face)) for face in still.frame.faces]
    if not places or max(places) < _SAME_PLACE:
        return None
    index = places.index(max(places))
    face = still.frame.faces[index]
    return TrackStill(
        frame_number=still.frame.number,
        pts=still.frame.pts,
        time_s=still.frame.time_s,
        face=index,
        quality=face.quality.unified,
        inter_eye_px=face.inter_eye_px,
        sha256=cut.sha256,
        chip_jpeg=still.chips[index],
    )


def _box(face: embed_pb2.Face) -> Box:
    return Box(face.box.x, face.box.y, face.box.width, face.box.height)
