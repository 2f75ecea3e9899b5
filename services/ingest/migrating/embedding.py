"""Stored images looked at by another model: in the background at a bounded rate, and at once what is being settled."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from time import sleep

import numpy as np
import structlog

from services.ingest.enrolling.analysis import ImageAnalyst, Interrupted
from services.ingest.enrolling.enrolment import Decision, PendingEnrolment, Source, Verdict
from services.ingest.migrating.batches import batch_of
from services.ingest.migrating.embeds import Embeds
from services.ingest.migrating.migration import MigrationLedger, MigrationState, OtherTemplate, OtherTemplates
from services.ingest.ports import FaceAnalyser, GalleryWriter
from services.ingest.settings import MigrationSettings
from services.shared.biometric import ModelProvenance
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailable, GalleryIncomplete, ModelMismatch

_IDLE_REST_S = 1.0
# With everything embedded, looking for what was left over costs a walk through the ledger; what is enrolled is embedded
# as it is settled.
_WATCH_REST_S = 5.0
_FINISHED_REST_S = 60.0
_PUT_AT_ONCE = 512
# While a candidate that nobody depends on yet does not answer, enrolments do not wait for it again and again.
_LEFT_FOR_S = 30.0
_TRIES = 200  # of an embed that is at its limit, a tenth of a second apart

_RESTS_S = {MigrationState.EMBEDDING: _IDLE_REST_S, MigrationState.FINISHED: _FINISHED_REST_S}


@dataclass(frozen=True, slots=True)
class _Target:
    """The model that every reference is to have a template of; `is_required` where searches are answered with it."""

    model_id: str
    is_required: bool
    idle_rest_s: float


class EmbedWithOtherModel:
    """Gives every enrolled reference a template of the candidate model, and every new one while a migration is open.

    What is done is in the ledger: a restart goes on where it stopped. An image of which the model makes no template is
    a loss with its reason; it is never passed over in silence. Safe for several threads.
    """

    def __init__(
        self,
        *,
        migrations: MigrationLedger,
        templates: OtherTemplates,
        embeds: Embeds,
        gallery: GalleryWriter,
        analyst_of: Callable[[FaceAnalyser], ImageAnalyst],
        on_complete: Callable[[], None],
        on_made: Callable[[Sequence[OtherTemplate]], None],
        clock: Clock,
        settings: MigrationSettings,
    ) -> None:
        """`on_complete` is called, again and again, while nothing is left to embed; `on_made` with
        what came of images, once it is kept."""
        self._migrations = migrations
        self._templates = templates
        self._embeds = embeds
        self._gallery = gallery
        self._analyst_of = analyst_of
        self._on_complete = on_complete
        self._on_made = on_made
        self._clock = clock
        self._settings = settings
        self._pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="other-model")
        self._after = ""
        self._left_until_s = -math.inf

    def ensure(self, enrolment_ids: Sequence[str]) -> None:
        """These are being settled: see that the other model's gallery has them too.

        Once searches are answered with that model, an enrolment is not settled without: raises DependencyUnavailable,
        GalleryIncomplete, ModelMismatch. Before, what fails here is left to the background.
        """
        target = self._target()
        if target is None or not enrolment_ids:
            return
        if not target.is_required and self._clock.monotonic_s() < self._left_until_s:
            return
        try:
            missing = self._templates.missing_of(enrolment_ids, target.model_id)
            if missing:
                self._embed(missing, target.model_id)
            self._put(target.model_id, enrolment_ids)
        except (DependencyUnavailable, GalleryIncomplete, ModelMismatch) as error:
            if target.is_required:
                raise
            self._left_until_s = self._clock.monotonic_s() + _LEFT_FOR_S
            structlog.get_logger().warning("other_model_later", code=error.code, detail=error.detail)

    def step(self) -> float:
        """One batch; the seconds to rest, so that the rate stays within its bound."""
        target = self._target()
        if target is None:
            return _IDLE_REST_S
        started_s = self._clock.monotonic_s()
        batch = self._templates.without(target.model_id, self._after, self._settings.batch)
        looked_at = 0
        if batch:
            looked_at = self._embed(batch, target.model_id)
            self._after = batch[-1].enrolment_id
        put = self._put(target.model_id, None)
        if batch:
            spent_s = self._clock.monotonic_s() - started_s
            return max(0.0, looked_at / self._settings.images_per_s - spent_s)
        if self._after:
            self._after = ""  # what was settled late stands before the place where this pass began
            return 0.0
        if not put:
            self._on_complete()
        return target.idle_rest_s

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _target(self) -> _Target | None:
        if not self._embeds.has_second:
            return None
        migration = self._migrations.current()
        if migration is None:
            return None
        is_required = migration.state in {MigrationState.SWITCHED, MigrationState.FINISHED}
        rest_s = _RESTS_S.get(migration.state, _WATCH_REST_S)
        return _Target(migration.to_model_id, is_required, rest_s)

    def _embed(self, batch: Sequence[PendingEnrolment], model_id: str) -> int:
        """Look at these images and keep what came of each; how many. Raises DependencyUnavailable, ModelMismatch."""
        embed = self._embeds.running(model_id)
        model = embed.describe_model()
        analyst = self._analyst_of(embed)
        images = [pending for pending in batch if pending.source is not Source.SYNTHETIC]
        made = [_synthetic(pending, model) for pending in batch if pending.source is Source.SYNTHETIC]
        suspects: list[PendingEnrolment] = []
        for pending, future in [(each, self._pool.submit(_look, analyst, each, model)) for each in images]:
            try:
                made.append(future.result())
            except Interrupted:
                suspects.append(pending)
        self._keep(made)
        # As at enrolment: what embed had when it went away is tried alone; one image does not take others along.
        for pending in suspects:
            embed.describe_model()  # while it is away nobody is to blame
            self._keep([_look(analyst, pending, model, is_alone=True)])
        return len(images)

    def _keep(self, made: Sequence[OtherTemplate]) -> None:
        self._templates.keep(made, int(self._clock.now().timestamp() * 1000))
        self._on_made([each for each in made if each.image_sha256])

    def _put(self, model_id: str, enrolment_ids: Sequence[str] | None) -> int:
        """Bring templates into the model's gallery; how many. Raises DependencyUnavailable, GalleryIncomplete."""
        placed = self._templates.to_put(model_id, enrolment_ids, _PUT_AT_ONCE)
        for _, members in groupby(placed, key=lambda each: each.watchlist_id):
            group = list(members)
            standing = [each for each in group if each.template]  # of the others the key was destroyed
            if standing:
                self._gallery.put(batch_of(standing, model_id))
            self._templates.note_put([each.enrolment_id for each in group], model_id)
        return len(placed)


