"""The use case of finding neighbours: bands go out, scores stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from services.rpc.v1 import search_pb2
from services.search.identification.candidates import is_permitted, meets_threshold
from services.search.neighbours.points import FlagPoints, FlagPointsFile
from services.search.ports import GalleryHit, SearchScope
from services.search.upkeep.keeper import GalleryKeeper
from services.shared.biometric import Vector
from services.shared.clock import Clock
from services.shared.errors import InvalidRequest, ModelMismatch

MAX_PROBES = 64
MAX_NEIGHBOURS = 50
# All that are told, and the reference itself. Where its own subject fills that, eight times as many are asked for.
_FIRST_LIMIT, _LAST_LIMIT = MAX_NEIGHBOURS + 1, 3200
_UNIT_TOLERANCE = 1e-3
# How long a comparison waits for the searches that run, and all comparisons of one request together. Then it goes on
# beside them: where somebody searches without a pause, flags are raised all the same, only slowly.
PATIENCE_S, PATIENCE_IN_ALL_S = 1.0, 10.0

# Waits until no search runs, at most so many seconds; whether that is so.
AwaitTurn = Callable[[float], bool]


@dataclass(frozen=True, slots=True)
class NeighbourQuery:
    """One reference and the others of its subject. `own`: (n, dimension)."""

    reference_id: str
    subject_id: str
    vector: Vector
    own: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Finding:
    """Neighbours with their bands, best first; whether it is unlike its subject's others."""

    neighbours: tuple[tuple[GalleryHit, str], ...] = ()
    is_unlike_own: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    """`points_version` is empty where no points are set for the model."""

    points_version: str
    found: list[Finding] = field(default_factory=list)


class FindNeighbours:
    """Compares references of one owner with that owner's own in the same watchlist, and with nothing else.

    Nobody waits for it, so it makes way: before each comparison `turn` waits until no search runs. A request without
    queries asks for the points, and is a turn too: whoever has more to do that would be in the way asks with it.
    """

    def __init__(self, gallery: GalleryKeeper, points: FlagPointsFile, clock: Clock, turn: AwaitTurn) -> None:
        self._gallery = gallery
        self._points = points
        self._clock = clock
        self._turn = turn

    def __call__(self, scope: SearchScope, model_id: str, queries: list[NeighbourQuery]) -> Findings:
        """One finding a query, in their order; none where no points are set for the model. `scope`: the one watchlist
        and owner that are compared. Raises ModelMismatch, GalleryIncomplete, ConfigurationError,
        DependencyUnavailable."""
        model = self._gallery.of(model_id).require_ready()
        if model_id != model.model_id:
            raise ModelMismatch(
                f"The gallery holds templates of {model.model_id}, not of {model_id}.",
                advice="Ask again with references of the gallery's model.",
            )
        points = self._points.find(model)
        if points is None:
            return Findings("")
        if not queries:
            self._turn(PATIENCE_S)
        return Findings(points.version, self._in_turn(scope, model_id, queries, points))

    def _in_turn(
        self, scope: SearchScope, model_id: str, queries: list[NeighbourQuery], points: FlagPoints
    ) -> list[Finding]:
        found, patience_s = [], PATIENCE_IN_ALL_S
        for query in queries:
            began_s = self._clock.monotonic_s()
            self._turn(max(0.0, min(PATIENCE_S, patience_s)))
            patience_s -= self._clock.monotonic_s() - began_s
            found.append(self._find(scope, model_id, query, points))
        return found

    def _find(self, scope: SearchScope, model_id: str, query: NeighbourQuery, points: FlagPoints) -> Finding:
        """Hits come best first: once the last of the first ones is too far, or enough of them count, more of them
        would change nothing."""
        at_s, limit = self._clock.now().timestamp(), _FIRST_LIMIT
        while True:
            answer = self._gallery.search_aside(model_id, query.vector, (scope,), limit)
            near = [hit for hit in answer.hits if meets_threshold(hit.score, points.same_person)]
            flagged = [
                (hit, points.band(hit.score))
                for hit in near
                if hit.reference.reference_id != query.reference_id
                and is_permitted(hit.reference, (scope,), at_s)
                and meets_threshold(hit.score, _point_for(hit, query, points))
            ]
            is_all = len(near) < limit or limit >= min(answer.compared, _LAST_LIMIT)
            if is_all or len(flagged) >= MAX_NEIGHBOURS:
                return Finding(tuple(flagged[:MAX_NEIGHBOURS]), is_unlike(query, points))
            limit = min(limit * 8, _LAST_LIMIT)


def _point_for(hit: GalleryHit, query: NeighbourQuery, points: FlagPoints) -> float:
    return points.duplicate if hit.reference.subject_id == query.subject_id else points.same_person


def is_unlike(query: NeighbourQuery, points: FlagPoints) -> bool:
    """Whether the subject has others, and even the one most like it stands below the point."""
    return bool(len(query.own)) and not meets_threshold(float((query.own @ query.vector).max()), points.unlike)


def queries_of(request: search_pb2.FindNeighboursRequest) -> tuple[SearchScope, list[NeighbourQuery]]:
    """Raises InvalidRequest for what is not whole."""
    if not request.watchlist_id or not request.owner or len(request.probes) > MAX_PROBES:
        raise InvalidRequest(
            "It names no watchlist or no owner, or over 64 references.", advice="Ask for one owner's references."
        )
    scope = SearchScope(request.watchlist_id, frozenset({request.owner}))
    return scope, [_query(probe, request.dimension) for probe in request.probes]


def _query(probe: search_pb2.NeighbourProbe, dimension: int) -> NeighbourQuery:
    row = 4 * dimension
    if not dimension or len(probe.vector) != row or len(probe.own_vectors) % row:
        raise InvalidRequest("The templates are not of the dimension stated.", advice="Send float32, row by row.")
    vector = np.frombuffer(probe.vector, "<f4").astype(np.float32)
    own = np.frombuffer(probe.own_vectors, "<f4").reshape(-1, dimension).astype(np.float32)
    rows = np.vstack([vector[None, :], own])
    if not np.all(np.abs(np.linalg.norm(rows, axis=1) - 1) <= _UNIT_TOLERANCE):  # false for NaN too
        raise InvalidRequest("The templates are not sound.", advice="Send finite unit vectors.")
    return NeighbourQuery(probe.reference_id, probe.subject_id, vector, own)


def response_of(findings: Findings) -> search_pb2.FindNeighboursResponse:
    return search_pb2.FindNeighboursResponse(
        points_version=findings.points_version,
        findings=[
            search_pb2.NeighbourFinding(
                is_unlike_own=finding.is_unlike_own,
                neighbours=[
                    search_pb2.Neighbour(
                        reference_id=hit.reference.reference_id, subject_id=hit.reference.subject_id, band=band
                    )
                    for hit, band in finding.neighbours
                ],
            )
            for finding in findings.found
        ],
    )
