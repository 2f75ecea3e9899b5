"""The part of ingest's composition root that wires the life of the gallery."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from threading import Event

import sqlalchemy as sa
from fastapi import APIRouter

from services.ingest.adapters.erasure_register import SqlErasureRegister
from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.sql_clock import SqlClockMarks
from services.ingest.adapters.sql_custody import SqlCustody
from services.ingest.adapters.sql_erasures import SqlErasures
from services.ingest.adapters.sql_renewal import SqlRenewal
from services.ingest.adapters.sql_reviews import SqlReviews
from services.ingest.adapters.sql_searchability import SqlSearchability
from services.ingest.auditing import EnrolmentAudit
from services.ingest.enrolling.barring import BarErased
from services.ingest.feed.api import CustodyApi
from services.ingest.feed.messages import about
from services.ingest.life.api import LifeApi
from services.ingest.life.certificates import CertificateSigner
from services.ingest.life.clock_guard import ClockGuard
from services.ingest.life.dead_letters import DeadLetters
from services.ingest.life.erasing import EraseSubject, ErasureStores
from services.ingest.life.proof import AuditedErasure
from services.ingest.life.reconciliation import GalleryUpkeep, Reconcile
from services.ingest.life.retention import Retention, RetentionFile
from services.ingest.life.retention_api import RetentionApi
from services.ingest.life.sweeping import SweepImages, SweepRules
from services.ingest.loops import Loop
from services.ingest.models import CurrentModel
from services.ingest.ports import EnrolmentLedger, GalleryWriter, ImageHolds, ReferenceReader
from services.ingest.settings import IngestSettings
from services.ingest.upkeep_api import UpkeepApi
from services.ingest.whole_subject import Watchlists
from services.rpc.auditing import AuditRecorder
from services.rpc.clients import AuditClient
from services.rpc.open_acts import OpenActs
from services.shared.adapters.image_keys import ImageKeys
from services.shared.clock import Clock
from services.shared.consume import dead_letter_topic
from services.shared.ports.event_log import EventLog
from services.shared.ports.image_store import ImageStore, SweepableImageStore
from services.shared.telemetry import Metrics
from services.shared.tokens import TokenVerifier

_ERASURE_REST_S = 1.0
_CLOCK_REST_S = 10.0
_RECONCILE_REST_S = 30.0
_CLEARING_REST_S = 5.0
# A start has enough to do; and while versions are rolled out, processes of one that knows no holds have ended by then.
_FIRST_SWEEP_AFTER_S = 600.0
# What nothing names is older than what an event may name that is still in its topic.
_EVENTS_MARGIN_H = 24.0


@dataclass(frozen=True)
class LifeParts:
    """What the life of the gallery takes from the rest of ingest."""

    settings: IngestSettings
    clock: Clock
    engine: sa.Engine
    committer: GroupCommitter
    ledger: EnrolmentLedger
    references: ReferenceReader
    model: CurrentModel
    upkeep: GalleryUpkeep
    gallery: GalleryWriter
    images: ImageStore
    # The same images, as they can be gone through.
    sweepable: SweepableImageStore
    holds: ImageHolds
    acts: OpenActs
    metrics: Metrics
    keys: ImageKeys | None
    log: EventLog
    audit: EnrolmentAudit
    audit_client: AuditClient
    watchlists: Watchlists


@dataclass(frozen=True)
class Life:
    """What it gives back: loops to run, routes to serve."""

    loops: Sequence[Loop]
    erasing: EraseSubject
    signer: CertificateSigner
    register: SqlErasureRegister
    # What the door refuses.
    barring: BarErased
    custody: SqlCustody
    # To be called when what had been erased came again.
    on_erased: Callable[[], None]
    routers: Sequence[APIRouter]


def build_life(parts: LifeParts) -> Life:
    """Raises ConfigurationError, DependencyUnavailable."""
    settings = parts.settings.life
    guard = ClockGuard(parts.clock, SqlClockMarks(parts.engine, parts.committer))
    erasures, custody = SqlErasures(parts.engine, parts.committer), SqlCustody(parts.engine, parts.committer)
    register = SqlErasureRegister(parts.keys.engine if parts.keys is not None else parts.engine)
    signer = CertificateSigner(settings.certificate_key_path)
    topics = custody_topics(parts.settings)
    stores = ErasureStores(
        ledger=erasures,
        register=register,
        gallery=parts.gallery,
        images=parts.images,
        holds=parts.holds,
        keys=parts.keys,
        events=parts.log,
        topics=[*topics, *(dead_letter_topic(topic) for topic in topics)],
        about=about,
    )
    recorder = AuditRecorder(parts.audit_client, "ingest", parts.clock)
    proof = AuditedErasure(recorder, parts.audit_client)
    erasing = EraseSubject(stores, proof, signer, guard, parts.clock)
    clearing = _Clearing(erasing)
    reconcile = Reconcile(
        references=parts.references,
        ledger=SqlRenewal(parts.committer),
        gallery=parts.gallery,
        upkeep=parts.upkeep,
        images=parts.images,
        erasing=erasing,
        model=parts.model,
        recorder=recorder,
        clock=parts.clock,
        images_per_s=settings.reconcile_images_per_s,
    )
    letters = DeadLetters(parts.log, topics, custody)
    sweep = _sweep(parts, register, letters, guard)
    verifier = TokenVerifier(parts.settings.tokens)
    api = LifeApi(
        erasing=erasing,
        erasures=erasures,
        signer=signer,
        guard=guard,
        audit=parts.audit,
        verifier=verifier,
        quarantine_days=settings.quarantine_days,
        watchlists=parts.watchlists,
    )
    return Life(
        loops=[
            Loop("clock", partial(_observe, guard)),
            Loop("erasures", _ErasureStep(erasing).step),
            Loop("clear-topics", clearing.step),
            *_reconciling(reconcile, settings.reconcile_every_h, parts.clock),
            *_sweeping(sweep, parts),
        ],
        erasing=erasing,
        signer=signer,
        register=register,
        barring=BarErased(register, erasures),
        custody=custody,
        on_erased=clearing.ask,
        routers=[
            api.router(),
            CustodyApi(
                custody=custody,
                letters=letters,
                searchability=SqlSearchability(parts.engine),
                audit=parts.audit,
                verifier=verifier,
                watchlists=parts.watchlists,
            ).router(),
            _retention_api(parts, erasing, guard, verifier).router(),
            UpkeepApi(reconcile, sweep, parts.audit, verifier).router(),
        ],
    )


def _reconciling(reconcile: Reconcile, every_h: float, clock: Clock) -> list[Loop]:
    """The first comparison comes after the first interval: a start has enough to do."""
    if not every_h:
        return []
    due_s = clock.monotonic_s() + every_h * 3600

    def step() -> float:
        nonlocal due_s
        if clock.monotonic_s() >= due_s:
            reconcile.run(is_deep=False)
            due_s = clock.monotonic_s() + every_h * 3600
        return _RECONCILE_REST_S

    return [Loop("reconciliation", step)]


def _sweep(parts: LifeParts, register: SqlErasureRegister, letters: DeadLetters, guard: ClockGuard) -> SweepImages:
    parts.holds.release_left_behind(int(parts.clock.now().timestamp() * 1000), is_start=True)
    settings = parts.settings.life
    grace_h = max(settings.orphan_grace_h, parts.settings.events.retention_h + _EVENTS_MARGIN_H)
    return SweepImages(
        images=parts.sweepable,
        holds=parts.holds,
        taken_back=register,
        letters=letters,
        guard=guard,
        acts=parts.acts,
        metrics=parts.metrics,
        clock=parts.clock,
        rules=SweepRules(timedelta(hours=grace_h), settings.orphan_limit),
    )


def _sweeping(sweep: SweepImages, parts: LifeParts) -> list[Loop]:
    """Soon after the start, for what the process before left, and then as often as ledger and images are compared."""
    settings = parts.settings.life
    if not settings.reconcile_every_h:
        return []
    steps: Iterator[int] | None = None
    due_s = parts.clock.monotonic_s() + _FIRST_SWEEP_AFTER_S

    def step() -> float:
        nonlocal steps, due_s
        if steps is None and parts.clock.monotonic_s() < due_s:
            return _RECONCILE_REST_S
        current, steps = steps or sweep.by_itself(), None
        looked_at = next(current, None)  # what raises is begun anew, after a pause
        if looked_at is None:
            due_s = parts.clock.monotonic_s() + settings.reconcile_every_h * 3600
            return _RECONCILE_REST_S
        steps = current
        return looked_at / settings.reconcile_images_per_s

    return [Loop("image-sweep", step)]


def _retention_api(parts: LifeParts, erasing: EraseSubject, guard: ClockGuard, verifier: TokenVerifier) -> RetentionApi:
    settings = parts.settings.life
    rules = RetentionFile(settings.retention_path)
    rules.rules()  # a file that is wrong stops the start, not the first request
    retention = Retention(SqlReviews(parts.engine, parts.committer), rules, erasing, parts.audit, parts.clock)
    return RetentionApi(
        retention=retention,
        ledger=parts.ledger,
        guard=guard,
        audit=parts.audit,
        verifier=verifier,
        quarantine_days=settings.quarantine_days,
    )


def custody_topics(settings: IngestSettings) -> list[str]:
    """Where custody systems write."""
    feed = settings.custody_feed
    return [feed.topic, *feed.change_topics]


def _observe(guard: ClockGuard) -> float:
    guard.observe()
    return _CLOCK_REST_S


class _Clearing:
    """Clears the topics once after the start, and whenever it is asked to."""

    def __init__(self, erasing: EraseSubject) -> None:
        self._erasing = erasing
        self._asked = Event()
        self._asked.set()

    def ask(self) -> None:
        self._asked.set()

    def step(self) -> float:
        if self._asked.is_set():
            self._asked.clear()
            if not self._erasing.clear_topics():
                self._asked.set()  # what a consumer has not read yet stays until it has
        return _CLEARING_REST_S


class _ErasureStep:
    """What a restored backup brought back is erased once more, first of all."""

    def __init__(self, erasing: EraseSubject) -> None:
        self._erasing = erasing
        self._is_restored_checked = False

    def step(self) -> float:
        if not self._is_restored_checked:
            self._erasing.repeat_after_restore()
            self._is_restored_checked = True
        return 0.0 if self._erasing.step() else _ERASURE_REST_S
