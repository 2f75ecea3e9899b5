"""Of those who meet the threshold, the ones who came into the gallery since a moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from services.rpc.v1 import ingest_pb2
from services.search.identification.acceptance import Acceptance, Accepted
from services.search.identification.matching import Found, Matching
from services.search.ports import Candidate
from services.search.upkeep.keeper import GalleryKeeper
from services.shared.biometric import FaceTemplate
from services.shared.clock import Clock

# `since_ms` is by the clock of this service, `settled_at_ms` by that of ingest, which may stand on another machine:
# what came in as the last search began is looked at once more. Casework knows whom it has seen.
CLOCKS_DIFFER_MS = 60_000


class ReferenceHistory(Protocol):
    """What is needed of `services.rpc.clients.LedgerClient`."""

    def describe_references(self, reference_ids: Sequence[str]) -> Sequence[ingest_pb2.ReferenceState]: ...


class NewcomersOnly(Matching):
    """A search whose list has new references alone.

    The whole permitted gallery is compared, for the index knows no dates; the ledger says since when each reference
    over the threshold can be found, and older ones are dropped before the list is stored, recorded or given to anybody.
    """

    def __init__(
        self, gallery: GalleryKeeper, acceptance: Acceptance, clock: Clock, ledger: ReferenceHistory, since_ms: int
    ) -> None:
        super().__init__(gallery, acceptance, clock)
        self._ledger = ledger
        self._since_ms = since_ms

    def __call__(self, accepted: Accepted, template: FaceTemplate) -> Found:
        """As Matching, with the newcomers alone, ranked anew from 1."""
        found = super().__call__(accepted, template)
        if not found.candidates:
            return found
        return replace(found, candidates=self._newer(found.candidates))

    def _newer(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        states = self._ledger.describe_references([candidate.reference_id for candidate in candidates])
        # What is not settled yet is new, and so is what settled at that very moment: seen twice rather than never.
        since_ms = self._since_ms - CLOCKS_DIFFER_MS
        old = {state.reference_id for state in states if state.settled_at_ms and state.settled_at_ms < since_ms}
        newer = [candidate for candidate in candidates if candidate.reference_id not in old]
        return tuple(replace(candidate, rank=rank) for rank, candidate in enumerate(newer, start=1))
