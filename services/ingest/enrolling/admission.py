"""How many uploads may be under way at once. Callers over the limit are told so before their body is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from services.shared.errors import Overloaded


class Admission:
    """Counts uploads and their announced bytes. For the event loop's thread only."""

    def __init__(self, max_uploads: int, max_bytes: int) -> None:
        self._max_uploads = max_uploads
        self._max_bytes = max_bytes
        self._uploads = 0
        self._bytes = 0

    @contextmanager
    def upload(self, size_bytes: int) -> Iterator[None]:
        """Raises Overloaded. One upload alone always has room: the limit of a body is somebody else's."""
        is_over = self._uploads >= self._max_uploads or self._bytes + size_bytes > self._max_bytes
        if is_over and self._uploads:
            raise Overloaded("Too many uploads are under way.", advice="Try again in a few seconds.")
        self._uploads += 1
        self._bytes += size_bytes
        try:
            yield
        finally:
            self._uploads -= 1
            self._bytes -= size_bytes
