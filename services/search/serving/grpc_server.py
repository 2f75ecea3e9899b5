"""likeness.v1.Models: what search serves of each model. Thin."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import grpc
import numpy as np
import orjson

from services.rpc.v1 import migration_pb2, migration_pb2_grpc, search_pb2
from services.search.serving.lanes import Lane, ModelLanes
from services.search.shadow.searching import ShadowSearches
from services.shared.errors import GalleryIncomplete, NotFound

SERVICE_NAME = "likeness.v1.Models"


class ModelsServicer(migration_pb2_grpc.ModelsServicer):
    """Nothing here returns a template."""

    def __init__(self, lanes: ModelLanes | None, shadow: ShadowSearches | None) -> None:
        """None of either where no address of a second embed is configured."""
        self._lanes = lanes
        self._shadow = shadow

    def FollowModels(  # noqa: N802 - the name is the wire's
        self, _request: migration_pb2.FollowModelsRequest, _context: grpc.ServicerContext
    ) -> migration_pb2.ServedModels:
        lanes = self._required()
        lanes.tend()
        held = [lane for lane in lanes.lanes if lane.held_model_id]
        serving = "" if lanes.obstacle() is not None else lanes.serving.held_model_id
        return migration_pb2.ServedModels(serving_model_id=serving, galleries=[_gallery(lane) for lane in held])

    def ReportShadow(  # noqa: N802 - the name is the wire's
        self, request: migration_pb2.ReportShadowRequest, _context: grpc.ServicerContext
    ) -> migration_pb2.ShadowReport:
        report = {} if self._shadow is None else self._shadow.report(request.migration_id)
        return migration_pb2.ShadowReport(document_json=orjson.dumps(report, option=orjson.OPT_SORT_KEYS))

    def ListModelGallery(  # noqa: N802 - the name is the wire's
        self, request: migration_pb2.ListModelGalleryRequest, _context: grpc.ServicerContext
    ) -> Iterator[search_pb2.GalleryListing]:
        lane = self._required().of(request.model_id)
        if lane is None:
            raise GalleryIncomplete(
                f"The gallery of {request.model_id} is not open.", advice="Try again in a few seconds."
            )
        for held in lane.keeper.references():
            rows = np.ascontiguousarray(held.vectors, "<f4")
            yield search_pb2.GalleryListing(
                watchlist_id=held.watchlist_id,
                reference_ids=held.reference_ids,
                versions=held.versions,
                digests=b"".join(hashlib.sha256(row).digest()[:16] for row in rows),
            )

    def _required(self) -> ModelLanes:
        if self._lanes is None:
            raise NotFound(
                "Search knows one embed only.", advice="Set LIKENESS_SEARCH__CANDIDATE_EMBED and restart search."
            )
        return self._lanes


def _gallery(lane: Lane) -> migration_pb2.ModelGallery:
    return migration_pb2.ModelGallery(
        model_id=lane.held_model_id,
        state=lane.keeper.state.value,
        store=lane.keeper.store_name,
        searchable_by_watchlist=lane.keeper.counts_by_watchlist(),
        obstacle=lane.keeper.waiting_for().get("gallery", ""),
    )
