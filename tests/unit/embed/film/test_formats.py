from __future__ import annotations

import pytest

from services.embed.film.formats import recognise_container

TS = (b"\x47" + bytes(187)) * 6


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x00\x00\x00\x20ftypisom", "mov"),
        (b"\x00\x00\x00\x14ftypqt  ", "mov"),
        (b"\x00\x00\x00\x08moov", "mov"),
        (b"\x00\x00\x00\x08mdat", "mov"),
        (b"\x1aE\xdf\xa3\x01", "matroska"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "avi"),
        (b"RIFF\x00\x00\x00\x00AVIX", "avi"),
        (b"FLV\x01", "flv"),
        (b"\x00\x00\x01\xba", "mpeg"),
        (TS, "mpegts"),
        (bytes(40) + TS, "mpegts"),
    ],
)
def test_films_are_known_by_their_bytes(head: bytes, name: str) -> None:
    assert recognise_container(head[:1024]) == name


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"#EXTM3U\n#EXT-X-VERSION:3",
        b"ffconcat version 1.0\nfile '/etc/passwd'",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1",
        b"\xff\xd8\xff\xe0",
        b"RIFF\x00\x00\x00\x00WEBP",
        b"RIFF\x00\x00\x00\x00WAVE",
        b"\x00\x00\x00\x20ftypavif",
        b"\x00\x00\x00\x20ftypheic",
        b"G" * 3,
        b"<?xml version='1.0'?><MPD/>",
    ],
)
def test_playlists_stills_and_sound_are_no_films(head: bytes) -> None:
    assert recognise_container(head) is None
