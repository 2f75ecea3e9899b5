"""The galleries of several models behind the face of one, and the embeds likewise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from services.rpc.clients import EmbedClient, PendingAnalysis
from services.rpc.v1 import embed_pb2, ingest_pb2
from services.search.ports import GalleryAnswer, HeldReferences, PutOutcome, SearchScope
from services.search.serving.lanes import ModelLanes
from services.search.upkeep.index import GalleryIndex
from services.search.upkeep.keeper import GalleryKeeper, GalleryState
from services.shared.biometric import ImageAnalysis, ModelProvenance, Vector
from services.shared.errors import GalleryIncomplete, ModelMismatch
from services.shared.gallery_snapshot import GallerySnapshot


class ServedGallery(GalleryKeeper):
    """The gallery of the model in service. What names a model goes to that model's gallery and to no other; what
    withdraws goes to all."""

    def __init__(self, lanes: ModelLanes) -> None:  # it holds nothing of its own
        self._lanes = lanes

    # --- the model in service

    @property
    def _keeper(self) -> GalleryKeeper:
        return self._lanes.serving.keeper

    @property
    def state(self) -> GalleryState:
        return GalleryState.LOADING if self._lanes.obstacle() is not None else self._keeper.state

    @property
    def store_name(self) -> str:
        return self._keeper.store_name

    @property
    def index(self) -> GalleryIndex:
        return self._keeper.index

    @property
    def model(self) -> ModelProvenance | None:
        return self._keeper.model

    @property
    def generation(self) -> int:
        return self._keeper.generation

    def waiting_for(self) -> Mapping[str, str]:
        obstacle = self._lanes.obstacle()
        return self._keeper.waiting_for() if obstacle is None else {"gallery": obstacle.detail}

    def tend(self) -> None:
        self._lanes.tend()

    def require_ready(self) -> ModelProvenance:
        obstacle = self._lanes.obstacle()
        if obstacle is not None:
            raise type(obstacle)(obstacle.detail, advice=obstacle.advice)
        return self._keeper.require_ready()

    def references(self) -> Iterator[HeldReferences]:
        return self._keeper.references()

    def rebuild(self) -> None:
        self._keeper.rebuild()

    def counts_by_watchlist(self) -> Mapping[str, int]:
        return self._keeper.counts_by_watchlist()

    def owners(self, watchlist_id: str) -> frozenset[str]:
        return self._keeper.owners(watchlist_id)

    def snapshot(self, scopes: Sequence[SearchScope], *, since: int) -> GallerySnapshot | None:
        return self._keeper.snapshot(scopes, since=since)

    # --- by the model's name

    def of(self, model_id: str) -> GalleryKeeper:
        """Raises ModelMismatch where there is no gallery of that model."""
        lane = self._lanes.of(model_id)
        if lane is None:
            raise ModelMismatch(
                f"There is no gallery of {model_id} here.",
                advice="Operators: an embed with that model has to run while its gallery is wanted.",
            )
        return lane.keeper

    def search(self, model_id: str, probe: Vector, scopes: Sequence[SearchScope], limit: int) -> GalleryAnswer:
        return self.of(model_id).search(model_id, probe, scopes, limit)

    def search_aside(self, model_id: str, probe: Vector, scopes: Sequence[SearchScope], limit: int) -> GalleryAnswer:
        return self.of(model_id).search_aside(model_id, probe, scopes, limit)

    def put(self, batch: ingest_pb2.ReferenceBatch) -> PutOutcome:
        """Raises GalleryIncomplete while that model's gallery is not open yet, ModelMismatch for a model of none."""
        lane = self._lanes.of(batch.model_id)
        if lane is not None:
            return lane.keeper.put(batch)
        view = self._lanes.view
        if view.state == "finished" and batch.model_id == view.from_model_id:
            # Begun before the migration ended; ingest embeds it with the new model before it is settled.
            return PutOutcome(0, len(batch.reference_ids))
        if batch.model_id in (view.from_model_id, view.to_model_id) or not self._keeper.model:
            raise GalleryIncomplete(
                f"The gallery of {batch.model_id} is not open yet.", advice="Try again in a few seconds."
            )
        raise ModelMismatch(
            f"There is no gallery of {batch.model_id} here.",
            advice="Operators: run the gallery's model in embed, or start a migration.",
        )

    # --- every model

    def withdraw(self, reference_ids: Sequence[str], versions: Sequence[int]) -> int:
        """A gallery that is not open yet reads the ledger later, which has the withdrawal already."""
        withdrawn = self._keeper.withdraw(reference_ids, versions)
        for lane in self._lanes.lanes:
            if lane.keeper is not self._keeper and lane.keeper.model is not None:
                lane.keeper.withdraw(reference_ids, versions)
        return withdrawn

    def close(self) -> None:
        self._lanes.close()


class ServedEmbed(EmbedClient):
    """The embed of the model in service. What takes several calls is done by one embed: ask `running` for it."""

    def __init__(self, lanes: ModelLanes) -> None:  # the lanes have the channels
        self._lanes = lanes

    def running(self, model_id: str) -> EmbedClient:
        """The embed whose templates meet the gallery of this model; the one in service where there is none."""
        lane = self._lanes.of(model_id) or self._lanes.serving
        return lane.embed

    def analyse(
        self,
        image: bytes,
        selection: embed_pb2.AnalyseRequest.Selection.ValueType,
        face_index: int = 0,
        *,
        timeout_s: float = 10.0,
    ) -> ImageAnalysis:
        return self._lanes.serving.embed.analyse(image, selection, face_index, timeout_s=timeout_s)

    def begin(
        self,
        image: bytes,
        selection: embed_pb2.AnalyseRequest.Selection.ValueType,
        face_index: int = 0,
        *,
        timeout_s: float = 10.0,
    ) -> PendingAnalysis:
        return self._lanes.serving.embed.begin(image, selection, face_index, timeout_s=timeout_s)

    def describe_model(self, *, timeout_s: float = 2.0) -> ModelProvenance:
        return self._lanes.serving.embed.describe_model(timeout_s=timeout_s)
