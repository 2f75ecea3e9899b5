"""Reading the file of one row: only what lies below the manifest's folder, only regular files, only so large."""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from pathlib import Path

from services.ingest.bulk.manifest import BulkRow
from services.shared.settings import MAX_IMAGE_BYTES


class Unreadable(Exception):
    """Why a row's file is not sent: a code, and what to do about it. The other rows go on."""

    def __init__(self, problem: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail


def key_of(row: BulkRow) -> str:
    """The row's key in the journal. Raises Unreadable."""
    try:
        return row.key
    except OSError as error:
        raise _unreadable(row, error) from error


def read_image(row: BulkRow) -> bytes:
    """Raises Unreadable. A manifest may be somebody else's: what it names outside its folder is nobody's to send."""
    try:
        if row.below is not None and not row.path.resolve().is_relative_to(_resolved(row.below)):
            raise Unreadable("path_outside_folder", f"{row.name} leads out of {row.below}. Put the file below it.")
        # A named pipe would be waited for without end.
        descriptor = os.open(row.path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise Unreadable("file_unreadable", f"{row.name} is no file that can be read. Name the image itself.")
            content = b"" if found.st_size > MAX_IMAGE_BYTES else file.read(MAX_IMAGE_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:  # links in a circle, a name with a NUL in it
        raise _unreadable(row, error) from error
    if found.st_size > MAX_IMAGE_BYTES or len(content) > MAX_IMAGE_BYTES:
        raise Unreadable("payload_too_large", "The file is over 32 MiB. Send the camera's file.")
    return content


@lru_cache(maxsize=8)
def _resolved(folder: Path) -> Path:
    return folder.resolve()


def _unreadable(row: BulkRow, error: Exception) -> Unreadable:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        where = "in the archive" if row.below is None else f"below {row.below}"
        hint = " Write `/` in its path, not `\\`." if "\\" in row.name else " `path` counts from there."
        return Unreadable("file_unreadable", f"There is no {row.name} {where}.{hint}")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return Unreadable("file_unreadable", f"{row.name} cannot be read: {reason}. Check who may read it, and its disk.")
