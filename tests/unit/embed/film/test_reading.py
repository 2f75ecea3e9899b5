"""The reader on films made here, in this process: which frame comes out is told by its grey."""

from __future__ import annotations

import gc
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from av.packet import Packet
from av.video.stream import VideoStream

from services.embed.film.limits import FilmLimits, Refused
from services.embed.film.pixels import orientation_of, write_frame
from services.embed.film.reading import FilmReader
from services.embed.film.worker import FilmService
from services.embed.workers.arena import Arena
from tests.support.films import grey_picture, make_film, make_sound, number_of

LIMITS = FilmLimits(max_pixels=1_000_000, max_frames=10_000, index_cpu_s=5, frame_cpu_s=5, memory_bytes=1 << 30)
FRAMES = 40


def reader(path: Path, limits: FilmLimits = LIMITS) -> FilmReader:
    return FilmReader(os.open(path, os.O_RDONLY), path.stat().st_size, limits)


def shown(read: FilmReader, stamps: Sequence[int]) -> list[int]:
    """Which pictures come for these timestamps."""
    numbers = []
    for _, frame in read.frames(stamps):
        pixels = bytearray(LIMITS.max_pixels * 3)
        width, height = write_frame(frame, read.aspect, memoryview(pixels), LIMITS)
        numbers.append(number_of(np.frombuffer(pixels, np.uint8, width * height * 3)))
    return numbers


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("film.mp4", "libx264"),
        ("film.mov", "libx264"),
        ("film.mkv", "libx264"),
        ("film.ts", "libx264"),
        ("film.flv", "libx264"),
        ("film.avi", "mpeg4"),
        ("film.avi", "mjpeg"),
        ("film.webm", "libvpx"),
        ("film.mpg", "mpeg2video"),
        ("film.mp4", "libx265"),
    ],
)
def test_every_frame_is_found_by_its_timestamp_in_any_container(tmp_path: Path, name: str, codec: str) -> None:
    fps = 25 if codec == "mpeg2video" else 10
    path = make_film(tmp_path / name, (grey_picture(n) for n in range(FRAMES)), codec=codec, fps=fps, key_every=8)
    read = reader(path)
    assert len(read.index.stamps) == FRAMES
    wanted = [3, 8, 9, 23, 37]
    stamps = [int(read.index.stamps[number]) for number in wanted]
    assert shown(read, stamps) == wanted
    assert shown(read, stamps[:1]) == wanted[:1]  # back again
    assert sorted(shown(read, list(read.index.stamps))) == list(range(FRAMES))


def test_key_frames_alone_and_frames_between_them_are_the_same_pictures(tmp_path: Path) -> None:
    read = reader(make_film(tmp_path / "film.mp4", (grey_picture(n) for n in range(FRAMES)), key_every=8))
    assert [read.index.number(int(key)) for key in read.index.keys] == [0, 8, 16, 24, 32]
    assert shown(read, [int(key) for key in read.index.keys]) == [0, 8, 16, 24, 32]


@pytest.mark.parametrize(("seconds_a_frame", "is_read"), [(60, True), (1000, True), (86_400, True), (2**31, False)])
def test_a_film_of_a_picture_a_minute_or_a_day_is_read_with_its_times(
    tmp_path: Path, seconds_a_frame: int, is_read: bool
) -> None:
    path = make_film(tmp_path / "film.avi", (grey_picture(n) for n in range(8)), codec="mjpeg")
    content = bytearray(path.read_bytes())
    struct.pack_into("<II", content, content.index(b"strh") + 28, seconds_a_frame, 1)
    path.write_bytes(content)
    if not is_read:
        with pytest.raises(Refused, match="clock"):
            reader(path)
        return
    read = reader(path)
    assert read.warnings == []
    assert read.describe()["duration_s"] == 7 * seconds_a_frame
    assert shown(read, list(read.index.stamps)) == list(range(8))


