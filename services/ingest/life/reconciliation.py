"""Ledger against gallery against images, by id and content; drift is repaired and reported."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from threading import Lock
from time import sleep
from typing import Protocol

import structlog

from services.ingest.life.erasing import EraseSubject
from services.ingest.models import CurrentModel
from services.ingest.ports import GalleryWriter, ReferenceReader
from services.rpc.auditing import AuditRecorder, platform_principal
from services.rpc.v1 import audit_pb2, ingest_pb2, search_pb2
from services.shared.clock import Clock, rfc3339
from services.shared.errors import Conflict, IntegrityError, NotFound
from services.shared.ids import new_id
from services.shared.ports.image_store import ImageStore

_DIGEST = 16
_NAMED = 100  # ids that a report names of each kind; all of them are in the log
_IN_ONE_CALL = 1000


class GalleryUpkeep(Protocol):
    """`services.rpc.clients.GalleryUpkeepClient`."""

    def list_references(self) -> Iterator[search_pb2.GalleryListing]: ...

    def rebuild(self) -> search_pb2.GalleryDescription: ...


class RenewingLedger(Protocol):
    """Gives enrolled references a new version, so that a gallery takes them again. Raises DependencyUnavailable."""

    def renew(self, reference_ids: Sequence[str]) -> Mapping[str, int]: ...


@dataclass
class Drift:
    """How many, and the first of them by id."""

    count: int = 0
    ids: list[str] = field(default_factory=list)

    def note(self, name: str) -> None:
        self.count += 1
        if len(self.ids) < _NAMED:
            self.ids.append(name)


@dataclass
class Reconciliation:
    """What one comparison found. What was missing, other or surplus in the gallery has been put right; images cannot
    be made again: restore them from the backup and reconcile once more."""

    reconciliation_id: str
    started_at: str
    is_deep: bool
    finished_at: str = ""
    compared: int = 0
    missing_in_gallery: Drift = field(default_factory=Drift)
    other_in_gallery: Drift = field(default_factory=Drift)
    surplus_in_gallery: Drift = field(default_factory=Drift)
    images: int = 0
    missing_images: Drift = field(default_factory=Drift)
    damaged_images: Drift = field(default_factory=Drift)
    erased_again: int = 0

    @property
    def is_clean(self) -> bool:
        found = (self.missing_in_gallery, self.other_in_gallery, self.surplus_in_gallery)
        return not any(each.count for each in (*found, self.missing_images, self.damaged_images)) and not (
            self.erased_again
        )


@dataclass(slots=True)
class _Held:
    version: int
    watchlist_id: str
    digest: bytes


class Reconcile:
    """Compares and repairs; one at a time."""

    def __init__(
        self,
        *,
        references: ReferenceReader,
        ledger: RenewingLedger,
        gallery: GalleryWriter,
        upkeep: GalleryUpkeep,
        images: ImageStore,
        erasing: EraseSubject,
        model: CurrentModel,
        recorder: AuditRecorder,
        clock: Clock,
        images_per_s: int,
    ) -> None:
        self._references = references
        self._ledger = ledger
        self._gallery = gallery
        self._upkeep = upkeep
        self._images = images
        self._erasing = erasing
        self._model = model
        self._recorder = recorder
        self._clock = clock
        self._images_per_s = images_per_s
        self._lock = Lock()
        self._latest: Reconciliation | None = None

    @property
    def latest(self) -> Reconciliation | None:
        return self._latest

    def run(self, *, is_deep: bool) -> Reconciliation:
        """`is_deep` reads every image and compares its bytes with its name; else it is looked up.

        1. what was erased and stands nevertheless (a restored ledger) is erased again;
        2. what the gallery holds is listed first and the ledger read after it, so that what is enrolled meanwhile is
           at worst put twice and nothing that belongs there is taken for surplus;
        3. missing and other references are put, under a new version;
        4. surplus ones are withdrawn;
        5. images are looked for, or read, at a bounded rate.

        Raises Conflict when one is under way, GalleryIncomplete, DependencyUnavailable, AuditUnavailable.
        """
        if not self._lock.acquire(blocking=False):
            raise Conflict("A reconciliation is under way.", advice="Wait for that.", code="reconciliation_under_way")
        try:
            report = Reconciliation(new_id(), rfc3339(self._clock.now()), is_deep)
            report.erased_again = self._erasing.repeat_after_restore()
            images = self._compare_gallery(report)
            self._compare_images(images, report)
            report.finished_at = rfc3339(self._clock.now())
            self._tell(report)
            self._latest = report
            return report
        finally:
            self._lock.release()

    def rebuild(self) -> search_pb2.GalleryDescription:
        """Have the gallery filled anew from the ledger, while searches go on."""
        return self._upkeep.rebuild()

    def _compare_gallery(self, report: Reconciliation) -> set[str]:
        held = self._listed()
        images: set[str] = set()
        drifted: list[tuple[ingest_pb2.ReferenceBatch, dict[int, bool]]] = []
        for batch in self._references.read(self._model.model_id()):
            report.compared += len(batch.reference_ids)
            images.update(sha256 for sha256 in batch.image_sha256s if sha256)
            wanted = _drifted(batch, held)
            if wanted:
                drifted.append((batch, wanted))
        # Only now: the ledger is read in the order of versions, and would bring again what has a new one.
        for batch, wanted in drifted:
            versions = self._ledger.renew([batch.reference_ids[place] for place in wanted])
            # What has no new version is just being settled or withdrawn.
            standing = [place for place in wanted if batch.reference_ids[place] in versions]
            for place in standing:
                drift = report.missing_in_gallery if wanted[place] else report.other_in_gallery
                drift.note(batch.reference_ids[place])
            if standing:
                self._gallery.put(_part_of(batch, standing, versions))
        surplus = sorted(held)  # what the ledger has was taken out
        for name in surplus:
            report.surplus_in_gallery.note(name)
        for start in range(0, len(surplus), _IN_ONE_CALL):
            some = surplus[start : start + _IN_ONE_CALL]
            # At the version that is held a withdrawal wins; a newer one of the ledger's comes back by itself.
            self._gallery.withdraw(some, [held[name].version for name in some])
        return images

    def _listed(self) -> dict[str, _Held]:
        held: dict[str, _Held] = {}
        for listing in self._upkeep.list_references():
            for place, (name, version) in enumerate(zip(listing.reference_ids, listing.versions, strict=True)):
                digest = listing.digests[place * _DIGEST : (place + 1) * _DIGEST]
                held[name] = _Held(version, listing.watchlist_id, digest)
        return held

    def _compare_images(self, images: set[str], report: Reconciliation) -> None:
        report.images = len(images)
        for number, sha256 in enumerate(sorted(images)):
            if number % self._images_per_s == self._images_per_s - 1:
                sleep(1.0)  # searches and enrolments go before
            try:
                if report.is_deep:
                    self._images.get(sha256)
                elif not self._images.has(sha256):
                    report.missing_images.note(sha256)
            except NotFound:
                report.missing_images.note(sha256)
            except IntegrityError:
                report.damaged_images.note(sha256)

    def _tell(self, report: Reconciliation) -> None:
        facts = {
            name: str(value.count if isinstance(value, Drift) else value)
            for name, value in vars(report).items()
            if name not in {"reconciliation_id", "started_at", "finished_at"}
        }
        log = structlog.get_logger()
        (log.info if report.is_clean else log.error)("gallery_reconciled", **asdict(report))
        if not report.is_clean:
            self._recorder.record(
                audit_pb2.ALTERATION,
                audit_pb2.DONE,
                "gallery_reconciliation",
                report.reconciliation_id,
                platform_principal("ingest"),
                objects=["gallery:all"],
                details=facts,
            )


def _drifted(batch: ingest_pb2.ReferenceBatch, held: dict[str, _Held]) -> dict[int, bool]:
    """The places of references that the gallery lacks (True) or holds otherwise (False); what it holds is taken out of
    `held`."""
    size, vectors = batch.dimension * 4, batch.vectors
    wanted: dict[int, bool] = {}
    for place, name in enumerate(batch.reference_ids):
        found = held.pop(name, None)
        if found is None:
            wanted[place] = True
            continue
        digest = hashlib.sha256(vectors[place * size : (place + 1) * size]).digest()[:_DIGEST]
        is_same = found.digest == digest and found.watchlist_id == batch.watchlist_id
        # A higher version in the gallery was put after the ledger was read.
        if not is_same or found.version < batch.versions[place]:
            wanted[place] = False
    return wanted


def _part_of(
    batch: ingest_pb2.ReferenceBatch, places: Sequence[int], versions: Mapping[str, int]
) -> ingest_pb2.ReferenceBatch:
    size, vectors = batch.dimension * 4, batch.vectors
    names = [batch.reference_ids[place] for place in places]
    return ingest_pb2.ReferenceBatch(
        watchlist_id=batch.watchlist_id,
        reference_ids=names,
        subject_ids=[batch.subject_ids[place] for place in places],
        owners=[batch.owners[place] for place in places],
        image_sha256s=[batch.image_sha256s[place] for place in places],
        vectors=b"".join(vectors[place * size : (place + 1) * size] for place in places),
        dimension=batch.dimension,
        model_id=batch.model_id,
        versions=[versions[name] for name in names],
        expires_at=[batch.expires_at[place] for place in places],
    )
