"""Films made of stills, for tests: one person after the other, with a cut between them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

RATE = 5
SIZE = (480, 480)
SECONDS_EACH = 2


def film_of(pictures: Sequence[Path], to: Path) -> Path:
    """An MP4 that shows each picture for two seconds, brightening a little as cameras do."""
    with av.open(str(to), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        stream.time_base = Fraction(1, RATE)
        for picture in pictures:
            with Image.open(picture) as opened:
                opened.draft("RGB", SIZE)
                still = np.asarray(_square(opened.convert("RGB")), np.int16)
            for number in range(RATE * SECONDS_EACH):
                pixels = np.clip(still + number, 0, 255).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return to


def _square(image: Image.Image) -> Image.Image:
    image.thumbnail(SIZE)
    canvas = Image.new("RGB", SIZE, (40, 40, 40))
    canvas.paste(image, ((SIZE[0] - image.width) // 2, (SIZE[1] - image.height) // 2))
    return canvas
