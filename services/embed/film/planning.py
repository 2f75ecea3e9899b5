"""Which frames of a film are looked at. Pure functions on the list of its timestamps.

First look: about one frame a second. A key frame can be decoded alone, so those are taken where they are near enough;
where they are further apart than MAX_GAP_S, the frames between are decoded as well, because a person walks past a
camera in two seconds. Then, around every frame with a face, frames close enough to follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Stamps = npt.NDArray[np.int64]

LOOK_EVERY_S = 1.0
MAX_GAP_S = 2.0
FOLLOW_EVERY_S = 0.2
SEGMENT_S = 30.0
# A segment begins with a key frame, so that none is decoded from further back; where those are rarer, anywhere.
LONGEST_SEGMENT_S = 300.0
_SLACK = 1e-6
# No camera is that fast: such timestamps are broken, or made to have an hour pass in the blink of an eye. Frames are
# then chosen as if they came at an ordinary rate.
_FASTEST_PER_S = 500.0
_ORDINARY_PER_S = 25.0
# A camera that takes a picture every ten seconds or less often makes a row of stills: each is looked at, as if they
# came one a second, so that hours between them do not make a segment of each.
_STILLS_APART_S = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class FilmIndex:
    """Timestamps of all frames in order of presentation, in units of `unit_s` seconds, and which are key frames.

    `pace_s`: the seconds of a unit by which frames are chosen; those of the file unless they cannot be.
    """

    stamps: Stamps
    is_key: npt.NDArray[np.bool_]
    unit_s: float
    pace_s: float

    @property
    def first(self) -> int:
        return int(self.stamps[0])

    def time_s(self, stamp: int) -> float:
        """Seconds from the first frame."""
        return (stamp - self.first) * self.unit_s

    def number(self, stamp: int) -> int:
        """Of the frame with this timestamp, from 0."""
        return int(np.searchsorted(self.stamps, stamp))

    def has(self, stamp: int) -> bool:
        at = self.number(stamp)
        return at < len(self.stamps) and int(self.stamps[at]) == stamp

    @property
    def keys(self) -> Stamps:
        return self.stamps[self.is_key]

    def key_of(self, stamp: int) -> int:
        """The key frame from which this frame can be decoded; the first frame where there is none before it."""
        at = int(np.searchsorted(self.keys, stamp, side="right")) - 1
        return int(self.keys[at]) if at >= 0 else self.first


def index_of(stamps: Sequence[int] | Stamps, keys: Sequence[int] | Stamps, unit_s: float) -> FilmIndex:
    """From timestamps in any order, with repetitions."""
    ordered = np.unique(np.asarray(stamps, np.int64))
    return FilmIndex(ordered, np.isin(ordered, np.asarray(keys, np.int64)), unit_s, _pace(ordered, unit_s))


def _pace(stamps: Stamps, unit_s: float) -> float:
    step = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0
    if 0 < step * unit_s < 1 / _FASTEST_PER_S:
        return 1 / (_ORDINARY_PER_S * step)
    return LOOK_EVERY_S / step if step * unit_s >= _STILLS_APART_S else unit_s


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of frames that is read and stored as one: numbers `first` to before `end`."""

    first: int
    end: int
    from_s: float
    until_s: float


def segments(index: FilmIndex) -> list[Segment]:
    """Of about SEGMENT_S each; empty time between timestamps that jump makes none."""
    times = (index.stamps - index.first) * index.unit_s
    paces = (index.stamps - index.first) * index.pace_s
    bounds = [0]
    for at in range(1, len(times)):
        lasted = float(paces[at] - paces[bounds[-1]])
        if (lasted >= SEGMENT_S and index.is_key[at]) or lasted >= LONGEST_SEGMENT_S:
            bounds.append(at)
    bounds.append(len(times))
    return [Segment(first, end, float(times[first]), float(times[end - 1])) for first, end in pairwise(bounds)]


def first_look(index: FilmIndex, segment: Segment) -> list[int]:
    """Timestamps, in order."""
    stamps = index.stamps[segment.first : segment.end]
    keys = _spaced(stamps[index.is_key[segment.first : segment.end]], LOOK_EVERY_S / index.pace_s)
    chosen = list(keys)
    edges = [int(stamps[0]) - 1, *keys, int(stamps[-1]) + 1]
    for left, right in pairwise(edges):
        if (right - left) * index.pace_s > MAX_GAP_S:
            between = stamps[(stamps > left) & (stamps < right)]
            chosen += _spaced(between, LOOK_EVERY_S / index.pace_s, after=left)
    if not keys and not chosen:
        chosen = [int(stamps[0])]
    return sorted(set(chosen))


def follow_up(index: FilmIndex, segment: Segment, looked: Sequence[int], with_face: Sequence[int]) -> list[int]:
    """Timestamps around those with a face, up to the frames without one on both sides; none that was looked at."""
    stamps = index.stamps[segment.first : segment.end]
    known = np.asarray(looked, np.int64)
    chosen: set[int] = set()
    for stamp in with_face:
        at = int(np.searchsorted(known, stamp))
        left = int(known[at - 1]) if at > 0 else int(stamps[0]) - 1
        right = int(known[at + 1]) if at + 1 < len(known) else int(stamps[-1]) + 1
        step = FOLLOW_EVERY_S / index.pace_s
        chosen |= set(_spaced(stamps[(stamps > left) & (stamps < stamp)], step, after=left))
        chosen |= set(_spaced(stamps[(stamps > stamp) & (stamps < right)], step, after=stamp))
    return sorted(chosen - set(looked))


def _spaced(stamps: Stamps, step: float, after: int | None = None) -> list[int]:
    """Greedily those that are at least `step` units after the one before."""
    chosen: list[int] = []
    last = -np.inf if after is None else float(after)
    for stamp in stamps.tolist():
        if stamp - last >= step - _SLACK:
            chosen.append(stamp)
            last = stamp
    return chosen


def describe_segments(found: Sequence[Segment]) -> list[list[Any]]:
    return [[segment.first, segment.end, segment.from_s, segment.until_s] for segment in found]
