"""Two models side by side: each lane is an embed with the gallery of its model. One of them is in service.

A template meets the gallery of its own model and no other: galleries are found by the model that a template names, and
each refuses a template of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import RLock
from time import monotonic
from typing import Protocol

import structlog

from services.rpc.clients import EmbedClient
from services.rpc.v1 import ingest_pb2, migration_pb2
from services.search.upkeep.keeper import GalleryKeeper, GalleryState
from services.shared.errors import DependencyUnavailable, GalleryIncomplete, LikenessError, ModelMismatch
from services.shared.telemetry import Metrics

# The slowest search that may still use a gallery when it goes out of use.
_GRACE_S = 60.0
_MEASURE_EVERY_S = 5.0


class MigrationSource(Protocol):
    """`services.rpc.migration_clients.MigrationClient`."""

    def describe(self) -> migration_pb2.ModelMigration: ...

    def read_references(self, model_id: str) -> Iterator[ingest_pb2.ReferenceBatch]: ...


class CountSource(Protocol):
    """`services.rpc.clients.LedgerClient`."""

    def count(self) -> ingest_pb2.LedgerCounts: ...


class LaneLedger:
    """The ledger as the keeper of one lane reads it: the references of whichever model it asks for."""

    def __init__(self, migrations: MigrationSource, counts: CountSource) -> None:
        self._migrations = migrations
        self._counts = counts

    def read_references(self, model_id: str) -> Iterator[ingest_pb2.ReferenceBatch]:
        return self._migrations.read_references(model_id)

    def count(self) -> ingest_pb2.LedgerCounts:
        return self._counts.count()


@dataclass
class Lane:
    """One embed, the model that it was last seen to run, and the gallery of that model."""

    name: str
    embed: EmbedClient
    # For a model by its id; empty before embed has said which.
    make_keeper: Callable[[str], GalleryKeeper]
    keeper: GalleryKeeper = field(init=False)
    model_id: str = ""
    _made_for: str = ""

    def __post_init__(self) -> None:
        self.keeper = self.make_keeper("")

    def tend(self) -> None:
        """One turn of its gallery, which is made for the model that embed runs."""
        if not self.held_model_id and self._made_for != self.model_id:
            unused, self.keeper, self._made_for = self.keeper, self.make_keeper(self.model_id), self.model_id
            unused.close()
        self.keeper.tend()

    def retire(self) -> GalleryKeeper:
        """Begin anew; the gallery that goes out of use."""
        retired, self.keeper, self._made_for = self.keeper, self.make_keeper(""), ""
        return retired

    def look(self) -> None:
        """See which model runs; of an embed that does not answer, the last one seen."""
        try:
            self.model_id = self.embed.describe_model().model_id
        except DependencyUnavailable:
            return

    @property
    def held_model_id(self) -> str:
        """The model that its gallery is open for; empty before."""
        model = self.keeper.model
        return "" if model is None else model.model_id

    @property
    def is_ready(self) -> bool:
        return self.keeper.state is GalleryState.READY


class ModelLanes:
    """Follows what ingest says of the migration. `tend` is to be called again and again. Safe for several threads."""

    def __init__(self, lanes: Sequence[Lane], migrations: MigrationSource, metrics: Metrics) -> None:
        self._lanes = tuple(lanes)
        self._migrations = migrations
        self._metrics = metrics
        self._lock = RLock()
        self._view: migration_pb2.ModelMigration | None = None
        self._serving = self._lanes[0]
        self._obstacle: LikenessError | None = GalleryIncomplete(
            "Which model is in service is not known yet: ingest does not answer.", advice="Try again in a few seconds."
        )
        self._retired: list[tuple[float, GalleryKeeper]] = []
        self._measured_s = 0.0

    @property
    def serving(self) -> Lane:
        """The lane that searches begin with from now on."""
        return self._serving

    @property
    def lanes(self) -> Sequence[Lane]:
        return self._lanes

    @property
    def view(self) -> migration_pb2.ModelMigration:
        """What ingest said last; empty where there never was a migration."""
        return self._view or migration_pb2.ModelMigration()

    def obstacle(self) -> LikenessError | None:
        """Why no lane may be searched, whatever its gallery says."""
        return self._obstacle

    def of(self, model_id: str) -> Lane | None:
        """The lane whose gallery holds this model's templates, in service or not."""
        found = [lane for lane in self._lanes if lane.held_model_id == model_id]
        return next((lane for lane in found if lane is self._serving), found[0] if found else None)

    def shadow_of(self, model_id: str) -> Lane | None:
        """The lane to repeat a search in; None where nothing is to be repeated."""
        view = self.view
        if not view.is_shadowing or model_id not in (view.from_model_id, view.to_model_id):
            return None
        other = view.to_model_id if model_id == view.from_model_id else view.from_model_id
        lane = self.of(other)
        return lane if lane is not None and lane.is_ready else None

    def tend(self) -> None:
        """One turn: ask ingest, look which models run, load what is wanted, put the right lane into service."""
        with self._lock:
            self._ask()
            for lane in self._lanes:
                lane.look()
            for lane in self._lanes:
                if self._is_wanted(lane):
                    lane.tend()
                elif lane.keeper.model is not None and lane is not self._serving:
                    self._retire(lane)
            self._choose()
            self._close_retired()
            self._measure()

    def close(self) -> None:
        with self._lock:
            for lane in self._lanes:
                lane.keeper.close()
            for _, keeper in self._retired:
                keeper.close()
            self._retired.clear()

    def _ask(self) -> None:
        try:
            self._view = self._migrations.describe()
        except DependencyUnavailable as error:
            if self._view is None:
                self._obstacle = GalleryIncomplete(
                    f"Which model is in service is not known yet: {error.detail}", advice="Try again in a few seconds."
                )

    def _is_wanted(self, lane: Lane) -> bool:
        """The models of the migration, the former one too: searches of then are run again with it."""
        view = self._view
        if view is None:
            return False
        if not view.state:
            return lane is self._lanes[0]
        return bool(lane.model_id) and lane.model_id in (view.from_model_id, view.to_model_id)

    def _choose(self) -> None:
        view = self._view
        if view is None:
            return
        if not view.state:
            self._serving, self._obstacle = self._lanes[0], None
            return
        wanted = view.serving_model_id
        found = [lane for lane in self._lanes if wanted in (lane.held_model_id, lane.model_id)]
        if not found:
            self._obstacle = ModelMismatch(
                f"Searches are to be answered with {wanted}, which no embed that search knows runs.",
                advice="Start an embed with that model at PEERS__EMBED or CANDIDATE_EMBED.",
            )
            return
        chosen = min(found, key=lambda lane: (not lane.is_ready, lane is not self._serving))
        if chosen is not self._serving:
            structlog.get_logger().info("model_in_service", model_id=wanted, lane=chosen.name, was=self._serving.name)
        # One assignment: a search takes the lane once, when it begins.
        self._serving, self._obstacle = chosen, None

    def _retire(self, lane: Lane) -> None:
        """Its gallery goes out of use; a search that uses it still may end."""
        self._retired.append((monotonic() + _GRACE_S, lane.retire()))

    def _close_retired(self) -> None:
        due = [keeper for due_s, keeper in self._retired if monotonic() >= due_s]
        self._retired = [each for each in self._retired if each[1] not in due]
        for keeper in due:
            keeper.close()

    def _measure(self) -> None:
        if monotonic() - self._measured_s < _MEASURE_EVERY_S:
            return
        self._measured_s = monotonic()
        for watchlist_id, count in self._serving.keeper.counts_by_watchlist().items():
            self._metrics.search_gallery_references.labels(watchlist_id).set(count)

    def searchable(self) -> Mapping[str, Mapping[str, int]]:
        """References by model and watchlist."""
        return {lane.held_model_id: lane.keeper.counts_by_watchlist() for lane in self._lanes if lane.held_model_id}
