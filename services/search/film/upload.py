"""Receiving a film: to disk as it comes, never in memory."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from anyio.to_thread import run_sync
from starlette.requests import Request

from services.search.film.settings import FilmsSettings
from services.search.film.submit import FILM_FIELD
from services.shared.multipart import Upload, read_multipart

_BUFFERED_BYTES = 1024 * 1024


class FilmSpool:
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


@asynccontextmanager
async def received(request: Request, settings: FilmsSettings) -> AsyncIterator[tuple[Upload, Path]]:
    """The form and where its film lies while the block runs. Raises InvalidRequest, PayloadTooLarge."""
    # Without a name of its own, so that nothing is left behind by a service that is killed.
    with tempfile.TemporaryFile(dir=settings.spool_path) as file:
        spool = FilmSpool(file)
        upload = await read_multipart(request, frozenset({FILM_FIELD}), max_file_bytes=settings.max_bytes, spool=spool)
        await run_sync(spool.flush)
        yield upload, Path(f"/proc/self/fd/{file.fileno()}")
