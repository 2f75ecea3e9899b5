"""The port to immutable images."""

from typing import Protocol


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