def test_a_frame_that_never_comes_is_not_waited_for_through_the_whole_film(tmp_path: Path) -> None:
    """An index may name millions of pictures of a byte each."""
    path = make_film(tmp_path / "film.avi", (grey_picture(n % 40) for n in range(400)), codec="mjpeg", key_every=1)
    content = bytearray(path.read_bytes())
    at = content.index(b"movi") + 4
    while content[at : at + 4] == b"00dc":
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        content[at + 8 : at + 8 + size] = bytes(size)
        at += 8 + size + size % 2
    path.write_bytes(content)
    read = reader(path)
    entered = read._packets_from
    asked: list[int] = []

    def counted(entry: int) -> Iterator[Packet[VideoStream]]:
        for packet in entered(entry):
            asked.append(entry)
            yield packet

    read._packets_from = counted  # type: ignore[method-assign]
    assert shown(read, [int(read.index.first)]) == []
    assert 1 <= len(asked) <= 100
    assert read.is_damaged


def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    moments = [0, 10, 15, 40, 41, 90]
    path = make_film(
        tmp_path / "film.mp4", (grey_picture(n) for n in range(6)), stamps=lambda number: moments[number], key_every=3
    )
    read = reader(path)
    times = [round(read.index.time_s(int(stamp)), 2) for stamp in read.index.stamps]
    assert times == [0.0, 0.1, 0.15, 0.4, 0.41, 0.9]
    assert shown(read, [int(read.index.stamps[4])]) == [4]


@pytest.mark.parametrize(("rotation", "orientation"), [(0, 1), (90, 8), (180, 3), (-90, 6)])
def test_a_turned_film_says_how_it_is_turned(tmp_path: Path, rotation: int, orientation: int) -> None:
    path = make_film(tmp_path / "film.mp4", (grey_picture(n) for n in range(3)), rotation=rotation)
    read = reader(path)
    ((_, frame),) = read.frames([int(read.index.stamps[0])])
    assert orientation_of(frame) == orientation


def test_frames_that_were_given_are_not_kept(tmp_path: Path) -> None:
    """However long the film: counted while Python does not look for rings by itself."""
    path = make_film(tmp_path / "film.mp4", (grey_picture(n) for n in range(FRAMES)), key_every=8)
    arena = Arena.create(1, LIMITS.max_pixels * 3)
    service = FilmService(os.open(path, os.O_RDONLY), path.stat().st_size, LIMITS, [arena])
    service.answer({"open": True})
    kept = []
    gc.disable()
    gc.freeze()  # as the worker does: what was there before is not looked at
    try:
        service.answer({"stills": [int(stamp) for stamp in reader(path).index.stamps]})
        while "pts" in service.answer({"next": 0}):
            kept.append(sum(isinstance(found, av.VideoFrame) for found in gc.get_objects()))
    finally:
        gc.unfreeze()
        gc.enable()
        arena.destroy()
    assert len(kept) == FRAMES
    assert max(kept) <= max(kept[:8]) + 2, kept


# The display matrix's first five numbers but the third, as signs, and the EXIF orientation that shows the same.
MATRICES = [
    ((1, 0, 0, 1), 1),
    ((-1, 0, 0, 1), 2),
    ((-1, 0, 0, -1), 3),
    ((1, 0, 0, -1), 4),
    ((0, 1, 1, 0), 5),
    ((0, 1, -1, 0), 6),
    ((0, -1, -1, 0), 7),
    ((0, -1, 1, 0), 8),
    ((0, 0, 0, 0), 1),
]


@pytest.mark.parametrize(("signs", "orientation"), MATRICES)
def test_every_turn_and_mirror_of_the_display_matrix_is_told(
    tmp_path: Path, signs: tuple[int, int, int, int], orientation: int
) -> None:
    path = make_film(tmp_path / "film.mp4", (grey_picture(n) for n in range(2)))
    content = bytearray(path.read_bytes())
    across_x, across_y, down_x, down_y = (65536 * sign for sign in signs)
    # ISO/IEC 14496-12, track header: the matrix stands 40 bytes behind the box's name and version.
    matrix = (across_x, across_y, 0, down_x, down_y, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, *matrix)
    path.write_bytes(content)
    read = reader(path)
    ((_, frame),) = read.frames([int(read.index.stamps[0])])
    assert orientation_of(frame) == orientation


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: round(len(content) * share)]


