"""What a rebuilt gallery has more or less than the one that it replaces, for the account of what is searchable."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from services.search.ports import GalleryStore, ListsReferences, ReferenceRecord
from services.search.upkeep.contents import GalleryContents, TellsStanding


class Lacking:
    """Gathers, while the new store is filled, what the old one lacks."""

    def __init__(self, old: GalleryStore) -> None:
        self._old = old
        self._lacked: list[ReferenceRecord] = []

    def note(self, records: Sequence[ReferenceRecord]) -> None:
        """These went into the new store."""
        if isinstance(self._old, TellsStanding):
            standing = self._old.standing([record.reference_id for record in records])
            self._lacked += [record for record, stands in zip(records, standing, strict=True) if not stands]

    def tell(self, contents: GalleryContents, fresh: GalleryStore) -> None:
        """Bring the account up to date. To be called while nothing changes."""
        if not isinstance(fresh, TellsStanding) or not isinstance(self._old, ListsReferences):
            return
        surplus = 0
        for held in self._old.references():
            standing = fresh.standing(held.reference_ids)
            contents.note_withdrawn(held.reference_ids, standing)
            surplus += sum(not stands for stands in standing)
        contents.note_put(self._lacked, fresh.standing([record.reference_id for record in self._lacked]))
        if surplus or self._lacked:
            structlog.get_logger().error("gallery_had_drifted", lacked=len(self._lacked), surplus=surplus)
