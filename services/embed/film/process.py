"""One film worker, seen from the service. What it says is not to be trusted: every number is checked."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from services.embed.film.formats import DECODERS
from services.embed.film.limits import FilmLimits
from services.embed.film.settings import FilmSettings
from services.embed.ports import DecodedImage
from services.embed.workers.arena import Arena
from services.embed.workers.channel import ChannelClosed, ChannelTimeout, channel_pair
from services.embed.workers.process import end_process, start_module
from services.shared.errors import FILM_REFUSALS, FilmRefused

_START_TIMEOUT_S = 90.0  # a second where nothing else runs
_MAX_ANSWER_BYTES = 1024 * 1024
_TOO_SLOW = frozenset({-signal.SIGPROF, -signal.SIGXCPU})
_MOST = 2**56
_MAX_SEGMENTS = 20_000
_CONTAINERS = frozenset({"mov", "matroska", "avi", "flv", "mpeg", "mpegts"})
_WARNINGS = frozenset({"ends_early", "frames_damaged", "timestamps_irregular", "too_long"})

_ADVICE = {
    "film_empty": "Send the file itself.",
    "film_format_not_allowed": "Send MP4, MOV, MKV, WebM, AVI, FLV, MPEG or MPEG-TS.",
    "film_too_large": "Cut the film to the time that matters, and send that.",
    "film_undecodable": "Send the file as the camera or system wrote it; it may have been cut short on its way.",
    "film_no_video": "Send a file with moving images; this one has none.",
    "film_codec_not_allowed": "Export the film as H.264 or H.265 with the recorder's own software.",
    "film_frame_too_large": "Send a film of at most 40 megapixels a frame.",
    "film_decode_too_slow": "Export the film again with an ordinary encoder.",
    "film_decode_too_much_memory": "Export the film again with an ordinary encoder, or make it smaller.",
    "film_decoder_crashed": "Export the film again with an ordinary encoder; tell the operators.",
}
_DETAIL = {
    "film_empty": "The film is empty",
    "film_format_not_allowed": "The file is not a film of an allowed format",
    "film_too_large": "The film is over the limit",
    "film_undecodable": "The film cannot be decoded",
    "film_no_video": "The file has no moving images",
    "film_codec_not_allowed": "The film's coding is not on the list of those that are read",
    "film_frame_too_large": "The film's frames are over the pixel limit",
    "film_decode_too_slow": "The film takes too long to decode",
    "film_decode_too_much_memory": "The film needs too much memory to decode",
    "film_decoder_crashed": "The film ends the process that decodes it",
}


def refusal(code: str, text: str = "") -> FilmRefused:
    """The reader's no, with what to do about it."""
    said = "".join(letter for letter in text if letter.isprintable())[:200]
    return FilmRefused(f"{_DETAIL[code]}: {said}." if said else f"{_DETAIL[code]}.", code=code, advice=_ADVICE[code])


class FilmWorkerDied(Exception):
    """The process is gone. `code` is the refusal that it stands for; `is_sure` says that it is the film's doing."""

    def __init__(self, status: int, *, was_too_slow: bool = False) -> None:
        super().__init__(f"exit status {status}")
        self.is_sure = was_too_slow or status in _TOO_SLOW
        self.code = "film_decode_too_slow" if self.is_sure else "film_decoder_crashed"


@dataclass(frozen=True, slots=True)
class Description:
    """What the worker found the film to be. Segments are (from_s, until_s)."""

    container: str
    codec: str
    width: int
    height: int
    duration_s: float
    frame_count: int
    key_frame_count: int
    warnings: tuple[str, ...]
    segments: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class ReadFrame:
    """A frame whose pixels lie in an arena."""

    pts: int
    number: int
    time_s: float
    image: DecodedImage


