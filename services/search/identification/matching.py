"""The probe's template meets the permitted part of the gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from services.search.identification.acceptance import ANSWER_MARGIN, Acceptance, Accepted
from services.search.identification.candidates import is_permitted, list_candidates, meets_threshold
from services.search.policy import Decision, PermittedScope
from services.search.ports import Candidate, SearchScope
from services.search.upkeep.index import EXACT, GalleryIndex
from services.search.upkeep.keeper import GalleryKeeper
from services.shared.biometric import FaceTemplate
from services.shared.clock import Clock
from services.shared.errors import GalleryIncomplete
from services.shared.gallery_snapshot import GallerySnapshot

# Several references of one subject make one candidate, so more references are fetched than candidates are wanted; where
# they are still too few, four times as many.
OVERFETCH = 4
MAX_RECHECKS = 3


@dataclass(frozen=True, slots=True)
class Found:
    """What the gallery gave, where it was looked for, and by which permission."""

    decision: Decision
    scopes: Sequence[SearchScope]
    candidates: Sequence[Candidate]
    compared: int
    gallery_name: str
    snapshot: GallerySnapshot | None
    index: GalleryIndex = EXACT


class Matching:
    """Searches the gallery for an accepted request."""

    def __init__(self, gallery: GalleryKeeper, acceptance: Acceptance, clock: Clock) -> None:
        self._gallery = gallery
        self._acceptance = acceptance
        self._clock = clock

    def __call__(self, accepted: Accepted, template: FaceTemplate) -> Found:
        """Search the permitted scopes, again until the permission is the same after the search as before it.

        Raises Forbidden (the permission ended meanwhile), GalleryIncomplete, ModelMismatch, DependencyUnavailable.
        """
        decision = accepted.decision
        # The gallery of the template's own model, whatever comes into service meanwhile.
        gallery = self._gallery.of(template.model_id)
        for _ in range(MAX_RECHECKS):
            generation = gallery.generation
            scopes = tuple(self._resolve(gallery, accepted, scope) for scope in decision.scopes)
            candidates, compared = self._fetch(gallery, accepted, template, scopes)
            snapshot = gallery.snapshot(scopes, since=generation)
            before, decision = decision, self._acceptance.decide_again(accepted)
            if decision.scopes == before.scopes:
                store, index = gallery.store_name, gallery.index
                return Found(decision, scopes, candidates, compared, store, snapshot, index)
        raise GalleryIncomplete("Permissions change faster than they can be searched.", advice="Try again in a minute.")

    def _resolve(self, gallery: GalleryKeeper, accepted: Accepted, scope: PermittedScope) -> SearchScope:
        if scope.owners is not None:
            return SearchScope(scope.watchlist_id, scope.owners)
        standing = gallery.owners(scope.watchlist_id)
        return SearchScope(
            scope.watchlist_id, self._acceptance.permitted_owners(accepted, scope.watchlist_id, standing)
        )

    def _fetch(
        self, gallery: GalleryKeeper, accepted: Accepted, template: FaceTemplate, scopes: Sequence[SearchScope]
    ) -> tuple[Sequence[Candidate], int]:
        """References until they make as many candidates as wanted, or there are no more; and how many were compared."""
        wanted = accepted.request.max_candidates
        thresholds = {name: point.threshold for name, point in accepted.operating_points.items()} or None
        lowest = min(thresholds.values()) if thresholds else None
        limit = wanted * OVERFETCH
        while True:
            answer = gallery.search(template.model_id, template.vector, scopes, limit)
            may_be_returned = partial(
                is_permitted, scopes=scopes, at_unix_s=(self._clock.now() + ANSWER_MARGIN).timestamp()
            )
            candidates = list_candidates(answer.hits, wanted, thresholds=thresholds, may_be_returned=may_be_returned)
            is_exhausted = limit >= answer.compared or not meets_threshold(answer.hits[-1].score, lowest)
            if len(candidates) == wanted or is_exhausted:
                return candidates, answer.compared
            limit *= OVERFETCH
