"""People in films made of vectors: who is who is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from services.search.film.ports import Sighting
from services.search.film.tracking import (
    MAX_TRACKS,
    MERGE,
    STILLS,
    best_frames,
    find_tracks,
    intersection_over_union,
)
from services.shared.biometric import Box

RANDOM = np.random.default_rng(7)
PEOPLE = {
    name: vector / np.linalg.norm(vector)
    for name, vector in zip("abcdefgh", RANDOM.standard_normal((8, 128)), strict=True)
}


def seen(
    who: str, time_s: float, x: float = 0.0, *, face: int = 0, quality: float = 70.0, blur: float = 0.5
) -> Sighting:
    """A sighting whose template is the person's with some noise: about 0.8 alike from frame to frame."""
    noise = RANDOM.standard_normal(128)
    vector = PEOPLE[who] + blur * noise / np.linalg.norm(noise)
    return Sighting(
        frame_number=round(time_s * 25),
        pts=round(time_s * 1000),
        time_s=time_s,
        face=face,
        box=Box(x, 10.0, 50.0, 60.0),
        inter_eye_px=25.0,
        quality=quality,
        vector=(vector / np.linalg.norm(vector)).astype(np.float32),
    )


def walk(
    who: str, start_s: float, seconds: float, x: float = 0.0, *, face: int = 0, quality: float = 70
) -> list[Sighting]:
    """Five sightings a second, walking to the right."""
    return [seen(who, start_s + n / 5, x + 4 * n, face=face, quality=quality) for n in range(round(seconds * 5))]


def people_of(sightings: Iterable[Sighting]) -> set[str]:
    return {max(PEOPLE, key=lambda name: float(PEOPLE[name] @ sighting.vector)) for sighting in sightings}


def spans(track_appearances: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(round(start, 1), round(end, 1)) for start, end in track_appearances]


def test_two_people_who_cross_stay_two() -> None:
    left = walk("a", 0, 4)
    right = [seen("b", n / 5, 80 - 4 * n, face=1) for n in range(20)]
    tracks = find_tracks(left + right).tracks
    assert [people_of(track.sightings) for track in tracks] == [{"a"}, {"b"}]
    assert [len(track.sightings) for track in tracks] == [20, 20]


def test_the_next_person_in_the_same_place_is_another() -> None:
    """A conversation cut from face to face: place says nothing across a cut."""
    shots = [walk("ab"[n % 2], 3 * n, 3, 100.0) for n in range(6)]
    tracks = find_tracks([sighting for shot in shots for sighting in shot]).tracks
    assert [people_of(track.sightings) for track in tracks] == [{"a"}, {"b"}]
    assert spans(tracks[0].appearances) == [(0.0, 2.8), (6.0, 8.8), (12.0, 14.8)]


def test_who_comes_back_after_minutes_elsewhere_is_one_track() -> None:
    tracks = find_tracks(walk("c", 0, 3) + walk("c", 300, 3, 400) + walk("d", 100, 3)).tracks
    assert [people_of(track.sightings) for track in tracks] == [{"c"}, {"d"}]
    assert spans(tracks[0].appearances) == [(0.0, 2.8), (300.0, 302.8)]


def test_twins_in_one_frame_are_never_one() -> None:
    tracks = find_tracks(walk("a", 0, 3, 0) + walk("a", 0, 3, 300, face=1)).tracks
    assert len(tracks) == 2
    for track in tracks:
        numbers = [sighting.frame_number for sighting in track.sightings]
        assert len(numbers) == len(set(numbers))


def test_a_head_that_was_found_twice_is_one_track() -> None:
    askew = [
        replace(seen("b", n / 5, 10 + 4 * n, face=1, quality=3), box=Box(10 + 4 * n, 0, 60, 60)) for n in range(15)
    ]
    tracks = find_tracks(walk("a", 0, 3) + askew).tracks
    assert [people_of(track.sightings) for track in tracks] == [{"a"}]


def test_a_turned_head_is_followed_by_its_place() -> None:
    """Seen from the side a face may look like nobody; a frame before and after it is in the same place."""
    track = walk("a", 0, 2)
    side = PEOPLE["a"] * 0.2 + PEOPLE["h"] * 0.3 + PEOPLE["g"] * 0.93
    turned = seen("a", 2.0, 40.0)
    odd = replace(turned, vector=(side / np.linalg.norm(side)).astype(np.float32))
    tracks = find_tracks([*track, odd, *walk("a", 2.2, 1, 44)]).tracks
    assert [len(found.sightings) for found in tracks] == [16]


def test_dark_faces_that_look_alike_are_not_made_one() -> None:
    """0.6 alike would do for fair faces; not for poor ones."""
    dark = {name: PEOPLE["e"] + 0.75 * PEOPLE[name] for name in "fg"}
    made = []
    for name, start_s in (("f", 0.0), ("g", 20.0)):
        for sighting in walk("e", start_s, 2, quality=12):
            vector = dark[name] + 0.6 * (sighting.vector - PEOPLE["e"])
            made.append(replace(sighting, vector=(vector / np.linalg.norm(vector)).astype(np.float32)))
    assert len(find_tracks(made).tracks) == 2
    fair = [replace(sighting, quality=80.0) for sighting in made]
    assert len(find_tracks(fair).tracks) == 1


def test_the_best_frames_are_good_apart_and_of_one_person() -> None:
    sightings = [
        *(seen("a", n / 5, quality=60 + n) for n in range(20)),
        seen("b", 10, quality=75),  # a wrong link
        seen("a", 11, quality=20),
    ]
    best = best_frames(sightings)
    assert len(best) == STILLS
    assert best[0].quality == 79
    assert people_of(best) == {"a"}
    assert min(one.quality for one in best) >= 79 / 2
    times = sorted(one.time_s for one in best)
    assert np.diff(times).min() >= 0.35


def test_what_cannot_be_searched_and_what_is_too_much_is_counted() -> None:
    poor = [seen("a", 0.0, quality=1.0)]
    assert find_tracks(poor).left_out == 1
    strangers = RANDOM.standard_normal((MAX_TRACKS + 40, 128))
    crowd = []
    for n, vector in enumerate(strangers):
        sighting = seen("a", n * 5.0, quality=50)
        crowd.append(replace(sighting, vector=(vector / np.linalg.norm(vector)).astype(np.float32)))
    tracking = find_tracks(crowd)
    assert len(tracking.tracks) == MAX_TRACKS
    assert tracking.left_out == 40


def test_nothing_seen_is_no_track() -> None:
    assert find_tracks([]).tracks == ()


def test_the_same_sightings_give_the_same_tracks() -> None:
    sightings = walk("a", 0, 3) + walk("b", 1, 3, 200, face=1) + walk("a", 30, 2)
    once, again = find_tracks(sightings), find_tracks(list(reversed(sightings)))
    assert [track.sightings for track in once.tracks] == [track.sightings for track in again.tracks]
    assert [track.best for track in once.tracks] == [track.best for track in again.tracks]


def test_boxes_overlap_as_they_should() -> None:
    assert intersection_over_union(Box(0, 0, 10, 10), Box(0, 0, 10, 10)) == 1
    assert intersection_over_union(Box(0, 0, 10, 10), Box(5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert intersection_over_union(Box(0, 0, 10, 10), Box(10, 0, 10, 10)) == 0
    assert MERGE > 0
