"""Keeps the gallery: opens it for the model in use, fills it from the ledger, and lets nobody search a part of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from threading import Lock
from time import monotonic
from typing import Protocol

import numpy as np
import structlog

from services.rpc.v1 import ingest_pb2
from services.search.ports import (
    GalleryAnswer,
    GalleryHit,
    GalleryStore,
    HeldReferences,
    ListsReferences,
    PutOutcome,
    SearchesAside,
    SearchScope,
)
from services.search.settings import GalleryIndexSettings
from services.search.upkeep.columns import records_of
from services.search.upkeep.contents import GalleryContents, TellsStanding
from services.search.upkeep.drift import Lacking
from services.search.upkeep.index import GalleryIndex
from services.search.upkeep.index_watch import IndexWatch
from services.shared.biometric import ModelProvenance, Vector
from services.shared.errors import Conflict, GalleryIncomplete, InvalidRequest, LikenessError, ModelMismatch
from services.shared.gallery_snapshot import GallerySnapshot
from services.shared.telemetry import Metrics

MEASURE_EVERY_S = 5.0  # counting can cost a store a query
_UNIT_TOLERANCE = 1e-4  # a float32 unit vector is off by a few 1e-7


class ModelSource(Protocol):
    """What the keeper needs of `services.rpc.clients.EmbedClient`."""

    def describe_model(self) -> ModelProvenance: ...


class LedgerSource(Protocol):
    """What the keeper needs of `services.rpc.clients.LedgerClient`."""

    def read_references(self, model_id: str) -> Iterator[ingest_pb2.ReferenceBatch]: ...

    def count(self) -> ingest_pb2.LedgerCounts: ...


class GalleryState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    # Ready, but embed now runs another model, or the ledger holds templates of another.
    MISMATCH = "model_mismatch"


class GalleryKeeper:
    """The gallery with its state. `tend` is to be called again and again: it loads, then watches.

    While it loads, inserts and withdrawals that arrive go into the store beside the ledger's; versions make their order
    harmless. Before the store is open they are refused as retriable, and the ledger's stream brings them later.
    """

    def __init__(  # noqa: PLR0917 - a gallery and all that it is kept with
        self,
        store: GalleryStore,
        models: ModelSource,
        ledger: LedgerSource,
        metrics: Metrics,
        fresh: Callable[[], GalleryStore] | None = None,
        index: IndexWatch | None = None,
    ) -> None:
        """`fresh` makes an empty store of the same kind, for a rebuild beside the one in use."""
        self._index = index or IndexWatch(GalleryIndexSettings(), metrics)
        self._store = store
        self._fresh = fresh
        self._rebuilding = Lock()
        # While a new store is filled, changes go to both; the one that it replaced ends with the next, so that no
        # search loses it halfway.
        self._next: GalleryStore | None = None
        self._retired: GalleryStore | None = None
        self._models = models
        self._ledger = ledger
        self._metrics = metrics
        self._contents = GalleryContents()
        self._model: ModelProvenance | None = None
        self._state = GalleryState.LOADING
        self._obstacle: LikenessError = GalleryIncomplete(
            "The gallery is being loaded.", advice="Try again in a few seconds."
        )
        self._noted = ""
        self._measured_s = -math.inf

    @property
    def state(self) -> GalleryState:
        return self._state

    @property
    def store_name(self) -> str:
        return self._store.name

    @property
    def index(self) -> GalleryIndex:
        """By which index searches go, with the recall measured last."""
        return self._index.index(self._store)

    @property
    def model(self) -> ModelProvenance | None:
        """The model that the gallery is open for; None before embed has said which."""
        return self._model

    def waiting_for(self) -> Mapping[str, str]:
        """What keeps the gallery from being searched; empty when nothing does."""
        return {} if self._state is GalleryState.READY else {"gallery": self._obstacle.detail}

    def tend(self) -> None:
        """One turn: load when not loaded, else look whether embed still runs the gallery's model."""
        try:
            if self._state is GalleryState.LOADING:
                self._load()
            else:
                self._watch()
        except LikenessError as error:
            self._note(error)
        self._measure()

    def require_ready(self) -> ModelProvenance:
        """The gallery's model. Raises GalleryIncomplete while it loads, ModelMismatch when it is of another model."""
        if self._state is not GalleryState.READY or self._model is None:
            obstacle = self._obstacle
            raise type(obstacle)(obstacle.detail, advice=obstacle.advice, context=obstacle.context)
        return self._model

    def of(self, model_id: str) -> GalleryKeeper:
        """The gallery that templates of this model are searched in: this one, where there is no other. It refuses
        templates of another model itself."""
        return self

    def search(self, model_id: str, probe: Vector, scopes: Sequence[SearchScope], limit: int) -> GalleryAnswer:
        """The best references of the scopes. A probe that is the mean of several templates (evidence.py)
        is shorter than a unit vector: the store is asked by its direction, and its scores are made those of the mean.

        Raises ModelMismatch when the probe's template is of another model, GalleryIncomplete when the gallery is not
        whole or the answer is not, DependencyUnavailable.
        """
        held = self.require_ready().model_id
        if model_id != held:
            raise _mismatch(held, model_id)
        length = float(np.linalg.norm(probe.astype(np.float64)))
        is_mean = 0 < length < 1 - _UNIT_TOLERANCE
        answer = self._store.search((probe / length).astype(np.float32) if is_mean else probe, scopes, limit)
        _require_whole(answer, scopes, limit)
        return _scaled(answer, length) if is_mean else answer

    def search_aside(self, model_id: str, probe: Vector, scopes: Sequence[SearchScope], limit: int) -> GalleryAnswer:
        """As `search`, of a template as a model made it, for what nobody waits for. Raises the same."""
        held, store = self.require_ready().model_id, self._store
        if model_id != held:
            raise _mismatch(held, model_id)
        search = store.search_aside if isinstance(store, SearchesAside) else store.search
        answer = search(probe, scopes, limit)
        _require_whole(answer, scopes, limit)
        return answer

    def put(self, batch: ingest_pb2.ReferenceBatch) -> PutOutcome:
        """Raises GalleryIncomplete (not open yet), ModelMismatch, InvalidRequest, DependencyUnavailable."""
        model = self._require_open()
        if batch.model_id != model.model_id:
            raise _mismatch(model.model_id, batch.model_id)
        if batch.dimension != model.dimension:
            raise InvalidRequest(
                f"Templates of {batch.dimension} values; {model.model_id} makes {model.dimension}.",
                advice="Send the templates as the model made them.",
            )
        records, vectors = records_of(batch)
        with self._contents.changing():
            try:
                outcome = self._store.put(records, vectors)
                if self._next is not None:
                    self._next.put(records, vectors)
            except ValueError as error:
                raise InvalidRequest(
                    f"The templates are not sound: {error}", advice="Send finite unit vectors."
                ) from error
            if isinstance(self._store, TellsStanding):
                self._contents.note_put(records, self._store.standing([record.reference_id for record in records]))
            return outcome

    def withdraw(self, reference_ids: Sequence[str], versions: Sequence[int]) -> int:
        """Raises GalleryIncomplete (not open yet), InvalidRequest, DependencyUnavailable."""
        self._require_open()
        if len(reference_ids) != len(versions):
            raise InvalidRequest(
                f"{len(reference_ids)} reference ids but {len(versions)} versions.",
                advice="Send the ledger version of each withdrawal.",
            )
        with self._contents.changing():
            withdrawn = self._store.withdraw(reference_ids, versions)
            if self._next is not None:
                self._next.withdraw(reference_ids, versions)
            if isinstance(self._store, TellsStanding):
                self._contents.note_withdrawn(reference_ids, self._store.standing(reference_ids))
            return withdrawn

    def references(self) -> Iterator[HeldReferences]:
        """All that the gallery holds. Raises GalleryIncomplete while it loads, Conflict, DependencyUnavailable."""
        self.require_ready()
        if not isinstance(self._store, ListsReferences):
            raise Conflict(f"The store {self._store.name} cannot list what it holds.", advice="Use another store.")
        return self._store.references()

    def rebuild(self) -> None:
        """Fill a new store from the ledger while searches go on over the one in use, then put it in its place.

        Raises Conflict when one is under way or the store keeps its references itself, GalleryIncomplete,
        DependencyUnavailable: then everything is as before.
        """
        model = self.require_ready()
        if self._fresh is None or not self._store.needs_rebuild:
            raise Conflict(
                f"The store {self._store.name} keeps its references itself.",
                advice="Reconcile it with the ledger; that puts right what differs.",
                code="rebuild_not_possible",
            )
        if not self._rebuilding.acquire(blocking=False):
            raise Conflict("The gallery is being rebuilt already.", advice="Wait for that.", code="rebuild_under_way")
        try:
            self._rebuild(model, self._fresh())
        finally:
            self._next = None
            self._rebuilding.release()

    def _rebuild(self, model: ModelProvenance, fresh: GalleryStore) -> None:
        started_s = monotonic()
        old, lacked = self._store, Lacking(self._store)
        try:
            fresh.open(model.model_id, model.dimension)
            with self._contents.changing():
                self._next = fresh
            for batch in self._ledger.read_references(model.model_id):
                records, vectors = records_of(batch)
                fresh.put(records, vectors)
                lacked.note(records)
        except BaseException:
            self._next = None
            fresh.close()
            raise
        with self._contents.changing():
            lacked.tell(self._contents, fresh)
            self._store = fresh
            self._next = None
        if self._retired is not None:
            self._retired.close()
        self._retired = old
        structlog.get_logger().info(
            "gallery_rebuilt",
            references=dict(self.counts_by_watchlist()),
            seconds=round(monotonic() - started_s, 3),
        )

    def close(self) -> None:
        """Close the store in use and the one that it replaced."""
        for store in (self._store, self._retired):
            if store is not None:
                store.close()

    @property
    def generation(self) -> int:
        """Grows with every change of the gallery; read it before a search whose `snapshot` is wanted."""
        return self._contents.generation

    def snapshot(self, scopes: Sequence[SearchScope], *, since: int) -> GallerySnapshot | None:
        """What was searchable in the scopes; None where the store is shared, so that one process cannot tell."""
        if not isinstance(self._store, TellsStanding) or self._model is None:
            return None
        return self._contents.snapshot(self._model.model_id, scopes, since=since)

    def counts_by_watchlist(self) -> Mapping[str, int]:
        totals: dict[str, int] = defaultdict(int)
        if self._model is not None:
            for (watchlist_id, _owner), count in self._store.counts().items():
                totals[watchlist_id] += count
        return totals

    def owners(self, watchlist_id: str) -> frozenset[str]:
        """Every owner with references in a watchlist."""
        return frozenset(owner for watchlist, owner in self._store.counts() if watchlist == watchlist_id)

    def _require_open(self) -> ModelProvenance:
        if self._model is None:
            raise GalleryIncomplete("The gallery is not open yet.", advice="Try again in a few seconds.")
        return self._model

    def _load(self) -> None:
        started_s = monotonic()
        model = self._models.describe_model()
        self._store.open(model.model_id, model.dimension)
        self._model = model
        if self._store.needs_rebuild or self._lacks_references():
            for batch in self._ledger.read_references(model.model_id):
                self.put(batch)
        self._contents.digest()
        self._require_index()
        # Embed may have been restarted with another model while the ledger was read; then the next turn finds out.
        self._state = GalleryState.READY
        self._measured_s = -math.inf
        structlog.get_logger().info(
            "gallery_ready",
            store=self._store.name,
            model_id=model.model_id,
            references=dict(self.counts_by_watchlist()),
            seconds=round(monotonic() - started_s, 3),
        )

    def _lacks_references(self) -> bool:
        """Whether a store that keeps its references holds fewer than the ledger has: new, restored, robbed."""
        held = self.counts_by_watchlist()
        return any(held.get(count.watchlist_id, 0) < count.enrolled for count in self._ledger.count().watchlists)

    def _watch(self) -> None:
        model = self._models.describe_model()
        held = self._require_open().model_id
        if model.model_id != held:
            raise _mismatch(held, model.model_id)
        self._require_index()
        self._state = GalleryState.READY
        self._noted = ""

    def _require_index(self) -> None:
        """Measure the index where that is due. Raises GalleryIncomplete where it finds too little to be used."""
        references = 0 if self.index.is_exact else sum(self.counts_by_watchlist().values())
        self._index.tend(self._store, references)
        try:
            self._index.require(self._store, references)
        except GalleryIncomplete:
            self._state = GalleryState.LOADING  # until it is found to be good enough
            raise

    def _note(self, error: LikenessError) -> None:
        """Remember why the gallery cannot be searched; once loaded, only another model keeps it from being."""
        if error.detail != self._noted:
            self._noted = error.detail
            structlog.get_logger().warning("gallery_waits", state=self._state, code=error.code, detail=error.detail)
        if isinstance(error, ModelMismatch):
            self._obstacle = error
            if self._state is GalleryState.READY:
                self._state = GalleryState.MISMATCH
        elif self._state is GalleryState.LOADING:
            self._obstacle = GalleryIncomplete(
                f"The gallery is being loaded: {error.detail}",
                advice="Try again in a few seconds; operators: see whether embed and ingest are up.",
            )

    def _measure(self) -> None:
        if self._model is None or monotonic() - self._measured_s < MEASURE_EVERY_S:
            return
        self._measured_s = monotonic()
        for watchlist_id, count in self.counts_by_watchlist().items():
            self._metrics.search_gallery_references.labels(watchlist_id).set(count)


