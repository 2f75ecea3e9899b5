"""A film's bytes as images of the probe store: pieces of 16 MiB, each under its own SHA-256, so that every store that
keeps images, sealed under keys of their own or not, keeps films too, and nobody ever holds a whole film in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from services.shared.originals import put_pieces
from services.shared.ports.image_store import ImageStore

PIECE_BYTES = 16 * 1024 * 1024
_WIRE_BYTES = 1024 * 1024


def sha256_of(file: IO[bytes]) -> str:
    """From the start of the file to its end."""
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(_WIRE_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def seal(store: ImageStore, path: Path) -> list[str]:
    """Store a film; the names of its pieces, in order. Raises FilmRefused (`film_malware`), DependencyUnavailable."""

    def pieces() -> Iterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece

    return put_pieces(store, pieces)


def unseal(store: ImageStore, pieces: Sequence[str]) -> Iterator[bytes]:
    """The film's bytes again, in the pieces that cross the wire. Raises NotFound, IntegrityError,
    DependencyUnavailable; whoever takes them verifies the whole."""
    for piece in pieces:
        content = store.get(piece)
        for start in range(0, len(content), _WIRE_BYTES):
            yield content[start : start + _WIRE_BYTES]
