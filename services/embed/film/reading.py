"""Frames of one film, inside the worker process. Nothing here is trusted to end, to fit in memory or to survive."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from services.embed.film.formats import DECODERS, HEAD_BYTES, recognise_container
from services.embed.film.limits import FilmLimits, Refused
from services.embed.film.pixels import square_size
from services.embed.film.planning import FilmIndex, index_of

_BUFFER_BYTES = 256 * 1024
_SANE_STAMP = 2**56  # beyond it a timestamp is noise, and sums of it overflow
_SANE_UNIT_S = 86_400.0  # a camera of a building site takes one picture a day
_REORDERED = 64  # packets past the last wanted frame after which the decoder has given it, or never will
_WITHOUT_INDEX = frozenset({"mpeg", "mpegts"})
_SECOND_TRIES = 200  # of one film
# What the library raises for a broken file.
_READ_ERRORS = (FFmpegError, OSError, ValueError, OverflowError, EOFError, RuntimeError, ZeroDivisionError)


class _FileBytes:
    """The film's descriptor as the library reads it. Only bytes: nothing else of it can be reached."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._at = 0

    def read(self, count: int) -> bytes:
        data = os.pread(self._descriptor, count, self._at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at


class FilmReader:
    """Opens a film, lists its frames, decodes those asked for. Raises Refused, MemoryError."""

    def __init__(self, descriptor: int, size: int, limits: FilmLimits) -> None:
        self._descriptor = descriptor
        self._size = size
        self._limits = limits
        self.warnings: list[str] = []
        name = recognise_container(os.pread(descriptor, HEAD_BYTES, 0))
        if name is None:
            raise Refused("film_format_not_allowed")
        self.container_name = name
        self._run: Iterator[av.VideoFrame | int] | None = None
        self._run_key, self._run_at = 0, 0
        self._second_tries = _SECOND_TRIES
        self.is_damaged = False
        self._open()
        self.index = self._read_index()

    def describe(self) -> dict[str, Any]:
        width, height = square_size(self._codec.width, self._codec.height, self.aspect)
        return {
            "container": self.container_name,
            "codec": self._codec.name,
            "width": width,
            "height": height,
            "duration_s": self.index.time_s(int(self.index.stamps[-1])),
            "frames": len(self.index.stamps),
            "keys": int(self.index.is_key.sum()),
            "warnings": self.warnings,
        }

    @property
    def aspect(self) -> Fraction | None:
        return self._stream.sample_aspect_ratio

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames with these timestamps (ascending), as far as they can be decoded."""
        groups: dict[int, list[int]] = {}
        for stamp in wanted:
            if self.index.has(stamp):
                groups.setdefault(self.index.key_of(stamp), []).append(stamp)
        for key, stamps in groups.items():
            if stamps == [key]:
                yield from self._key_frame(key)
            else:
                yield from self._run_through(key, stamps)

    def _open(self) -> None:
        try:
            # No reader of this list opens another file; one that tried would find that it cannot.
            self._container: InputContainer = av.open(
                _FileBytes(self._descriptor, self._size), "r", format=self.container_name, buffer_size=_BUFFER_BYTES
            )
        except _READ_ERRORS as error:
            raise Refused("film_undecodable", _said(error)) from error
        streams = [stream for stream in self._container.streams.video if _is_moving(stream)]
        if not streams:
            raise Refused("film_no_video", "no stream of pictures")
        # Of a stream whose coding the library does not know it has nothing to say.
        streams = [stream for stream in streams if cast("object", stream.codec_context) is not None]
        if not streams:
            raise Refused("film_codec_not_allowed", "unknown")
        self._stream = max(streams, key=lambda stream: stream.codec_context.width * stream.codec_context.height)
        self._codec = self._stream.codec_context
        if self._codec.codec.name not in DECODERS:
            raise Refused("film_codec_not_allowed", self._codec.codec.name)
        if self._codec.width * self._codec.height > self._limits.max_pixels:
            raise Refused("film_frame_too_large", f"{self._codec.width} x {self._codec.height} pixels")
        self._codec.thread_count = 1
        self._codec.thread_type = "NONE"

    def _read_index(self) -> FilmIndex:
        unit_s = float(self._stream.time_base or 0)
        if not 0 < unit_s <= _SANE_UNIT_S:
            raise Refused("film_undecodable", "a stream without a clock")
        stamps, keys = array("q"), array("q")
        try:
            for packet in self._packets():
                stamp = _stamp_of(packet)
                if stamp is None or abs(stamp) > _SANE_STAMP:
                    self._warn("timestamps_irregular")
                    continue
                stamps.append(stamp)
                if packet.is_keyframe:
                    keys.append(stamp)
                if len(stamps) >= self._limits.max_frames:
                    self._warn("too_long")
                    break
        except _READ_ERRORS:
            self._warn("ends_early")
        if not stamps:
            raise Refused("film_undecodable", "no frame")
        if self._stream.frames > len(stamps):
            self._warn("ends_early")
        index = index_of(np.frombuffer(stamps, np.int64), np.frombuffer(keys, np.int64), unit_s)
        # Of frames with one timestamp only the first can be asked for.
        if 2 * len(index.stamps) < len(stamps) or index.pace_s > unit_s:
            self._warn("timestamps_irregular")
        return index

    def _warn(self, what: str) -> None:
        if what not in self.warnings:
            self.warnings.append(what)

    def _damaged(self) -> None:
        """A frame where one should be did not decode, or decoded with holes that were mended by guessing."""
        self.is_damaged = True
        self._warn("frames_damaged")

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        return (packet for packet in self._container.demux(self._stream) if packet.size)

    def _packets_from(self, entry: int) -> Iterator[Packet[VideoStream]]:
        """From this timestamp on, or somewhat before it. An error ends them."""
        first = self._entered(entry)
        if first is None:
            # It cannot be entered in the middle.
            self._container.close()
            self._open()
        else:
            yield first
        with suppress(*_READ_ERRORS):
            yield from self._packets()

    def _entered(self, entry: int) -> Packet[VideoStream] | None:
        """The first packet there; None where it is behind the place, or nothing is there."""
        with suppress(*_READ_ERRORS):
            self._container.seek(entry, stream=self._stream, backward=True)
            first = next(self._packets(), None)
            if first is not None and (_stamp_of(first) or 0) <= entry:
                return first
        return None

    def _key_frame(self, key: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """A key frame decodes alone."""
        self._run = None
        frames: list[av.VideoFrame] = []
        for packet in self._packets_from(key):
            if _stamp_of(packet) != key:
                continue
            try:
                frames = [*packet.decode(), *self._codec.decode(None)]
            except _READ_ERRORS:
                self._damaged()
            self._codec.flush_buffers()
            break
        if frames:
            if frames[0].is_corrupt:
                self._damaged()
            yield key, frames[0]
        else:
            yield from self._run_through(key, [key])

    def _run_through(self, key: int, stamps: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames behind a key frame need all before them; a run that stands before them already goes on."""
        missed: list[int] = []
        if self._run is None or self._run_key != key or self._run_at >= stamps[0]:
            self._run, self._run_key = self._decoded(key), key
        yield from self._picked(stamps, missed)
        if missed and self.container_name in _WITHOUT_INDEX and self._second_tries > 0:
            # Entered by guesswork, a stream may begin behind the key frame.
            self._second_tries -= 1
            before = max(0, int(np.searchsorted(self.index.keys, key)) - 2)
            earlier = int(self.index.keys[before]) if len(self.index.keys) else self.index.first
            self._run, self._run_key = self._decoded(earlier), key
            yield from self._picked(missed, [])

    def _picked(self, stamps: Sequence[int], missed: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Those of the run's frames that are wanted; the others go to `missed`."""
        left, past = list(stamps), 0
        for frame in self._run or ():
            if isinstance(frame, int):
                past += frame > stamps[-1]
                if past > _REORDERED:
                    break
                continue
            stamp = frame.pts if frame.pts is not None else frame.dts
            if stamp is None:
                continue
            self._run_at = stamp
            while left and stamp > left[0]:
                missed.append(left.pop(0))
            if left and stamp == left[0]:
                if frame.is_corrupt:
                    self._damaged()
                yield left.pop(0), frame
            past += stamp > stamps[-1]
            if not left or past > _REORDERED:
                break
        else:
            self._run = None
        missed += left

    def _decoded(self, entry: int) -> Iterator[av.VideoFrame | int]:
        """All frames from here on. Of a packet that gives none, its timestamp, so that whoever waits for a frame does
        not wait through a whole film of such packets."""
        is_begun = False
        for packet in self._packets_from(entry):
            is_begun = is_begun or (_stamp_of(packet) or 0) >= entry or packet.is_keyframe
            if is_begun:
                frames: list[av.VideoFrame] = []
                try:
                    frames = packet.decode()
                except _READ_ERRORS:
                    # What is shown before the place of entry may need what lies before it; the rest has all it needs.
                    if (_stamp_of(packet) or 0) >= entry:
                        self._damaged()
                yield from frames
                if not frames:
                    yield _stamp_of(packet) or 0
        with suppress(*_READ_ERRORS):
            yield from self._codec.decode(None)


def _is_moving(stream: VideoStream) -> bool:
    """A cover picture is a video stream in name."""
    with suppress(*_READ_ERRORS, AttributeError):
        return "attached_pic" not in str(stream.disposition.name or "").lower()
    return True


def _stamp_of(packet: Packet[VideoStream]) -> int | None:
    return packet.pts if packet.pts is not None else packet.dts


def _said(error: Exception) -> str:
    """The library's words without the names and numbers around them."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