class FilmWorker:
    """A process that reads one film. Not safe for several threads."""

    def __init__(self, settings: FilmSettings, film: int, size: int) -> None:
        """`film` is a descriptor that can only be read."""
        self._settings = settings
        pixel_bytes = settings.max_pixels * 3
        self.arenas = [Arena.create(1, pixel_bytes) for _ in range(settings.parallel + 1)]
        self._channel, theirs = channel_pair(max_message_bytes=_MAX_ANSWER_BYTES)
        descriptors = [theirs.fileno(), film, *(arena.descriptor for arena in self.arenas)]
        arguments = [theirs.fileno(), film, size, pixel_bytes, *descriptors[2:]]
        self._process = start_module("services.embed.film.worker", [str(value) for value in arguments], descriptors, {})
        theirs.close()
        # Of what was planned and given since this was last looked at, something did not decode.
        self.is_damaged = False
        self._limits = FilmLimits(
            max_pixels=settings.max_pixels,
            max_frames=settings.max_frames,
            index_cpu_s=settings.index_cpu_s,
            frame_cpu_s=settings.frame_cpu_s,
            memory_bytes=settings.memory_bytes,
        )

    @property
    def process_id(self) -> int:
        return self._process.pid

    def open(self) -> Description:
        """Raises FilmRefused, FilmWorkerDied."""
        self._ask({"limits": asdict(self._limits)}, _START_TIMEOUT_S)
        return _description(self._ask({"open": True}, 4 * self._settings.index_cpu_s), self._settings)

    def look(self, segment: int) -> None:
        """Plan the first look at a segment; `next` gives its frames."""
        self._ask({"look": segment})

    def follow(self, segment: int, looked: Sequence[int], with_face: Sequence[int]) -> None:
        """Plan the frames between those of a first look, around those with a face."""
        self._ask({"follow": segment, "looked": list(looked), "with_face": list(with_face)})

    def stills(self, stamps: Sequence[int]) -> None:
        """Plan frames by their timestamps."""
        self._ask({"stills": list(stamps)})

    def next(self, arena: int) -> ReadFrame | None:
        """Decode the next frame into an arena; None when there is no more. Raises FilmRefused, FilmWorkerDied."""
        answer = self._ask({"next": arena})
        if answer.get("end") is not True:
            return _frame(answer, self._settings.max_pixels)
        self.is_damaged |= answer.get("damaged") is True
        return None

    def stop(self) -> None:
        """End the process and give its memory back."""
        self._process.kill()
        self._channel.close()
        end_process(self._process)
        for arena in self.arenas:
            arena.destroy()

    def _ask(self, request: dict[str, Any], timeout_s: float | None = None) -> dict[str, Any]:
        try:
            self._channel.send(request)
            # Four times the processor's time by the clock on the wall: other work runs beside it.
            answer, _ = self._channel.receive(timeout_s or 4 * self._settings.frame_cpu_s)
        except ChannelTimeout as error:
            self._process.kill()
            raise FilmWorkerDied(end_process(self._process, patience_s=1.0), was_too_slow=True) from error
        except ChannelClosed as error:
            raise FilmWorkerDied(end_process(self._process, patience_s=1.0)) from error
        code = answer.get("refused")
        if code is not None:
            raise refusal(code if code in FILM_REFUSALS else "film_decoder_crashed", str(answer.get("text", "")))
        return answer


def read_only(descriptor: int) -> int:
    """The same file, through a descriptor that cannot write."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def _description(answer: dict[str, Any], settings: FilmSettings) -> Description:
    found, parts = answer.get("description"), answer.get("segments")
    if not isinstance(found, dict) or not isinstance(parts, list) or not 1 <= len(parts) <= _MAX_SEGMENTS:
        raise refusal("film_decoder_crashed")
    numbers = [found.get(name) for name in ("width", "height", "frames", "keys")]
    warnings = found.get("warnings")
    is_possible = (
        all(type(number) is int and 0 <= number <= _MOST for number in numbers)
        and found.get("container") in _CONTAINERS
        and isinstance(warnings, list)
        and _is_time(found.get("duration_s"))
        and all(isinstance(part, list) and len(part) == 4 and _is_time(part[2]) and _is_time(part[3]) for part in parts)
    )
    if not is_possible:
        raise refusal("film_decoder_crashed")
    codec = str(found.get("codec"))
    width, height, frames, keys = (int(number) for number in numbers if number is not None)
    return Description(
        container=str(found["container"]),
        codec=codec if codec in DECODERS else "other",
        width=width,
        height=height,
        duration_s=float(found["duration_s"]),
        frame_count=min(frames, settings.max_frames),
        key_frame_count=keys,
        warnings=tuple(text for text in _WARNINGS if text in (warnings or ())),
        segments=tuple((float(part[2]), float(part[3])) for part in parts),
    )


def _frame(answer: dict[str, Any], max_pixels: int) -> ReadFrame:
    numbers = [answer.get(name) for name in ("pts", "number", "width", "height", "orientation")]
    if all(type(number) is int for number in numbers) and _is_time(answer.get("time_s")):
        pts, number, width, height, orientation = (int(number) for number in numbers if number is not None)
        is_possible = abs(pts) <= _MOST and 0 <= number <= _MOST and min(width, height) >= 1
        if is_possible and width * height <= max_pixels and 1 <= orientation <= 8:
            return ReadFrame(pts, number, float(answer["time_s"]), DecodedImage("FRAME", width, height, orientation, 1))
    raise refusal("film_decoder_crashed")


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < 1e15
