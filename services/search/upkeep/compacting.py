"""After withdrawals: the store is asked to write anew what held the rows. The composition root calls it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.search.settings import GallerySettings
from services.shared.clock import Clock
from services.shared.periodic import Periodic

_LOOK_EVERY_S = 10.0


@dataclass(frozen=True)
class Compacting:
    """`ask` is to be called after a withdrawal. All of it does nothing where the store keeps nothing on a disk."""

    ask: Callable[[], None]
    periodics: Sequence[Periodic]
    closers: Sequence[Callable[[], None]]


def compacting(settings: GallerySettings, clock: Clock) -> Compacting:
    if settings.kind != "milvus" or not settings.compact_every_s:
        return Compacting(lambda: None, (), ())
    from services.search.adapters.milvus_compaction import MilvusCompaction  # noqa: PLC0415 - an extra

    compaction = MilvusCompaction(settings, clock, settings.compact_every_s)
    return Compacting(compaction.ask, (Periodic("compaction", compaction.step, _LOOK_EVERY_S),), (compaction.close,))
