"""Sealed images whose keys nobody else looks after: probes, and the pictures of requests.

Two things happen here by themselves: after an erasure the master key is changed, so that a copy of the key table from
before opens nothing; and images that were stored before there were keys are sealed in their turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import Lock, Thread, Timer
from typing import Any

import sqlalchemy as sa
import structlog

from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.adapters.image_keys import ImageKeys, SealedBytes, image_keys
from services.shared.adapters.sealed_image_store import SealedImageStore
from services.shared.errors import DependencyUnavailable, LikenessError, NotFound
from services.shared.ports.image_store import StoredImage, SweepableImageStore

# What is erased together, such as the frames of a film, is one change of the master key.
_RENEW_AFTER_S = 5.0
_TRY_AGAIN_AFTER_S = 60.0


class SelfSealingImageStore:
    """See services.shared.ports.image_store.SweepableImageStore. `start` looks after what an earlier process left.

    A key that was destroyed leaves its empty row until the master key was changed after it: the next process finds it.
    """

    def __init__(self, beneath: SweepableImageStore, keys: ImageKeys, *, renew_after_s: float = _RENEW_AFTER_S) -> None:
        self._beneath = beneath
        self._keys = keys
        self._sealed = SealedImageStore(beneath, keys)
        self._renew_after_s = renew_after_s
        # An erasure and the sealing of the same open image take turns, or the image would be there again.
        self._moving = Lock()
        self._timing = Lock()
        self._is_due = False

    def start(self) -> None:
        """Change the master key where that is due; seal what lies open in a folder. In the background."""
        Thread(target=_logged("sealing_open_images", self._tend), name="seal-images", daemon=True).start()

    def put(self, content: bytes) -> str:
        return self._sealed.put(content)

    def get(self, sha256: str) -> bytes:
        try:
            return self._sealed.get(sha256)
        except NotFound:
            return self._sealed.get(sha256)  # it was sealed between the look for its key and the look for its bytes

    def has(self, sha256: str) -> bool:
        return self._sealed.has(sha256) or self._sealed.has(sha256)

    def remove(self, sha256: str) -> None:
        with self._moving:
            sealed_sha256 = self._keys.destroy(sha256)
            if sealed_sha256:
                self._beneath.remove(sealed_sha256)
            self._beneath.remove(sha256)
        if sealed_sha256:
            self._renew_in(self._renew_after_s)

    def stored(self) -> Iterator[StoredImage]:
        return self._sealed.stored()

    def discard(self, image: StoredImage) -> bool:
        with self._moving:
            return self._sealed.discard(image)

    def seal_open(self, folder: FolderImageStore) -> int:
        """Seal what lies there as it was received; how many. Safe beside everything else of this process."""
        return sum(self._seal(folder, name) for name in list(folder.names()))

    def renew(self) -> bool:
        """Change the master key if a key was destroyed since; whether it was."""
        query = sa.select(image_keys.c.sha256, image_keys.c.sealed_sha256).where(image_keys.c.wrapped == b"")
        destroyed = self._ask(query)
        if destroyed:
            self._keys.change_master()
        for row in destroyed:
            if row.sealed_sha256:
                self._beneath.remove(row.sealed_sha256)  # once more: the process may have ended after the key had gone
            self._keys.forget(row.sha256)
        return bool(destroyed)

    def _tend(self) -> None:
        self.renew()
        if isinstance(self._beneath, FolderImageStore):
            count = self.seal_open(self._beneath)
            if count:
                structlog.get_logger().info("open_images_sealed", images=count)

    def _seal(self, folder: FolderImageStore, name: str) -> bool:
        with self._moving:
            if self._is_sealed(name):
                return False
            try:
                content = folder.get(name)
            except NotFound:
                return False  # erased meanwhile
            if content.startswith(SealedBytes.MARK):
                return False  # of a writer that is between its two steps, or was killed there
            self._sealed.put(content)
            folder.remove(name)
            return True

    def _is_sealed(self, name: str) -> bool:
        query = sa.select(image_keys.c.sha256).where(image_keys.c.sealed_sha256 == name)
        return bool(self._ask(query))

    def _ask(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        try:
            with self._keys.engine.connect() as connection:
                return connection.execute(query).all()
        except sa.exc.SQLAlchemyError as error:
            raise DependencyUnavailable(
                "The key table of images cannot be read.", advice="Operators: check its disk or server."
            ) from error

    def _renew_in(self, seconds: float) -> None:
        with self._timing:
            if self._is_due:
                return
            self._is_due = True
        timer = Timer(seconds, _logged("master_key_change", self._renew_when_due))
        timer.daemon = True
        timer.start()

    def _renew_when_due(self) -> None:
        with self._timing:
            self._is_due = False
        try:
            self.renew()
        except LikenessError:
            self._renew_in(_TRY_AGAIN_AFTER_S)
            raise


def _logged(what: str, work: Callable[[], None]) -> Callable[[], None]:
    """For a thread of its own: an error is told and does not end anything else."""

    def run() -> None:
        log = structlog.get_logger()
        try:
            work()
        except LikenessError as error:
            log.warning("image_keys_not_tended", work=what, code=error.code, detail=error.detail)
        except Exception:
            log.exception("image_keys_broke", work=what)

    return run
