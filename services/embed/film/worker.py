"""The process that reads one untrusted film: `python -m services.embed.film.worker CHANNEL FILM SIZE PIXELS ARENA…`.

As the worker of the image gate it starts without environment and takes its own means away before it looks at the film:
no new descriptor (so no other file and no connection), no new process or thread, nothing written, no core file, a
ceiling on memory, and a processor budget for each step that the kernel enforces by killing it. One film, one process.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any

import av
import cv2

from services.embed.film.limits import FilmLimits, Refused
from services.embed.film.pixels import orientation_of, write_frame
from services.embed.film.planning import Segment, describe_segments, first_look, follow_up, segments
from services.embed.film.reading import FilmReader
from services.embed.workers.arena import Arena
from services.embed.workers.channel import Channel, ChannelClosed

_TEXT = 200  # characters of a decoder's words that leave this process


def main(arguments: list[str]) -> None:
    """Serve until the channel closes."""
    channel_descriptor, film, size, pixel_bytes, *arenas = (int(argument) for argument in arguments)
    channel = Channel.from_descriptor(channel_descriptor)
    request, _ = channel.receive()
    limits = FilmLimits(**request["limits"])
    cv2.setNumThreads(1)
    av.logging.set_level(None)
    service = FilmService(film, size, limits, [Arena(descriptor, 1, pixel_bytes) for descriptor in arenas])
    _give_up_means(limits)
    gc.freeze()
    channel.send({"ready": True})
    while True:
        try:
            request, _ = channel.receive()
            channel.send(_answer(service, request, limits))
        except ChannelClosed:
            return


def _answer(service: FilmService, request: dict[str, Any], limits: FilmLimits) -> dict[str, Any]:
    # The default action of SIGPROF is to end the process, in the middle of any C code.
    signal.setitimer(signal.ITIMER_PROF, limits.index_cpu_s if "open" in request else limits.frame_cpu_s)
    try:
        return service.answer(request)
    except Refused as refused:
        return {"refused": refused.code, "text": refused.text[:_TEXT]}
    except MemoryError:
        return {"refused": "film_decode_too_much_memory", "text": ""}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


class FilmService:
    """Answers one request at a time. `next` goes on with whatever was planned last."""

    def __init__(self, film: int, size: int, limits: FilmLimits, arenas: list[Arena]) -> None:
        self._film = (film, size)
        self._limits = limits
        self._arenas = arenas
        self._segments: list[Segment] = []
        self._reader: FilmReader | None = None
        self._frames: Iterator[tuple[int, av.VideoFrame]] = iter(())

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if "open" in request:
            return self._open()
        reader = self._reader
        if reader is None:
            raise Refused("film_undecodable", "not opened")
        if "next" in request:
            return self._next(reader, self._arenas[int(request["next"])])
        if "look" in request:
            wanted = first_look(reader.index, self._segments[int(request["look"])])
        elif "follow" in request:
            segment = self._segments[int(request["follow"])]
            wanted = follow_up(reader.index, segment, request["looked"], request["with_face"])
        else:
            wanted = sorted({int(stamp) for stamp in request["stills"]})
        self._frames = reader.frames(wanted)
        return {"planned": len(wanted)}

    def _open(self) -> dict[str, Any]:
        self._reader = FilmReader(*self._film, self._limits)
        self._segments = segments(self._reader.index)
        wanted = [stamp for part in self._segments[:3] for stamp in first_look(self._reader.index, part)[:3]]
        if next(self._reader.frames(wanted), None) is None:
            raise Refused("film_undecodable", "none of its first frames")
        return {"description": self._reader.describe(), "segments": describe_segments(self._segments)}

    def _next(self, reader: FilmReader, arena: Arena) -> dict[str, Any]:
        # The library ties a frame and its side data (how it is turned) into a ring: hundreds of frames would be kept
        # until Python looks for rings by itself. To look costs little, since all that was there at the start is frozen.
        gc.collect()
        found = next(self._frames, None)
        if found is None:
            is_damaged, reader.is_damaged = reader.is_damaged, False
            return {"end": True, "damaged": is_damaged}
        stamp, frame = found
        width, height = write_frame(frame, reader.aspect, arena.pixel_view(), self._limits)
        return {
            "pts": stamp,
            "number": reader.index.number(stamp),
            "time_s": reader.index.time_s(stamp),
            "width": width,
            "height": height,
            "orientation": orientation_of(frame),
        }


def _give_up_means(limits: FilmLimits) -> None:
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the service, which ends its workers in order
    silent = os.open(os.devnull, os.O_RDWR)
    os.dup2(silent, sys.stderr.fileno())  # what decoders print is an attacker's text
    os.close(silent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 - names of descriptors
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, highest))


if __name__ == "__main__":
    main(sys.argv[1:])
