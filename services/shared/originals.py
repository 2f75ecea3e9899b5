"""How a use case keeps what came from outside, and what the platform made of it.

A store that scans (services/shared/adapters/scanned_image_store.py) does so at every `put`; here is what a plain `put`
cannot say: that several pieces are one file, that somebody else put it there, that it needs no scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from services.shared.ports.image_store import ImageStore

Pieces = Callable[[], Iterable[bytes]]


@runtime_checkable
class ScansOriginals(Protocol):
    """Of an image store that shows originals to a virus scanner first."""

    beneath: ImageStore

    def put_pieces(self, pieces: Pieces) -> list[str]: ...

    def check_stored(self, sha256: str) -> None: ...


def put_pieces(store: ImageStore, pieces: Pieces) -> list[str]:
    """Store what is too large for one put. `pieces` gives it from its start at every call. Raises FilmRefused
    (`film_malware`), DependencyUnavailable."""
    if isinstance(store, ScansOriginals):
        return store.put_pieces(pieces)
    return [store.put(piece) for piece in pieces()]


def check_stored(store: ImageStore, sha256: str) -> None:
    """An image that somebody else put into the store, before it is used. Raises ImageRefused (`image_malware`),
    NotFound, IntegrityError, DependencyUnavailable."""
    if isinstance(store, ScansOriginals):
        store.check_stored(sha256)


def unscanned(store: ImageStore) -> ImageStore:
    """The same store, for pictures that the platform made itself."""
    return store.beneath if isinstance(store, ScansOriginals) else store