def _mismatch(held: str, other: str) -> ModelMismatch:
    return ModelMismatch(
        f"The gallery holds templates of {held}, not of {other}; they cannot be compared.",
        advice="Operators: run the gallery's model in embed, or re-enrol for the new one and restart search.",
    )


def _scaled(answer: GalleryAnswer, length: float) -> GalleryAnswer:
    """The same references in the same order, their scores those of a probe of this length."""
    return GalleryAnswer([GalleryHit(hit.reference, hit.score * length) for hit in answer.hits], answer.compared)


def _require_whole(answer: GalleryAnswer, scopes: Sequence[SearchScope], limit: int) -> None:
    """Raises GalleryIncomplete for an answer that cannot be the whole truth; nothing of it may be shown."""
    permitted = {(scope.watchlist_id, owner) for scope in scopes for owner in scope.owners}
    hits = answer.hits
    if len(hits) < min(limit, answer.compared):
        fault = f"{len(hits)} references came back where {min(limit, answer.compared)} must have"
    elif not all(math.isfinite(hit.score) and -1.001 <= hit.score <= 1.001 for hit in hits):
        fault = "a score is not a cosine"
    elif not all((hit.reference.watchlist_id, hit.reference.owner) in permitted for hit in hits):
        fault = "a reference came back that was not searched for"
    else:
        return
    raise GalleryIncomplete(
        f"The gallery's answer is not whole: {fault}.", advice="Try again; operators: reconcile the gallery."
    )
