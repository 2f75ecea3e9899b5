from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.embed.film.planning import (
    FOLLOW_EVERY_S,
    LONGEST_SEGMENT_S,
    MAX_GAP_S,
    SEGMENT_S,
    FilmIndex,
    first_look,
    follow_up,
    index_of,
    segments,
)


def film(seconds: float, *, fps: int = 25, key_every_s: float = 2.0) -> FilmIndex:
    stamps = np.arange(round(seconds * fps))
    return index_of(stamps, stamps[:: round(fps * key_every_s)], 1 / fps)


def test_key_frames_are_enough_where_they_are_near() -> None:
    index = film(60)
    (first, *_) = segments(index)
    looked = first_look(index, first)
    assert all(stamp % 50 == 0 for stamp in looked)
    assert len(looked) == len(range(first.first, first.end, 50))


def test_frequent_key_frames_are_thinned_to_one_a_second() -> None:
    index = film(20, key_every_s=0.04)
    looked = first_look(index, segments(index)[0])
    assert len(looked) == 20
    assert np.diff(looked).min() >= 25


def test_an_hour_that_is_said_to_pass_in_a_blink_is_looked_at_as_an_hour() -> None:
    """Timestamps of a broken recorder, or of somebody who wants nobody to be seen."""
    stamps = np.arange(3600 * 25)
    index = index_of(stamps, stamps[::50], 1 / 90_000)
    parts = segments(index)
    assert len(parts) >= 100
    assert sum(len(first_look(index, part)) for part in parts) >= 1800
    assert index.time_s(int(stamps[-1])) < 1.1, "times are those of the file"


def test_slow_motion_of_a_phone_is_taken_at_its_word() -> None:
    index = film(10, fps=240)
    assert len(first_look(index, segments(index)[0])) <= 12


def test_rare_key_frames_leave_no_gap() -> None:
    index = film(100, key_every_s=50)
    for segment in segments(index):
        looked = first_look(index, segment)
        gaps = np.diff([segment.first - 1, *looked, segment.end]) * index.unit_s
        assert gaps.max() <= MAX_GAP_S


def test_segments_begin_with_key_frames_and_cover_every_frame_once() -> None:
    index = film(200, key_every_s=7)
    found = segments(index)
    assert [part.first for part in found][1:] == [part.end for part in found][:-1]
    assert (found[0].first, found[-1].end) == (0, len(index.stamps))
    assert all(index.is_key[part.first] for part in found)
    assert all(part.until_s - part.from_s >= SEGMENT_S for part in found[:-1])


def test_a_film_with_one_key_frame_still_has_segments() -> None:
    assert len(segments(film(1000, key_every_s=1000))) == -(-1000 // int(LONGEST_SEGMENT_S))


def test_a_jump_in_time_makes_no_empty_segments() -> None:
    stamps = [*range(100), *range(10**12, 10**12 + 100)]
    index = index_of(stamps, [0, 10**12], 1 / 25)
    assert [(part.first, part.end) for part in segments(index)] == [(0, 100), (100, 200)]


def test_around_a_face_frames_are_near_and_stop_at_frames_without_one() -> None:
    index = film(20)
    (segment,) = segments(index)
    looked = first_look(index, segment)
    followed = follow_up(index, segment, looked, [100])
    assert 50 < min(followed) <= 50 + 5
    assert 150 - 5 <= max(followed) < 150
    assert not set(followed) & set(looked)
    assert np.diff(followed).min() >= round(FOLLOW_EVERY_S * 25) - 5


def test_faces_at_both_ends_are_followed_to_the_ends() -> None:
    index = film(4)
    (segment,) = segments(index)
    followed = follow_up(index, segment, [0, 50], [0, 50])
    assert max(followed) >= 95


def test_without_a_face_nothing_is_followed() -> None:
    index = film(20)
    assert follow_up(index, segments(index)[0], [0, 50], []) == []


def test_of_a_film_of_a_picture_an_hour_each_is_looked_at_and_thirty_make_a_segment() -> None:
    for unit_s, step in ((3600.0, 1), (0.04, 90_000)):
        stamps = [number * step for number in range(90)]
        index = index_of(stamps, stamps, unit_s)
        found = segments(index)
        assert [len(first_look(index, segment)) for segment in found] == [30, 30, 30]
        assert index.time_s(stamps[-1]) == pytest.approx(89 * 3600)


def test_frames_are_numbered_in_order_of_presentation() -> None:
    index = index_of([0, 3, 1, 2, 2], [0], 0.1)
    assert [index.number(stamp) for stamp in (0, 1, 2, 3)] == [0, 1, 2, 3]
    assert index.has(2)
    assert not index.has(4)
    assert index.key_of(3) == 0


@given(
    st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=300),
    st.lists(st.integers(-(2**40), 2**40), max_size=20),
    st.sampled_from([1 / 90000, 1 / 25, 1.0, 10.0, 86_400.0]),
)
def test_whatever_the_timestamps_every_plan_is_of_frames_that_are_there(
    stamps: list[int], keys: list[int], unit_s: float
) -> None:
    index = index_of(stamps, keys, unit_s)
    planned = 0
    for segment in segments(index):
        looked = first_look(index, segment)
        assert looked
        followed = follow_up(index, segment, looked, looked)
        inside = set(index.stamps[segment.first : segment.end].tolist())
        assert set(looked) <= inside
        assert set(followed) <= inside - set(looked)
        planned += len(looked) + len(followed)
    assert planned <= len(index.stamps)
