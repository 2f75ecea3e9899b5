"""Templates under their images' keys: destroying an image's key erases its template in every copy of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from services.shared.adapters.image_keys import ImageKeys, SealedBytes


@dataclass(frozen=True, slots=True)
class KeptTemplate:
    """A template as the ledger holds it: `content` is sealed unless it has exactly `dimension` floats."""

    image_sha256: str
    dimension: int
    content: bytes

    @property
    def is_sealed(self) -> bool:
        return len(self.content) != 4 * self.dimension


class TemplateVault:
    """Seals templates before they are written, opens them after they are read. Without keys it does neither."""

    def __init__(self, keys: ImageKeys | None = None) -> None:
        self._keys = keys

    def seal(self, templates: Sequence[KeptTemplate]) -> list[bytes]:
        """As they are to be written, in the same order. What belongs to no image (a synthetic one) stays open."""
        if self._keys is None:
            return [each.content for each in templates]
        names = {each.image_sha256 for each in templates if each.image_sha256 and each.content}
        keys = {name: found.key for name, found in self._keys.find(sorted(names)).items()}
        missing = names - keys.keys()
        if missing:  # stored before there were keys
            keys |= {name: made.key for name, made in self._keys.ensure(dict.fromkeys(sorted(missing), "")).items()}
        return [
            SealedBytes.seal(keys[each.image_sha256], _name(each), each.content)
            if each.image_sha256 in keys and each.content
            else each.content
            for each in templates
        ]

    def open(self, templates: Sequence[KeptTemplate]) -> list[bytes]:
        """The templates in the same order; empty where the key was destroyed: that one is erased, whatever the ledger
        says. Raises IntegrityError for sealed bytes that are damaged."""
        sealed = sorted({each.image_sha256 for each in templates if each.content and each.is_sealed})
        keys = self._keys.find(sealed) if self._keys is not None and sealed else {}
        if len(keys) < len(sealed):
            structlog.get_logger().warning("templates_without_key", count=len(sealed) - len(keys))
        return [_opened(each, keys[each.image_sha256].key if each.image_sha256 in keys else None) for each in templates]


def _opened(template: KeptTemplate, key: bytes | None) -> bytes:
    if not template.content or not template.is_sealed:
        return template.content
    return b"" if key is None else SealedBytes.open(key, _name(template), template.content)


def _name(template: KeptTemplate) -> str:
    return f"template/{template.image_sha256}"