def _look(
    analyst: ImageAnalyst, pending: PendingEnrolment, model: ModelProvenance, *, is_alone: bool = False
) -> OtherTemplate:
    """Raises Interrupted, PlatformError."""
    for _ in range(_TRIES):
        outcome = analyst.decide(pending, is_alone=is_alone)
        if isinstance(outcome, Decision):
            return _made(pending, outcome, model)
        pending = outcome.pending
        sleep(outcome.pause_s)
    raise DependencyUnavailable("The candidate's embed is at its limit.", advice="Lower the rate of the migration.")


def _made(pending: PendingEnrolment, decision: Decision, model: ModelProvenance) -> OtherTemplate:
    sha256 = pending.key.image_sha256
    if decision.verdict is not Verdict.ENROL or decision.model is None:
        return OtherTemplate(
            pending.enrolment_id, sha256, model, loss_reason=decision.reason, loss_detail=decision.detail
        )
    if decision.model.model_id != model.model_id:
        raise ModelMismatch(
            f"The candidate's embed now runs {decision.model.model_id}, not {model.model_id}.",
            advice="Start it again with the migration's model, or abandon the migration.",
        )
    return OtherTemplate(
        pending.enrolment_id, sha256, decision.model, decision.template, unified_quality=decision.unified_quality
    )


def _synthetic(pending: PendingEnrolment, model: ModelProvenance) -> OtherTemplate:
    """A synthetic reference has no image; it gets another drawn template, the same whenever it is drawn."""
    seed = int.from_bytes(f"{pending.reference_id}/{model.model_id}".encode(), "big")
    vector = np.random.default_rng(seed).standard_normal(model.dimension)
    unit = (vector / np.linalg.norm(vector)).astype("<f4")
    return OtherTemplate(pending.enrolment_id, "", model, unit.tobytes())
