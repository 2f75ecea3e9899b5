"""Folders for people's pictures that are needed for a moment, and gone afterwards, however their process ended."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

# A folder that is just being made is not locked yet.
_YOUNG_S = 60.0


@contextmanager
def work_folder(purpose: str) -> Iterator[Path]:
    """An empty folder of this user's alone, removed at the end of the block.

    What a killed process left of the same purpose is removed first: a living one holds a lock on its folder, which the
    system frees when it dies.
    """
    prefix = f"likeness-{purpose}-"
    _sweep(prefix)
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(descriptor)


def _sweep(prefix: str) -> None:
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        try:
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # gone, not a folder, or another user's
        try:
            found = os.fstat(descriptor)
            if found.st_uid != os.geteuid() or time.time() - found.st_mtime < _YOUNG_S:
                continue
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
            structlog.get_logger().info("leftover_work_folder_removed", folder=left.name)
        except BlockingIOError:
            continue  # a living process works there
        finally:
            os.close(descriptor)
