"""The viewer's mark on pictures."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import cast

import pytest
from PIL import Image

from services.review.console.pictures import shown

GREY = (120, 120, 120)


@pytest.mark.parametrize("size", [(1600, 200), (200, 1600), (640, 480)])
def test_no_part_of_a_picture_as_large_as_its_shorter_side_is_without_the_mark(size: tuple[int, int]) -> None:
    marked = shown(Image.new("RGB", size, GREY), "operator-1", datetime(2026, 11, 23, tzinfo=UTC))
    with Image.open(io.BytesIO(marked)) as picture:
        grey = picture.convert("L")
    side = min(size)
    for x in range(0, size[0] - side + 1, side // 2):
        for y in range(0, size[1] - side + 1, side // 2):
            low, high = cast("tuple[int, int]", grey.crop((x, y, x + side, y + side)).getextrema())
            assert high - low > 8, (x, y)
