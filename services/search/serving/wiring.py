"""What the composition root of search needs to serve one model, or two side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import grpc
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from services.rpc.clients import EmbedClient, LedgerClient, open_channel
from services.rpc.migration_clients import MigrationClient
from services.search.ports import GalleryStore
from services.search.serving.gallery import ServedEmbed, ServedGallery
from services.search.serving.grpc_server import ModelsServicer
from services.search.serving.lanes import Lane, LaneLedger, ModelLanes
from services.search.settings import GallerySettings, SearchSettings
from services.search.shadow.searching import ShadowSearches
from services.search.shadow.store import SqlShadowCounts
from services.search.upkeep.index_watch import IndexWatch
from services.search.upkeep.keeper import GalleryKeeper
from services.shared.clock import Clock
from services.shared.ids import new_id
from services.shared.periodic import Periodic
from services.shared.telemetry import Metrics

_SHADOW_EVERY_S = 0.1

MakeStore = Callable[[GallerySettings], GalleryStore]


@dataclass(frozen=True)
class Serving:
    """The embed and the gallery that searches use, and what keeps them right."""

    embed: EmbedClient
    gallery: GalleryKeeper
    servicer: ModelsServicer
    shadow: ShadowSearches | None = None
    # References that have no template of the model in service, by watchlist and owner.
    lost: Callable[[], Mapping[tuple[str, str], int]] = dict
    periodics: Sequence[Periodic] = ()
    closers: Sequence[Callable[[], None]] = ()


def wire_serving(  # noqa: PLR0917 - what the composition root has made
    settings: SearchSettings,
    channels: Mapping[str, grpc.Channel],
    engine: sa.Engine,
    make_store: MakeStore,
    metrics: Metrics,
    clock: Clock,
) -> Serving:
    """One lane where no address of a second embed is set; else two, of which ingest says which is in service."""
    first, ledger = EmbedClient(channels["embed"]), LedgerClient(channels["ingest"])
    if not settings.candidate_embed:
        index = IndexWatch(settings.gallery.index, metrics)
        make = partial(make_store, settings.gallery)
        return Serving(first, GalleryKeeper(make(), first, ledger, metrics, make, index), ModelsServicer(None, None))
    migrations = MigrationClient(channels["ingest"])
    beside = open_channel(settings.candidate_embed, settings.tls, "embed")
    second = EmbedClient(beside)
    lane_ledger = LaneLedger(migrations, ledger)

    def keeper_of(embed: EmbedClient, model_id: str) -> GalleryKeeper:
        gallery = _of_model(settings.gallery, model_id)
        make = partial(make_store, gallery)
        # Of two galleries one is measured, by the lanes.
        unseen = Metrics(CollectorRegistry())
        return GalleryKeeper(make(), embed, lane_ledger, unseen, make, IndexWatch(gallery.index, unseen))

    lanes = ModelLanes(
        [
            Lane("first", first, partial(keeper_of, first)),
            Lane("second", second, partial(keeper_of, second)),
        ],
        migrations,
        metrics,
    )
    shadow = ShadowSearches(lanes, SqlShadowCounts(engine, new_id()), clock, settings.shadow, metrics)
    return Serving(
        embed=ServedEmbed(lanes),
        gallery=ServedGallery(lanes),
        servicer=ModelsServicer(lanes, shadow),
        shadow=shadow,
        lost=lambda: {(one.watchlist_id, one.owner): one.count for one in lanes.view.lost_by_owner},
        periodics=(Periodic("shadow", shadow.work, _SHADOW_EVERY_S),),
        closers=(beside.close,),
    )


def _of_model(gallery: GallerySettings, model_id: str) -> GallerySettings:
    """A store that keeps its references itself keeps each model's under a name of its own, which stays the same
    whichever embed runs that model."""
    if not model_id:
        return gallery
    name = f"{gallery.collection}_{hashlib.sha256(model_id.encode()).hexdigest()[:8]}"
    return gallery.model_copy(update={"collection": name})
