"""Receiving a film: to disk as it comes, never in memory."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio.to_thread import run_sync
from starlette.requests import Request

from services.search.film.settings import FilmsSettings
from services.search.film.submit import FILM_FIELD
from services.shared.file_spool import FileSpool
from services.shared.multipart import Upload, read_multipart


@asynccontextmanager
async def received(request: Request, settings: FilmsSettings) -> AsyncIterator[tuple[Upload, Path]]:
    """The form and where its film lies while the block runs. Raises InvalidRequest, PayloadTooLarge."""
    # Without a name of its own, so that nothing is left behind by a service that is killed.
    with tempfile.TemporaryFile(dir=settings.spool_path) as file:
        spool = FileSpool(file)
        upload = await read_multipart(request, frozenset({FILM_FIELD}), max_file_bytes=settings.max_bytes, spool=spool)
        await run_sync(spool.flush)
        yield upload, Path(f"/proc/self/fd/{file.fileno()}")
