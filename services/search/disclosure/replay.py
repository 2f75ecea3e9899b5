"""An old search run again over the gallery as it is now, with what has changed since left out and named."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

import orjson

from services.rpc.v1 import ingest_pb2
from services.search.disclosure.access import REPLAY, DisclosureAccess, DisclosureTrail, require_probe
from services.search.identification.acceptance import ANSWER_MARGIN, IMAGE_FIELD, Acceptance, Accepted
from services.search.identification.answer import model_document
from services.search.identification.candidates import is_permitted, list_candidates
from services.search.identification.evidence import Analyser, begin_analysis, evidence_of, of_model
from services.search.identification.faces import choose_face
from services.search.identification.requests import FIELDS
from services.search.ports import Candidate, GalleryHit, ReferenceRecord, SearchScope, StoredSearch
from services.search.upkeep.keeper import GalleryKeeper
from services.shared.biometric import FaceTemplate, ImageAnalysis
from services.shared.clock import Clock, rfc3339
from services.shared.errors import CallerError, Forbidden, LikenessError, ModelMismatch
from services.shared.multipart import Upload
from services.shared.ports.image_store import ImageStore
from services.shared.tokens import Principal

OVERFETCH = 4
MAX_FETCHED = 100_000  # references; beyond that a gallery has changed too much to look further
DESCRIBED_AT_ONCE = 1000


class ReferenceHistory(Protocol):
    """What a replay needs of `services.rpc.clients.LedgerClient`."""

    def describe_references(self, reference_ids: Sequence[str]) -> Sequence[ingest_pb2.ReferenceState]: ...


@dataclass(frozen=True, slots=True)
class _Replayed:
    candidates: Sequence[Candidate]
    newcomers: int
    scopes: Sequence[SearchScope]


class ReplaySearch:
    """Runs a stored search again for a caller who may make that search today.

    The sealed probe is analysed anew and searched in the scopes of then, as far as they are permitted now. References
    that were enrolled after the search are left out, so that the list is that of then; which of the old candidates are
    gone, and why, is said.
    """

    def __init__(
        self,
        *,
        access: DisclosureAccess,
        acceptance: Acceptance,
        embed: Analyser,
        gallery: GalleryKeeper,
        ledger: ReferenceHistory,
        probes: ImageStore,
        trail: DisclosureTrail,
        clock: Clock,
    ) -> None:
        self._access = access
        self._accept = acceptance
        self._embed = embed
        self._gallery = gallery
        self._ledger = ledger
        self._probes = probes
        self._trail = trail
        self._clock = clock

    def __call__(self, principal: Principal, search_id: str, reason: str) -> bytes:
        """What came of it, as JSON. Raises Forbidden, NotFound, Conflict, ModelMismatch (another model runs now),
        GalleryIncomplete, AuditUnavailable, DependencyUnavailable."""
        try:
            search = self._access.find(principal, search_id)
            require_probe(search)
        except CallerError as error:
            self._trail.refused(REPLAY, principal, search_id, error)
            raise
        act = self._trail.intend(REPLAY, principal, search, {"reason": reason})
        try:
            document = self._replay(principal, search)
        except LikenessError as error:
            self._trail.failed(act, error.code)
            raise
        references = [candidate["reference_id"] for candidate in document["candidates"]]
        self._trail.done(act, {"candidates": str(len(references))}, references)
        return orjson.dumps(document)

    def _replay(self, principal: Principal, search: StoredSearch) -> dict[str, Any]:
        answer = orjson.loads(search.result or b"{}")
        probe = self._probes.get(search.probe_sha256)
        accepted = self._accept(principal, Upload(_texts(answer), {IMAGE_FIELD: (probe,)}), None)
        embed = of_model(self._embed, answer["model"]["model_id"])
        analysis = begin_analysis(embed, probe, answer["face"], evidence_of(answer, self._probes)).result()
        _require_model(answer, analysis)
        _, template = choose_face(analysis, answer["face"])
        gallery = self._gallery.of(template.model_id)
        generation = gallery.generation
        replayed = self._search(accepted, template, answer, search.opened_at)
        snapshot = gallery.snapshot(replayed.scopes, since=generation)
        self._require_still(accepted, answer, replayed)
        return {
            "search_id": search.search_id,
            "replayed_at": rfc3339(self._clock.now()),
            "model": model_document(analysis.model),
            "gallery_snapshot": None if snapshot is None else snapshot.document(),
            "searched": [
                {"watchlist": scope.watchlist_id, "owners": sorted(scope.owners)} for scope in replayed.scopes
            ],
            "candidates": [
                {
                    "rank": candidate.rank,
                    "subject_id": candidate.subject_id,
                    "reference_id": candidate.reference_id,
                    "watchlist": candidate.watchlist_id,
                    "owner": candidate.owner,
                    "score": candidate.score,
                }
                for candidate in replayed.candidates
            ],
            "newcomers": replayed.newcomers,
            "gone": self._gone(answer, replayed.scopes, principal.force),
        }

    def _search(
        self, accepted: Accepted, template: FaceTemplate, answer: Mapping[str, Any], searched_at: datetime
    ) -> _Replayed:
        """The list of then: fetched, without who came since, until it is as long as it was or nothing is left."""
        wanted = int(answer["request"]["max_candidates"])
        thresholds = {point["watchlist"]: point["value"] for point in answer["threshold"]["by_watchlist"]} or None
        known = {candidate["reference_id"] for candidate in answer["candidates"]}
        scopes = self._scopes(accepted, answer)
        if not any(scope.owners for scope in scopes):
            return _Replayed((), 0, scopes)
        limit = wanted * OVERFETCH
        while True:
            found = self._gallery.search(template.model_id, template.vector, scopes, limit)
            newcomers = self._newcomers(found.hits, known, searched_at)
            # What expires while the outcome is being recorded does not leave either.
            now_s = (self._clock.now() + ANSWER_MARGIN).timestamp()

            def stood_then(
                reference: ReferenceRecord, newcomers: Collection[str] = newcomers, now_s: float = now_s
            ) -> bool:
                return reference.reference_id not in newcomers and is_permitted(reference, scopes, now_s)

            candidates = list_candidates(found.hits, wanted, thresholds=thresholds, may_be_returned=stood_then)
            if len(candidates) == wanted or limit >= min(found.compared, MAX_FETCHED):
                return _Replayed(candidates, len(newcomers), scopes)
            limit *= OVERFETCH

    def _scopes(self, accepted: Accepted, answer: Mapping[str, Any]) -> tuple[SearchScope, ...]:
        """The scopes of then, of each the owners that the caller may search now."""
        permitted = {scope.watchlist_id: scope for scope in accepted.decision.scopes}
        scopes = []
        for searched in answer["searched"]:
            watchlist_id, owners = searched["watchlist"], frozenset(searched["owners"])
            scope = permitted.get(watchlist_id)
            if scope is None:
                owners = frozenset()
            elif scope.owners is None:
                owners = self._accept.permitted_owners(accepted, watchlist_id, owners)
            else:
                owners &= scope.owners
            scopes.append(SearchScope(watchlist_id, owners))
        return tuple(scopes)

    def _require_still(self, accepted: Accepted, answer: Mapping[str, Any], replayed: _Replayed) -> None:
        """That whoever was searched may be searched still: analysing and searching took seconds. Raises Forbidden."""
        now = self._scopes(replace(accepted, decision=self._accept.decide_again(accepted)), answer)
        for before, after in zip(replayed.scopes, now, strict=True):
            if not before.owners <= after.owners:
                raise Forbidden(
                    "A permission ended while the search ran again, so its list is not given out.",
                    advice="Run it again: what is permitted now is searched then.",
                    context={"reasons": ["permission_ended"]},
                )

    def _newcomers(self, hits: Sequence[GalleryHit], known: Collection[str], searched_at: datetime) -> frozenset[str]:
        """Of the references found those that were not enrolled to the end when the search was made."""
        strangers = [hit.reference.reference_id for hit in hits if hit.reference.reference_id not in known]
        searched_at_ms = int(searched_at.timestamp() * 1000)
        return frozenset(
            state.reference_id
            for state in self._states(strangers)
            if not state.settled_at_ms or state.settled_at_ms > searched_at_ms
        )

    def _states(self, reference_ids: Sequence[str]) -> list[ingest_pb2.ReferenceState]:
        found: list[ingest_pb2.ReferenceState] = []
        for start in range(0, len(reference_ids), DESCRIBED_AT_ONCE):
            found.extend(self._ledger.describe_references(reference_ids[start : start + DESCRIBED_AT_ONCE]))
        return found

    def _gone(self, answer: Mapping[str, Any], scopes: Sequence[SearchScope], force: str) -> list[dict[str, Any]]:
        """Old candidates that cannot be on the list any more, each with the reason."""
        old = answer["candidates"]
        states = {state.reference_id: state for state in self._states([one["reference_id"] for one in old])}
        permitted = {(scope.watchlist_id, owner) for scope in scopes for owner in scope.owners}
        gone = []
        for candidate in old:
            why = _why_gone(candidate, states.get(candidate["reference_id"]), permitted, force)
            if why:
                gone.append({"rank": candidate["rank"], "reference_id": candidate["reference_id"], **why})
        return gone


def _why_gone(
    candidate: Mapping[str, Any],
    state: ingest_pb2.ReferenceState | None,
    permitted: Collection[tuple[str, str]],
    force: str,
) -> dict[str, Any]:
    """Empty where the reference still stands and may be searched. An owner's words on why it took one back are for its
    own force."""
    if (candidate["watchlist"], candidate["owner"]) not in permitted:
        return {"why": "not_permitted", "detail": "Its owner's references may not be searched now."}
    if state is None:
        return {"why": "erased", "detail": "The ledger does not know it any more."}
    if state.state == "withdrawn":
        detail = state.withdrawal_reason if candidate["owner"] == force else "Its owner took it back."
        return {"why": "withdrawn", "withdrawn_at_ms": state.withdrawn_at_ms, "detail": detail}
    return {}


def _texts(answer: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The fields of the request of then, as a form sends them."""
    fields = {name: value for name, value in answer["request"].items() if name in FIELDS and value is not None}
    texts = {name: tuple(value) if isinstance(value, list) else (str(value),) for name, value in fields.items()}
    return {**texts, "face": (str(answer["face"]),)}


def _require_model(answer: Mapping[str, Any], analysis: ImageAnalysis) -> None:
    then, now = answer["model"]["model_id"], analysis.model.model_id
    if then != now:
        raise ModelMismatch(
            f"That search was made with the model {then}; this platform runs {now}.",
            advice="Run it again on a platform with that model: its networks are named by digest in the disclosure.",
        )
