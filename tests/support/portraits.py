"""A few real portraits from pinned packages, for tests and measurements on any machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

from services.local.demo.pictures import prepare_pictures

FILES = ("not-enrolled.png", "subject-1-reference.jpg", "subject-1-portrait.jpg", "subject-2-reference.jpg")


def portraits() -> list[bytes]:
    """The bytes of each portrait; one face each. The packages are kept in the cache folder."""
    with tempfile.TemporaryDirectory() as folder:
        prepare_pictures(Path(folder))
        return [(Path(folder) / name).read_bytes() for name in FILES]
