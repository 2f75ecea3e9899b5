"""Images under keys of their own: an ImageStore around another one that sees sealed bytes only."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import structlog

from services.shared.adapters.image_keys import ImageKeys, SealedBytes
from services.shared.adapters.master_key import KEY_BYTES
from services.shared.errors import IntegrityError, NotFound
from services.shared.ports.image_store import StoredImage, SweepableImageStore

_LISTED_TOGETHER = 500
_NAME = re.compile(r"[0-9a-f]{64}")


class SealedImageStore:
    """See services.shared.ports.image_store. An image is known by its own SHA-256; the store beneath holds its sealed
    bytes under theirs, so that neither a backup nor a locked object version can be read once the key is destroyed.

    Images that the store beneath held unsealed, from before, are still found there.
    """

    def __init__(self, beneath: SweepableImageStore, keys: ImageKeys) -> None:
        self._beneath = beneath
        self._keys = keys

    def put(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        standing = self._keys.find([sha256]).get(sha256)
        if standing is not None and standing.sealed_sha256 and self._beneath_holds(standing.sealed_sha256):
            return sha256
        key = standing.key if standing is not None else os.urandom(KEY_BYTES)
        sealed_sha256 = self._beneath.put(SealedBytes.seal(key, sha256, content))
        if standing is not None:
            self._keys.point(sha256, sealed_sha256)
            return sha256
        stands = self._keys.ensure({sha256: sealed_sha256}, {sha256: key})[sha256]
        if stands.sealed_sha256 != sealed_sha256:
            # Somebody else stored the same image at the same moment, or its template came first: theirs is the key.
            self._beneath.remove(sealed_sha256)
            if not stands.sealed_sha256:
                return self.put(content)
        return sha256

    def get(self, sha256: str) -> bytes:
        key = self._keys.find([_checked(sha256)]).get(sha256)
        if key is None or not key.sealed_sha256:
            return self._beneath.get(sha256)
        content = SealedBytes.open(key.key, sha256, self._beneath.get(key.sealed_sha256))
        if hashlib.sha256(content).hexdigest() != sha256:
            raise IntegrityError(
                f"The stored image {sha256} is not what it was.", advice="Operators: restore it from the backup."
            )
        return content

    def has(self, sha256: str) -> bool:
        key = self._keys.find([_checked(sha256)]).get(sha256)
        if key is not None and key.sealed_sha256:
            return self._beneath.has(key.sealed_sha256)
        return self._beneath.has(sha256)

    def remove(self, sha256: str) -> None:
        """The key first: what cannot be removed beneath, a backup or a locked version, is unreadable from then on."""
        sealed_sha256 = self._keys.destroy(_checked(sha256))
        if sealed_sha256:
            self._beneath.remove(sealed_sha256)
        self._beneath.remove(sha256)
        self._keys.forget(sha256)

    def stored(self) -> Iterator[StoredImage]:
        """What is sealed goes by the image that its key is of. Sealed bytes that no key points to, which a writer left
        that was killed between the two, go by their own name and open for nobody."""
        objects = self._beneath.stored()
        while some := list(islice(objects, _LISTED_TOGETHER)):
            images = self._keys.sealed_as([each.name for each in some])
            for each in some:
                yield replace(each, sha256=images.get(each.name, each.name))

    def discard(self, image: StoredImage) -> bool:
        """The bytes first, so that what the store keeps under a lock keeps its key."""
        if not self._beneath.discard(image):
            return False
        if image.sha256 != image.name:
            self._keys.destroy(image.sha256)
            self._keys.forget(image.sha256)
        return True

    def _beneath_holds(self, sealed_sha256: str) -> bool:
        """Whether the sealed bytes are there and whole; a new put heals them when they are not."""
        try:
            self._beneath.get(sealed_sha256)
        except (NotFound, IntegrityError) as error:
            structlog.get_logger().warning("sealed_image_lost", sealed_sha256=sealed_sha256, code=error.code)
            return False
        return True


def _checked(sha256: str) -> str:
    if not _NAME.fullmatch(sha256):
        raise NotFound("That is not the name of a stored image.", advice="Give a SHA-256 as 64 lower-case hex digits.")
    return sha256
