"""From faces in frames to people in a film. Pure functions: the same faces give the same tracks.

1. Faces of one frame are assigned to tracklets that are still open, all at once, so that the sum of what speaks for the
   pairs is greatest. A face may go where it overlaps what was there a moment ago and does not look like somebody else,
   or where it looks the same. Looks alone are asked across a cut, and place alone never is: in a conversation cut from
   face to face the next person sits where the last one sat.
2. Tracklets that look the same become one track, the most alike first, as long as no frame shows both: nobody is in
   one frame twice.
3. The best frames of a track are those of best quality that add something: apart in time, in pose or in light; and
   each must look like the very best one, so that what is searched is one person even where a track is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from services.search.film.ports import Sighting
from services.shared.biometric import Box

Vectors = npt.NDArray[np.float32]

# Cosines of templates. Of 26,733 pairs of different people among the development faces none reaches SAME, of 134 pairs
# of one person in different pictures all but one do; under OTHER there is none of one person.
SAME = 0.42
OTHER = 0.1
NEAR_S = 0.75  # within which a face may be followed by its place
OPEN_S = 2.5  # after which a tracklet is closed
OVERLAP = 0.25
TWICE = 0.3  # overlap within one frame, as in the detector's own suppression
# Tracklets are compared by their means, which tell people apart better than single frames.
MERGE = 0.45
# Dark and blurred faces look like each other more than like themselves: the poorer the worse of two is, the more alike
# they have to be; from FAIR on they need nothing more.
FAIR = 40.0
_POOR_NEEDS = 0.4
MAX_TRACKLETS = 2_500
MAX_TRACKS = 200
STILLS = 4
_STILL_APART_S = 0.35
_SEARCHABLE_QUALITY = 5.0
_RECENT = 5
_NEVER = -9.0


@dataclass(slots=True)
class Tracklet:
    """Sightings of one face without a longer break, in order of time."""

    sightings: list[Sighting] = field(default_factory=list)

    @property
    def last(self) -> Sighting:
        return self.sightings[-1]

    def look(self) -> Vectors:
        """The recent look, as a unit vector."""
        return _unit(np.sum([sighting.vector for sighting in self.sightings[-_RECENT:]], axis=0))


@dataclass(frozen=True, slots=True, eq=False)
class FoundTrack:
    """One person as far as can be told. `best` are the frames to cut out, the best first."""

    sightings: tuple[Sighting, ...]
    best: tuple[Sighting, ...]
    appearances: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Tracking:
    """`left_out`: tracks that are not listed, because no frame is fit to be searched or there are too many."""

    tracks: tuple[FoundTrack, ...]
    left_out: int


def find_tracks(sightings: Iterable[Sighting]) -> Tracking:
    """Tracks in order of their first appearance."""
    tracklets = follow(sightings)
    if len(tracklets) > MAX_TRACKLETS:
        tracklets = sorted(tracklets, key=_worth, reverse=True)[:MAX_TRACKLETS]
    found = [_track(group) for group in merge(tracklets)]
    fit = [track for track in found if track.best[0].quality >= _SEARCHABLE_QUALITY]
    kept = sorted(fit, key=lambda track: -track.best[0].quality * len(track.sightings) ** 0.25)[:MAX_TRACKS]
    ordered = sorted(kept, key=lambda track: (track.sightings[0].time_s, track.sightings[0].face))
    return Tracking(tuple(ordered), len(found) - len(kept))


def follow(sightings: Iterable[Sighting]) -> list[Tracklet]:
    """Step 1."""
    open_now: list[Tracklet] = []
    closed: list[Tracklet] = []
    in_order = sorted(sightings, key=lambda sighting: (sighting.time_s, sighting.face))
    for time_s, frame in groupby(in_order, key=lambda sighting: sighting.time_s):
        faces = distinct(list(frame))
        closed += [tracklet for tracklet in open_now if time_s - tracklet.last.time_s > OPEN_S]
        open_now = [tracklet for tracklet in open_now if time_s - tracklet.last.time_s <= OPEN_S]
        taken = _assign(open_now, faces)
        for row, column in taken:
            open_now[row].sightings.append(faces[column])
        assigned = {column for _, column in taken}
        open_now += [Tracklet([face]) for column, face in enumerate(faces) if column not in assigned]
    return closed + open_now


def distinct(faces: Sequence[Sighting]) -> list[Sighting]:
    """Without those that lie over one twice as good: a head found a second time, askew. Two heads that cross stay."""
    return [
        face
        for face in faces
        if all(
            face.quality >= other.quality / 2 or intersection_over_union(face.box, other.box) < TWICE for other in faces
        )
    ]


def _assign(tracklets: Sequence[Tracklet], faces: Sequence[Sighting]) -> list[tuple[int, int]]:
    if not tracklets or not faces:
        return []
    alike = np.stack([tracklet.look() for tracklet in tracklets]) @ np.stack([face.vector for face in faces]).T
    placed = np.array([[_overlap(tracklet.last, face) for face in faces] for tracklet in tracklets])
    needed = SAME + _needs([tracklet.last.quality for tracklet in tracklets], [face.quality for face in faces])
    may = (alike >= needed) | ((placed >= OVERLAP) & (alike >= OTHER))
    worth = np.where(may, alike + placed + 1.0, 0.0)
    rows, columns = linear_sum_assignment(-worth)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if may[row, column]]


def _needs(one: npt.ArrayLike, other: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """How much more alike than fair faces each pair has to be."""
    worse = np.minimum(np.asarray(one)[:, None], np.asarray(other)[None, :])
    needed: npt.NDArray[np.float64] = _POOR_NEEDS * np.clip(1 - worse / FAIR, 0, 1)
    return needed


def _overlap(last: Sighting, face: Sighting) -> float:
    """Intersection over union of the boxes, 0 where too much time lies between."""
    if face.time_s - last.time_s > NEAR_S:
        return 0.0
    return intersection_over_union(last.box, face.box)


def intersection_over_union(one: Box, other: Box) -> float:
    across = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    down = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    if across <= 0 or down <= 0:
        return 0.0
    shared = across * down
    return shared / (one.width * one.height + other.width * other.height - shared)


def merge(tracklets: Sequence[Tracklet]) -> list[list[Tracklet]]:
    """Step 2: the most alike pair first, until none is alike enough."""
    groups = [[tracklet] for tracklet in tracklets]
    if len(groups) < 2:
        return groups
    sums = np.stack([_weighted_sum(tracklet) for tracklet in tracklets])
    frames = [{sighting.frame_number for sighting in tracklet.sightings} for tracklet in tracklets]
    looks = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    best = np.array([_worth(tracklet) for tracklet in tracklets])
    alike = looks @ looks.T - _needs(best, best)
    np.fill_diagonal(alike, _NEVER)
    while True:
        one, other = (int(at) for at in np.unravel_index(np.argmax(alike), alike.shape))
        if alike[one, other] < MERGE:
            return [group for group in groups if group]
        if frames[one] & frames[other]:
            alike[one, other] = alike[other, one] = _NEVER
            continue
        forbidden = (alike[one] == _NEVER) | (alike[other] == _NEVER)
        groups[one] += groups[other]
        groups[other] = []
        frames[one] |= frames[other]
        sums[one] += sums[other]
        looks[one] = _unit(sums[one])
        best[one] = max(best[one], best[other])
        row = np.where(forbidden, _NEVER, looks @ looks[one] - _needs(best, best[[one]])[:, 0])
        alike[one], alike[:, one] = row, row
        alike[other] = alike[:, other] = _NEVER


def _weighted_sum(tracklet: Tracklet) -> Vectors:
    """Better sightings count for more, and none for nothing."""
    weights = np.array([1.0 + sighting.quality for sighting in tracklet.sightings])
    vectors = np.stack([sighting.vector for sighting in tracklet.sightings])
    return (weights[:, None] * vectors).sum(axis=0).astype(np.float32)  # type: ignore[no-any-return]


def _track(tracklets: Sequence[Tracklet]) -> FoundTrack:
    sightings = sorted((one for tracklet in tracklets for one in tracklet.sightings), key=lambda one: one.time_s)
    spans = sorted((tracklet.sightings[0].time_s, tracklet.last.time_s) for tracklet in tracklets)
    return FoundTrack(tuple(sightings), best_frames(sightings), _joined(spans))


def best_frames(sightings: Sequence[Sighting]) -> tuple[Sighting, ...]:
    """Step 3: greedily by quality, less by how much a frame repeats one that was taken."""
    by_quality = sorted(sightings, key=lambda one: (-one.quality, one.time_s))
    taken = [by_quality[0]]
    good_enough = by_quality[0].quality * 0.5
    rest = [one for one in by_quality[1:] if one.quality >= good_enough and _cosine(one, taken[0]) >= SAME]
    while rest and len(taken) < STILLS:
        fresh = [one for one in rest if all(abs(one.time_s - other.time_s) >= _STILL_APART_S for other in taken)]
        if not fresh:
            break
        chosen = max(fresh, key=lambda one: one.quality * (1.5 - max(_cosine(one, other) for other in taken)))
        taken.append(chosen)
        rest.remove(chosen)
    return tuple(taken)


def _joined(spans: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    joined: list[tuple[float, float]] = []
    for start, end in spans:
        if joined and start - joined[-1][1] <= OPEN_S:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def _worth(tracklet: Tracklet) -> float:
    return max(sighting.quality for sighting in tracklet.sightings)


def _cosine(one: Sighting, other: Sighting) -> float:
    return float(one.vector @ other.vector)


def _unit(vector: Vectors) -> Vectors:
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
