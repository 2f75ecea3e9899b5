"""Small films made at test time: each frame tells its number by its grey, so that a test knows which one it got."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av.video.stream import VideoStream

Picture = npt.NDArray[np.uint8]
STEP = 5  # grey levels from frame to frame: more than coding changes


def grey_picture(number: int, width: int = 96, height: int = 64) -> Picture:
    """A flat picture whose grey is the number."""
    return np.full((height, width, 3), 16 + number * STEP % 220, np.uint8)


def number_of(pixels: Picture) -> int:
    """Which grey picture (of the first 44) this is."""
    return round((float(pixels.mean()) - 14) / STEP)  # coding takes two grey levels away


def make_film(
    path: Path,
    pictures: Iterable[Picture],
    *,
    codec: str = "libx264",
    fps: int = 10,
    key_every: int = 5,
    stamps: Callable[[int], int] | None = None,
    rotation: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a film; the container follows from the name. `stamps`: frame -> timestamp in units of 1/(10 fps) s."""
    unit = Fraction(1, fps * 10)
    with av.open(str(path), "w") as container:
        stream: VideoStream | None = None
        for number, picture in enumerate(pictures):
            if stream is None:
                added = container.add_stream(codec, rate=fps, options=options or _options(codec, key_every))
                stream = cast("VideoStream", added)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
                stream.gop_size = key_every
                if stamps is not None:
                    stream.codec_context.time_base = unit
                if rotation:
                    stream.set_display_rotation(rotation)
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps(number), unit
            for packet in stream.encode(frame):
                container.mux(packet)
        assert stream is not None, "a film has a frame"
        for packet in stream.encode():
            container.mux(packet)
    return path


def make_sound(path: Path) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


def _options(codec: str, key_every: int) -> dict[str, str]:
    if codec == "libx264":
        return {"preset": "ultrafast", "crf": "10", "bf": "2", "x264-params": f"keyint={key_every}:scenecut=0"}
    return {"qmin": "1", "qmax": "2", "sc_threshold": "1000000000"} if codec.startswith("mpeg") else {}
