from __future__ import annotations

import base64
from typing import Any

import pytest

from services.search.film.contact_sheet import clock, contact_sheet

CHIP = base64.b64encode(b"\xff\xd8\xff chip").decode()


def film(**changes: Any) -> dict[str, Any]:
    return {
        "film_id": "01a2061d-52c3-7726-9a1f-7a87c5c0ebd5",
        "film": {
            "sha256": "0b" * 32,
            "container": "mov",
            "codec": "h264",
            "width": 640,
            "height": 360,
            "duration_s": 3600.0,
            "frame_count": 90000,
        },
        "progress": {"frames_looked_at": 1800},
        "warnings": ["ends_early"],
        "tracks": [
            {
                "track": 0,
                "appearances": [{"from_s": 0.0, "until_s": 1800.0}, {"from_s": 3599.9, "until_s": 3600.0}],
                "frames_seen": 40,
                "quality": 71.0,
                "stills": [
                    {
                        "frame_number": 96,
                        "pts": 1,
                        "time_s": 3.2,
                        "face": 0,
                        "quality": 80.0,
                        "inter_eye_px": 35.9,
                        "still_sha256": "a" * 64,
                        "chip_jpeg_base64": CHIP,
                    }
                ],
            }
        ],
        **changes,
    }


def test_the_sheet_has_time_line_chips_and_frames() -> None:
    sheet = contact_sheet(film(), "door.mp4")
    assert "left:0.00%;width:50.00%" in sheet
    assert f'src="data:image/jpeg;base64,{CHIP}"' in sheet
    assert "frame\n96, 0:00:03.2" in sheet
    assert "ends_early" in sheet
    assert "nobody on\nthis sheet has been searched" in sheet


def test_what_strangers_wrote_is_inert() -> None:
    sheet = contact_sheet(film(warnings=["<script>x</script>"]), "<img src=x onerror=alert(1)>.mp4")
    assert "<script>" not in sheet
    assert "<img src=x" not in sheet
    assert "default-src 'none'" in sheet


def test_a_chip_that_is_no_base64_is_refused() -> None:
    tracks = film()["tracks"]
    tracks[0]["stills"][0]["chip_jpeg_base64"] = '"><script>'
    with pytest.raises(ValueError, match=r"base64|padding|Only"):
        contact_sheet(film(tracks=tracks), "x.mp4")


def test_a_film_without_people_says_so() -> None:
    assert "Nobody was found." in contact_sheet(film(tracks=[]), "x.mp4")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00.0"), (59.96, "0:01:00.0"), (3725.44, "1:02:05.4")])
def test_times_are_read_as_clocks(seconds: float, text: str) -> None:
    assert clock(seconds) == text
