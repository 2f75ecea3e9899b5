"""Originals are scanned before they are stored: an ImageStore around another one.

Here, and nowhere else, bytes that came from outside meet the virus scanner: whatever door they came through, a service
keeps them by `put`, by `put_pieces` (films) or by `check_stored` (what somebody else put into the store). Pictures that
the platform made itself, from pixels, are stored with `unscanned` (services/shared/originals.py).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from threading import Lock

import structlog

from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailable, FilmRefused, ImageRefused
from services.shared.originals import Pieces
from services.shared.ports.image_store import ImageStore, StoredImage, SweepableImageStore
from services.shared.ports.malware_scanner import MalwareScanner
from services.shared.telemetry import Metrics

# What was clean is not scanned again for so long: a repeated request, a probe that was looked at before. No longer,
# because signatures grow.
_REMEMBERED_S = 600.0
_REMEMBERED = 4096
_ADVICE = "Do not open the file; tell your security officer, and send a picture from its source."


class ScannedImageStore:
    """See services.shared.ports.image_store. `put` raises ImageRefused (`image_malware`) for what the scanner knows,
    and DependencyUnavailable where it gives no verdict; then nothing is stored.

    The name of the signature goes to the log and not to the caller, who could work around it.
    """

    def __init__(self, beneath: SweepableImageStore, scanner: MalwareScanner, metrics: Metrics, clock: Clock) -> None:
        self.beneath: ImageStore = beneath
        self._sweepable = beneath
        self._scanner = scanner
        self._metrics = metrics
        self._clock = clock
        self._lock = Lock()
        self._clean: OrderedDict[str, float] = OrderedDict()
        for outcome in ("clean", "found", "failed"):
            metrics.malware_scans_total.labels(outcome)  # from nought, so that the first finding is an increase

    def put(self, content: bytes) -> str:
        self._require_clean(hashlib.sha256(content).hexdigest(), (content,), is_film=False)
        return self.beneath.put(content)

    def put_pieces(self, pieces: Pieces) -> list[str]:
        """Scanned as one, then stored each. `pieces` is called twice. Raises FilmRefused (`film_malware`)."""
        digest = hashlib.sha256()
        for piece in pieces():
            digest.update(piece)
        self._require_clean(digest.hexdigest(), pieces(), is_film=True)
        return [self.beneath.put(piece) for piece in pieces()]

    def check_stored(self, sha256: str) -> None:
        """What is here already, put by others. Raises as `put` and `get`."""
        if not self._is_known(sha256):
            self._require_clean(sha256, (self.beneath.get(sha256),), is_film=False)

    def get(self, sha256: str) -> bytes:
        return self.beneath.get(sha256)

    def has(self, sha256: str) -> bool:
        return self.beneath.has(sha256)

    def remove(self, sha256: str) -> None:
        self.beneath.remove(sha256)

    def stored(self) -> Iterator[StoredImage]:
        return self._sweepable.stored()

    def discard(self, image: StoredImage) -> bool:
        return self._sweepable.discard(image)

    def _require_clean(self, sha256: str, pieces: Iterable[bytes], *, is_film: bool) -> None:
        if self._is_known(sha256):
            return
        try:
            signature = self._scanner.scan(pieces)
        except DependencyUnavailable:
            self._metrics.malware_scans_total.labels("failed").inc()
            raise
        self._metrics.malware_scans_total.labels("clean" if signature is None else "found").inc()
        if signature is None:
            self._remember(sha256)
            return
        structlog.get_logger().warning(
            "malware_found", sha256=sha256, signature=signature, scanner=self._scanner.name, is_film=is_film
        )
        if is_film:
            raise FilmRefused("The virus scanner refuses the film.", code="film_malware", advice=_ADVICE)
        raise ImageRefused("The virus scanner refuses the file.", code="image_malware", advice=_ADVICE)

    def _is_known(self, sha256: str) -> bool:
        with self._lock:
            scanned_s = self._clean.get(sha256)
        return scanned_s is not None and self._clock.monotonic_s() - scanned_s < _REMEMBERED_S

    def _remember(self, sha256: str) -> None:
        with self._lock:
            self._clean[sha256] = self._clock.monotonic_s()
            self._clean.move_to_end(sha256)
            if len(self._clean) > _REMEMBERED:
                self._clean.popitem(last=False)
