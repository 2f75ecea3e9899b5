"""The process that decodes untrusted bytes: `python -m services.embed.gate.worker CHANNEL ORDERS INPUT PIXELS ARENA…`.

It starts without environment and without other descriptors than its channel and its arenas. Once its decoders are
loaded it takes away its own means: no new descriptor (so no file and no connection), no new process, no core file, a
ceiling on memory, and a processor budget for each picture that the kernel enforces by killing it. Behind that stands a
filter of system calls (confinement.py), where the kernel has one.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import socket
import sys
from time import perf_counter
from typing import Any

from services.embed.gate.confinement import confine
from services.embed.gate.decode import decode, prepare_decoders
from services.embed.gate.limits import ORDER, GateLimits, TooManyPixels, Undecodable
from services.embed.workers.arena import Arena
from services.embed.workers.channel import Channel, ChannelClosed

# What decoders free is kept for the next picture up to this much, instead of being given back to the kernel, which has
# to make every page of it anew: for WebP that was a third of the processor's time.
_KEPT_BYTES = 64 * 1024 * 1024
_LARGEST_FROM_HEAP = 32 * 1024 * 1024  # the most that glibc takes
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_TEXT = 200  # characters of a decoder's words that leave this process


def main(arguments: list[str]) -> None:
    """Serve until the service is gone."""
    channel_descriptor, orders_descriptor, input_bytes, pixel_bytes, *arena_descriptors = (
        int(argument) for argument in arguments
    )
    channel = Channel.from_descriptor(channel_descriptor)
    orders = socket.socket(fileno=orders_descriptor)
    request, _ = channel.receive()
    limits = GateLimits(**request["limits"])
    prepare_decoders(limits)
    arenas = [Arena(descriptor, input_bytes, pixel_bytes) for descriptor in arena_descriptors]
    _give_up_means(limits)
    is_confined = confine()
    if not is_confined:
        # Then this is what keeps it from starting processes. It keeps the HEIC decoder from its thread as well, unless
        # the service runs as root: such pictures are refused then.
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    _keep_freed_memory()
    gc.freeze()
    channel.send({"ready": True, "is_confined": is_confined})
    while order := orders.recv(ORDER.size):
        arena, size = ORDER.unpack(order)
        try:
            channel.send(_answer(arenas[arena], size, limits))
        except ChannelClosed:
            return


def _answer(arena: Arena, size: int, limits: GateLimits) -> dict[str, Any]:
    started = perf_counter()
    # The default action of SIGPROF is to end the process, in the middle of any C code.
    signal.setitimer(signal.ITIMER_PROF, limits.cpu_s)
    try:
        image = decode(arena.input_view(size), arena.pixel_view(), limits)
    except TooManyPixels as error:
        return {"refused": "image_too_many_pixels", "text": str(error)[:_TEXT]}
    except Undecodable as error:
        return {"refused": "image_undecodable", "text": str(error)[:_TEXT]}
    except MemoryError:
        return {"refused": "image_decode_too_much_memory", "text": ""}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return {
        "format": image.format,
        "width": image.stored_width,
        "height": image.stored_height,
        "orientation": image.orientation,
        "frames": image.frame_count,
        "ms": (perf_counter() - started) * 1000,
    }


def _keep_freed_memory() -> None:
    """Without effect where the C library is another than glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_FROM_HEAP)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _give_up_means(limits: GateLimits) -> None:
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the service, which ends its workers in order
    silent = os.open(os.devnull, os.O_RDWR)
    os.dup2(silent, sys.stderr.fileno())  # what decoders print is an attacker's text
    os.close(silent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 - names of descriptors
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, highest))


if __name__ == "__main__":
    main(sys.argv[1:])
