"""Images in a folder: the embedded adapter of the ImageStore port."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from services.shared.errors import DependencyUnavailable, IntegrityError, NotFound
from services.shared.ports.image_store import StoredImage

_NAME = re.compile(r"[0-9a-f]{64}")
_INCOMING = "incoming"


class FolderImageStore:
    """Content-addressed files `ab/c/<sha256>` below one folder; several processes may share it.

    The 4,096 folders hold a few dozen files each at 100,000 images and a few thousand at ten million.

    A put writes a temporary file, syncs it, renames it into place and syncs the folder, so that under a final name
    there is never anything but whole, durable bytes. The writer holds a lock on its temporary file: what an earlier,
    killed writer left behind is not locked, and the next start sweeps it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._incoming = path / _INCOMING
        with _translated(path):
            self._incoming.mkdir(parents=True, exist_ok=True)
            self._sweep()

    def put(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        final = self._file(sha256)
        with _translated(self._path):
            if self._holds(final, content):
                # Whoever wrote it may have been killed between the rename and the sync of the folder.
                _sync_folder(final.parent)
                with suppress(OSError):  # of a store that can only be read, nothing is swept either
                    os.utime(final)
                return sha256
            self._make_folder(final.parent)
            try:
                self._write(final, content)
            except FileNotFoundError:
                # A sweep of another process came between making the temporary file and locking it.
                self._write(final, content)
        return sha256

    def get(self, sha256: str) -> bytes:
        path = self._checked_file(sha256)
        with _translated(self._path):
            try:
                content = path.read_bytes()
            except FileNotFoundError as error:
                raise NotFound(f"No image {sha256} is stored.", advice="Check the SHA-256.") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise IntegrityError(
                f"The stored image {sha256} is not what it was.",
                advice="Operators: restore this file from the backup and check the disk.",
            )
        return content

    def has(self, sha256: str) -> bool:
        path = self._checked_file(sha256)
        with _translated(self._path):
            return path.is_file()

    def remove(self, sha256: str) -> None:
        path = self._checked_file(sha256)
        with _translated(self._path):
            try:
                path.unlink()
            except FileNotFoundError:
                return
            _sync_folder(path.parent)

    def names(self) -> Iterator[str]:
        """The SHA-256 of everything that is stored, in order, as it stands when each folder is read."""
        with _translated(self._path):
            for folder in sorted(self._path.glob("[0-9a-f][0-9a-f]/[0-9a-f]")):
                yield from sorted(file.name for file in folder.iterdir() if _NAME.fullmatch(file.name))

    def stored(self) -> Iterator[StoredImage]:
        for name in self.names():
            stored_at = self._stored_at(name)
            if stored_at is not None:
                yield StoredImage(name, stored_at, name)

    def discard(self, image: StoredImage) -> bool:
        stored_at = self._stored_at(image.name)
        if stored_at is not None and stored_at > image.stored_at:
            return False
        self.remove(image.name)
        return True

    def _stored_at(self, name: str) -> datetime | None:
        """When it was put last; None when it is gone."""
        with _translated(self._path):
            try:
                return datetime.fromtimestamp(self._checked_file(name).stat().st_mtime, UTC)
            except FileNotFoundError:
                return None

    def _file(self, sha256: str) -> Path:
        return self._path / sha256[:2] / sha256[2] / sha256

    def _checked_file(self, sha256: str) -> Path:
        # A name that is not a digest could point outside the folder.
        if not _NAME.fullmatch(sha256):
            raise NotFound(
                "That is not the name of a stored image.", advice="Give a SHA-256 as 64 lower-case hex digits."
            )
        return self._file(sha256)

    def _holds(self, final: Path, content: bytes) -> bool:
        """Whether these very bytes are stored; damaged ones are not, and a new put heals them."""
        try:
            return final.stat().st_size == len(content) and final.read_bytes() == content
        except FileNotFoundError:
            return False

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        folder.mkdir(parents=True, exist_ok=True)
        for changed in (folder.parent, self._path):
            _sync_folder(changed)

    def _write(self, final: Path, content: bytes) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=self._incoming)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o440)
                os.fsync(file.fileno())
                # Renamed while the lock is held, so that no sweep can come between.
                Path(temporary).replace(final)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_folder(final.parent)

    def _sweep(self) -> None:
        for left in self._incoming.iterdir():
            with suppress(FileNotFoundError), left.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # a living writer's
                left.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DependencyUnavailable(
            f"The image store {path} cannot be used: {error.strerror or error}.",
            advice="Operators: check that the disk is there, writable and not full.",
        ) from error
