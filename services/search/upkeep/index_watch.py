"""Watches the recall of a gallery's index: measured when it is loaded, when it has grown, and every so often."""

from __future__ import annotations

import math
from time import monotonic

import structlog

from services.search.ports import GalleryStore
from services.search.settings import GalleryIndexSettings
from services.search.upkeep.index import EXACT, GalleryIndex, HasIndex
from services.shared.errors import GalleryIncomplete
from services.shared.telemetry import Metrics

GROWTH = 0.1  # measured again when the gallery is a tenth larger or smaller


class IndexWatch:
    """Of one gallery. An exact index costs nothing here."""

    def __init__(self, settings: GalleryIndexSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._measured_at_s = -math.inf
        self._references = 0

    @staticmethod
    def index(store: GalleryStore) -> GalleryIndex:
        return store.index if isinstance(store, HasIndex) else EXACT

    def tend(self, store: GalleryStore, references: int) -> None:
        """Measure where that is due. Raises what measuring raises."""
        if not isinstance(store, HasIndex) or store.index.is_exact or not self._is_due(references):
            return
        store.measure_recall()
        self._measured_at_s, self._references = monotonic(), references
        measured = store.index.recall
        if measured is None:
            return
        self._metrics.search_gallery_index_recall.labels(store.index.kind).set(measured.recall)
        log = structlog.get_logger()
        told = {"kind": store.index.kind, "recall": round(measured.recall, 4), "low": round(measured.low, 4)}
        if measured.recall < self._settings.min_recall:
            log.error("gallery_index_below_floor", floor=self._settings.min_recall, **told)
        else:
            log.info("gallery_index_measured", probes=measured.probes, **told)

    def require(self, store: GalleryStore, references: int) -> None:
        """Raises GalleryIncomplete where the index finds less than the floor, or nobody has measured what it finds."""
        if not isinstance(store, HasIndex) or store.index.is_exact or not references:
            return
        index = store.index
        if index.recall is None:
            raise GalleryIncomplete(
                f"The approximate index {index.kind} has not been measured yet.", advice="Try again in a minute."
            )
        if self._settings.below_floor == "refuse" and index.recall.recall < self._settings.min_recall:
            raise GalleryIncomplete(
                f"The approximate index {index.kind} finds a share of {index.recall.recall:.3f} of what an exact "
                f"search finds; the floor is {self._settings.min_recall:g}.",
                advice="Operators: search wider (GALLERY__INDEX__SEARCH), build the index finer, or use FLAT.",
                code="index_below_floor",
            )

    def _is_due(self, references: int) -> bool:
        if not references:
            return False
        is_old = monotonic() - self._measured_at_s > self._settings.measure_every_h * 3600
        return is_old or abs(references - self._references) > GROWTH * self._references
