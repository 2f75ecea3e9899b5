"""Shared memory in which one image travels: the file's bytes in front, the decoded pixels behind them.

Anonymous (memfd), so that nothing is left behind by a process that is killed, and reachable only by those that were
handed the descriptor. Sparse: only touched pages cost memory.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from itertools import count

_PAGE = mmap.PAGESIZE
_keys = count()


class Arena:
    """Room for `input_bytes` and `pixel_bytes`."""

    def __init__(self, descriptor: int, input_bytes: int, pixel_bytes: int) -> None:
        self.descriptor = descriptor
        self.key = next(_keys)
        self.input_bytes = input_bytes
        self.pixel_bytes = pixel_bytes
        self._pixels_at = _whole_pages(input_bytes)
        self._map = mmap.mmap(descriptor, self._pixels_at + _whole_pages(pixel_bytes))

    @classmethod
    def create(cls, input_bytes: int, pixel_bytes: int) -> Arena:
        descriptor = os.memfd_create("likeness-image", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _whole_pages(input_bytes) + _whole_pages(pixel_bytes))
        return cls(descriptor, input_bytes, pixel_bytes)

    def write_input(self, data: bytes) -> None:
        self._map[: len(data)] = data

    def input_view(self, size: int) -> memoryview:
        return memoryview(self._map)[:size]

    def pixel_view(self) -> memoryview:
        return memoryview(self._map)[self._pixels_at : self._pixels_at + self.pixel_bytes]

    def forget(self, keep_bytes: int) -> None:
        """Give the pages back beyond the first `keep_bytes` of each part: one large picture costs nothing for ever."""
        for start, size in ((0, self._pixels_at), (self._pixels_at, len(self._map) - self._pixels_at)):
            kept = min(_whole_pages(keep_bytes), size)
            if size > kept:
                with suppress(OSError):  # a kernel that cannot keeps the pages: slower to share, not wrong
                    self._map.madvise(mmap.MADV_REMOVE, start + kept, size - kept)

    def destroy(self) -> None:
        """Give every page back, also for those who still map it, and close."""
        self.forget(0)
        self.close()

    def close(self) -> None:
        """Unmap and close. Views that still exist keep the memory alive until they go."""
        try:
            self._map.close()
        except BufferError:
            return
        finally:
            os.close(self.descriptor)


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
