"""Films on their way in: to disk as they come, never in memory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from anyio.to_thread import run_sync
from pydantic import BaseModel, Field
from starlette.requests import Request

from services.shared.errors import InvalidRequest
from services.shared.file_spool import FileSpool
from services.shared.multipart import Upload, read_multipart
from services.shared.settings import MAX_IMAGE_BYTES

FILM = "film"
_READ_BYTES = 1024 * 1024


class FilmSettings(BaseModel):
    """Films of requests: how large, where they lie while they come and go, and who reads them."""

    max_bytes: int = Field(default=2 * 1024**3, ge=1024, le=8 * 1024**3)
    # Temporary files by default; where that is memory, a folder on a disk.
    spool_path: Path | None = None
    # The HTTP side of search, which finds the people in a film.
    search_url: str = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class FilmUpload:
    """A film that was received; `file` is closed with the request that brought it."""

    file: IO[bytes]
    sha256: str
    size_bytes: int

    def pieces(self, piece_bytes: int) -> Iterator[bytes]:
        self.file.seek(0)
        while piece := self.file.read(piece_bytes):
            yield piece

    @classmethod
    def of(cls, file: IO[bytes]) -> FilmUpload:
        """A file as it lies there, from its start."""
        digest, size = hashlib.sha256(), 0
        file.seek(0)
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
            size += len(chunk)
        return cls(file, digest.hexdigest(), size)


@contextmanager
def spooled(settings: FilmSettings) -> Iterator[IO[bytes]]:
    """A file without a name, so that a service that is killed leaves nothing behind."""
    if settings.spool_path is not None:
        settings.spool_path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=settings.spool_path) as file:
        yield file


async def read_request(
    request: Request, file_fields: frozenset[str], settings: FilmSettings, file: IO[bytes], *, max_text_bytes: int
) -> tuple[Upload, FilmUpload | None]:
    """A form whose pictures are held in memory and whose film, one at most, goes to `file`.

    Raises InvalidRequest, PayloadTooLarge.
    """
    spool = FileSpool(file)
    upload = await read_multipart(
        request,
        file_fields | {FILM},
        max_file_bytes=MAX_IMAGE_BYTES,
        max_text_bytes=max_text_bytes,
        spool=spool,
        spooled=frozenset({FILM}),
        max_spooled_bytes=settings.max_bytes,
    )
    await run_sync(spool.flush)
    if len(upload.files.get(FILM, ())) > 1:
        problem = "One film to a request."
        raise InvalidRequest(
            problem, advice="Send a request for each.", context={"fields": [{"field": FILM, "problem": problem}]}
        )
    film = await run_sync(FilmUpload.of, file)
    return upload, film if film.size_bytes else None
