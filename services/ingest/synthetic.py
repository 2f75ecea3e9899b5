"""Labelled synthetic references: what fills a gallery to its real size where there are not enough lawful images.

Subject ids are SYNTHETIC-000001 and on; there is no image behind them and the ledger says `synthetic`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from services.ingest.auditing import EnrolmentAudit
from services.ingest.ports import FaceAnalyser, GalleryWriter, SyntheticBatch, SyntheticLedger
from services.rpc.v1 import audit_pb2, ingest_pb2
from services.shared.biometric import ModelProvenance
from services.shared.errors import CallerError, Forbidden, InvalidRequest, LikenessError
from services.shared.ids import new_id
from services.shared.tokens import Principal
from services.shared.watchlists import WatchlistFile

_BLOCK = 4096
_LEASE_S = 120  # of a block on its way; the worker takes over what a crash leaves
_MAX_REFERENCES = 20_000_000  # the national size
# Templates of real faces do not fill their space evenly: strangers' cosines spread as in a space of fewer dimensions.
# This decay of the scale by axis gives 128 dimensions the spread of about 75, a standard deviation of 0.115.
_DECAY = 0.012


def synthetic_vectors(seed: int, block: int, dimension: int) -> npt.NDArray[np.float32]:
    """Block `block` of made-up unit vectors, (4096, dimension): the same for the same seed, whatever came before."""
    rng = np.random.default_rng((seed, block))
    scale = np.exp(-_DECAY * np.arange(dimension, dtype=np.float32))
    vectors = rng.standard_normal((_BLOCK, dimension), dtype=np.float32) * scale
    rotated: npt.NDArray[np.float32] = vectors @ _rotation(seed, dimension)
    rotated /= np.linalg.norm(rotated, axis=1, keepdims=True)
    return rotated


@lru_cache(maxsize=1)
def _rotation(seed: int, dimension: int) -> npt.NDArray[np.float32]:
    """So that no axis is special."""
    square = np.random.default_rng((seed, dimension)).standard_normal((dimension, dimension))
    rotation: npt.NDArray[np.float32] = np.linalg.qr(square)[0].astype(np.float32)
    return rotation


@dataclass(frozen=True, slots=True)
class FillCommand:
    watchlist_id: str
    owner: str
    until_count: int
    seed: int


class FillSynthetic:
    """Fills a watchlist until it holds so many references. Again after a crash it goes on where it was."""

    def __init__(
        self,
        *,
        ledger: SyntheticLedger,
        gallery: GalleryWriter,
        analyser: FaceAnalyser,
        audit: EnrolmentAudit,
        watchlists: WatchlistFile,
        now_ms: Callable[[], int],
        is_allowed: bool,
    ) -> None:
        self._ledger = ledger
        self._gallery = gallery
        self._analyser = analyser
        self._audit = audit
        self._watchlists = watchlists
        self._now_ms = now_ms
        self._is_allowed = is_allowed

    def fill(self, command: FillCommand, principal: Principal) -> tuple[int, int]:
        """How many were added, and how many the watchlist holds now.

        Raises Forbidden unless the setting allows it, InvalidRequest, AuditUnavailable, DependencyUnavailable.
        """
        self._check(command)
        missing = command.until_count - self._ledger.enrolled_count(command.watchlist_id)
        if missing <= 0:
            return 0, command.until_count - missing
        details = {
            "watchlist": command.watchlist_id,
            "owner": command.owner,
            "synthetic": "true",
            "to_add": str(missing),
            "seed": str(command.seed),
        }
        fill_id = new_id()
        self._audit.record_fill(audit_pb2.INTENT, fill_id, principal, details)
        added = 0
        try:
            for count in self._add(command, missing, principal.person_id):
                added += count
        except LikenessError as error:
            phase = audit_pb2.REFUSED if isinstance(error, CallerError) else audit_pb2.FAILED
            self._audit.record_fill(phase, fill_id, principal, {**details, "added": str(added), "reason": error.code})
            raise
        self._audit.record_fill(audit_pb2.DONE, fill_id, principal, {**details, "added": str(added)})
        return added, self._ledger.enrolled_count(command.watchlist_id)

    def _check(self, command: FillCommand) -> None:
        if not self._is_allowed:
            raise Forbidden(
                "Synthetic references are not allowed on this platform.",
                advice="For a demonstration or a measurement, set LIKENESS_INGEST__ALLOW_SYNTHETIC=true.",
            )
        if command.watchlist_id not in self._watchlists.current():
            raise InvalidRequest(
                f"There is no watchlist {command.watchlist_id!r}.", advice="Give one of the configured watchlists."
            )
        if not command.owner or command.until_count > _MAX_REFERENCES:
            raise InvalidRequest(f"An owner and a count of at most {_MAX_REFERENCES} are needed.")

    def _add(self, command: FillCommand, missing: int, person_id: str) -> Iterator[int]:
        model = self._analyser.describe_model()
        number = self._ledger.next_number(command.watchlist_id, command.owner)
        last = number + missing - 1
        while number <= last:
            block, start = divmod(number - 1, _BLOCK)
            count = min(_BLOCK - start, last - number + 1)
            vectors = synthetic_vectors(command.seed, block, model.dimension)[start : start + count]
            self._add_block(command, model, number, vectors, person_id)
            number += count
            yield count

    def _add_block(
        self,
        command: FillCommand,
        model: ModelProvenance,
        number: int,
        vectors: npt.NDArray[np.float32],
        person_id: str,
    ) -> None:
        count = len(vectors)
        now_ms = self._now_ms()
        raw = vectors.astype("<f4").tobytes()
        size = model.dimension * 4
        batch = SyntheticBatch(
            watchlist_id=command.watchlist_id,
            owner=command.owner,
            person_id=person_id,
            model=model,
            enrolment_ids=[new_id() for _ in range(count)],
            reference_ids=[new_id() for _ in range(count)],
            subject_ids=[f"SYNTHETIC-{n:06d}" for n in range(number, number + count)],
            templates=[raw[place : place + size] for place in range(0, len(raw), size)],
            made_at_ms=now_ms,
            leased_until_ms=now_ms + _LEASE_S * 1000,
        )
        versions = self._ledger.insert(batch)
        self._gallery.put(
            ingest_pb2.ReferenceBatch(
                watchlist_id=batch.watchlist_id,
                reference_ids=batch.reference_ids,
                subject_ids=batch.subject_ids,
                owners=[batch.owner] * count,
                image_sha256s=[""] * count,
                vectors=raw,
                dimension=model.dimension,
                model_id=model.model_id,
                versions=versions,
                expires_at=[0] * count,
            )
        )
        self._ledger.mark_enrolled(batch.watchlist_id, versions, self._now_ms())