@pytest.mark.parametrize("name", ["film.mkv", "film.ts", "film.avi", "film.flv"])
def test_a_broken_tail_costs_the_tail(tmp_path: Path, name: str) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    noisy = (np.random.default_rng(n).integers(0, 255, (64, 96, 3)).astype(np.uint8) for n in range(FRAMES))
    whole = make_film(tmp_path / name, noisy, codec=codec).read_bytes()
    broken = tmp_path / f"broken-{name}"
    broken.write_bytes(cut(0.6)(whole))
    read = reader(broken)
    assert 10 <= len(read.index.stamps) < FRAMES
    assert len(list(read.frames([int(stamp) for stamp in read.index.stamps[:8]]))) == 8


def test_a_film_whose_samples_are_damaged_says_so_and_one_that_is_sound_does_not(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mp4", (grey_picture(n % 40) for n in range(24)), fps=12, key_every=12)
    sound = reader(path)
    assert len(list(sound.frames(sound.index.stamps.tolist()))) == 24
    assert (sound.is_damaged, sound.warnings) == (False, [])
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    content[start : start + 400] = bytes(400)
    path.write_bytes(content)
    wiped = reader(path)
    found = [stamp for stamp, _ in wiped.frames(wiped.index.stamps.tolist())]
    assert found, "the second key frame and what follows it are whole"
    assert wiped.is_damaged
    assert wiped.warnings == ["frames_damaged"]


def test_a_film_whose_index_is_missing_is_refused(tmp_path: Path) -> None:
    whole = make_film(tmp_path / "film.mp4", (grey_picture(n) for n in range(FRAMES))).read_bytes()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Refused) as refused:
        reader(broken)
    assert refused.value.code == "film_undecodable"


def test_sound_alone_has_no_video(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        reader(make_sound(tmp_path / "sound.mp4"))
    assert refused.value.code == "film_no_video"


def test_a_codec_that_is_not_on_the_list_is_never_opened(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mkv", (grey_picture(n) for n in range(3)), codec="ffv1")
    with pytest.raises(Refused) as refused:
        reader(path)
    assert (refused.value.code, refused.value.text) == ("film_codec_not_allowed", "ffv1")


def test_frames_over_the_pixel_limit_are_refused_by_the_header(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mp4", [grey_picture(0, 2000, 1000)])
    with pytest.raises(Refused) as refused:
        reader(path)
    assert refused.value.code == "film_frame_too_large"


def test_more_frames_than_allowed_are_not_read_and_it_is_said(tmp_path: Path) -> None:
    limits = FilmLimits(max_pixels=1_000_000, max_frames=12, index_cpu_s=5, frame_cpu_s=5, memory_bytes=1 << 30)
    read = reader(make_film(tmp_path / "film.mp4", (grey_picture(n) for n in range(FRAMES))), limits)
    assert len(read.index.stamps) == 12
    assert "too_long" in read.warnings


@pytest.mark.parametrize("mark", [b"avc1", b"stsd"])
def test_a_coding_that_nobody_knows_is_refused_by_name(tmp_path: Path, mark: bytes) -> None:
    """The library gives such a stream no decoder at all, not one that fails."""
    film = make_film(tmp_path / "film.mp4", map(grey_picture, range(3)))
    content = film.read_bytes()
    assert content.count(mark) >= 1
    film.write_bytes(content[:40] + content[40:].replace(mark, b"zzzz"))
    with pytest.raises(Refused) as refused:
        reader(film)
    assert refused.value.code == "film_codec_not_allowed"
