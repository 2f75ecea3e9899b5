"""The port to immutable images."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One object of a store: the SHA-256 of the image that it is (of the object itself where it belongs to no image
    that anybody knows), when it was last stored by the store's own clock, and its name there."""

    sha256: str
    stored_at: datetime
    name: str


class ImageStore(Protocol):
    """Content-addressed, write-once bytes. Contract tests: tests/contract/test_image_store.py."""

    def put(self, content: bytes) -> str:
        """Store bytes durably and return their SHA-256 (64 hex digits). The same bytes again change nothing.

        Raises DependencyUnavailable when the store cannot be written; then nothing is half-written under that name.
        """
        ...

    def get(self, sha256: str) -> bytes:
        """The bytes, verified against their name.

        Raises NotFound when absent, IntegrityError when the stored bytes no longer have that hash,
        DependencyUnavailable when the store does not answer.
        """
        ...

    def has(self, sha256: str) -> bool:
        """Whether bytes of that name are stored. Raises DependencyUnavailable."""
        ...

    def remove(self, sha256: str) -> None:
        """Erase the bytes, because law asks for it. Absent bytes are no error. Raises DependencyUnavailable."""
        ...


class SweepableImageStore(ImageStore, Protocol):
    """An image store that can be gone through. Contract tests: tests/contract/test_image_store.py."""

    def stored(self) -> Iterator[StoredImage]:
        """Everything that is stored, in order of its names, as it stands when it is come to. Raises
        DependencyUnavailable."""
        ...

    def discard(self, image: StoredImage) -> bool:
        """Remove an object that nobody needs; absent ones are no error.

        False, and nothing is done, where the store keeps it under a lock (which this does not bypass: `remove` does,
        where law asks for it) or where it was stored again since it was listed. Raises DependencyUnavailable.
        """
        ...
