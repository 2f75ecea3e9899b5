"""The gallery snapshot of a disclosure, worked out again from the enrolment ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import Any

import sqlalchemy as sa

from services.ingest.adapters.schema import enrolments
from services.shared.database import create_engine
from services.shared.errors import ConfigurationError
from services.shared.gallery_snapshot import GallerySnapshot, Partition, partition_digest
from services.shared.settings import DatabaseSettings

# How long a withdrawal may take from the ledger to the gallery.
MOTION_MS = 60_000
# More references than this in motion at one moment and their subsets are not tried.
MAX_IN_MOTION = 8


@dataclass(frozen=True, slots=True)
class _Standing:
    """References of one partition: those that stood for sure, and those that were just coming or going."""

    sure: frozenset[str]
    in_motion: tuple[str, ...]


def compare_with_ledger(snapshot: GallerySnapshot, url: str, begun: datetime, ended: datetime) -> int:
    """How many references were in motion while the search ran, all of them accounted for.

    Raises ValueError that names the first partition that the ledger gives otherwise, ConfigurationError.
    """
    in_motion = 0
    for partition in snapshot.partitions:
        standing = _standing(partition, snapshot.model_id, url, _ms(begun), _ms(ended))
        if not any(partition_digest(names) == partition.digest for names in _possible(standing, partition.references)):
            raise ValueError(
                f"the ledger gives {len(standing.sure)} references of {partition.owner} in {partition.watchlist_id} "
                f"and {len(standing.in_motion)} in motion, the snapshot holds {partition.references} or others"
            )
        in_motion += len(standing.in_motion)
    return in_motion


def _possible(standing: _Standing, count: int) -> Iterator[frozenset[str]]:
    """What may have stood, given how many did."""
    missing = count - len(standing.sure)
    if not 0 <= missing <= len(standing.in_motion):
        return
    if missing == len(standing.in_motion):
        yield standing.sure | set(standing.in_motion)
    elif len(standing.in_motion) <= MAX_IN_MOTION:
        for chosen in combinations(standing.in_motion, missing):
            yield standing.sure | set(chosen)


def _standing(partition: Partition, model_id: str, url: str, begun_ms: int, ended_ms: int) -> _Standing:
    query = sa.select(enrolments.c.reference_id, enrolments.c.settled_at_ms, enrolments.c.withdrawn_at_ms).where(
        enrolments.c.watchlist_id == partition.watchlist_id,
        enrolments.c.owner == partition.owner,
        enrolments.c.model_id == model_id,
        enrolments.c.verdict == "enrol",
        enrolments.c.decided_at_ms <= ended_ms,
    )
    engine = create_engine(DatabaseSettings(url=url))
    try:
        with engine.connect() as connection:
            return _sorted(connection.execute(query).mappings(), begun_ms, ended_ms)
    except sa.exc.SQLAlchemyError as error:
        raise ConfigurationError(f"the ledger cannot be read: {error}", advice="Give ingest's database.") from error
    finally:
        engine.dispose()


def _sorted(rows: Iterable[Mapping[Any, Any]], begun_ms: int, ended_ms: int) -> _Standing:
    sure: list[str] = []
    in_motion: list[str] = []
    for row in rows:
        withdrawn_ms, settled_ms = row["withdrawn_at_ms"], row["settled_at_ms"]
        if withdrawn_ms is not None and withdrawn_ms < begun_ms - MOTION_MS:
            continue
        is_there = settled_ms is not None and settled_ms <= begun_ms
        stays = withdrawn_ms is None or withdrawn_ms > ended_ms
        (sure if is_there and stays else in_motion).append(row["reference_id"])
    return _Standing(frozenset(sure), tuple(sorted(in_motion)))


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
