"""A file as the place that `services.shared.multipart` puts large uploads in."""

from __future__ import annotations

from typing import IO

from anyio.to_thread import run_sync

_BUFFERED_BYTES = 1024 * 1024


class FileSpool:
    """A file that takes what the parser gives; the disk is waited for off the event loop."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._waiting_bytes += len(data)

    async def drain(self) -> None:
        if self._waiting_bytes >= _BUFFERED_BYTES:
            await run_sync(self.flush)

    def flush(self) -> None:
        """Everything is in the file when it returns."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._file.writelines(waiting)
        self._file.flush()
