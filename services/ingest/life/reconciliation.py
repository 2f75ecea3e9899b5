"""Ledger against gallery against images, by id and content; drift is repaired and reported."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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


# An owner and one of its watchlists: what somebody may see of, or not.
Scope = tuple[str, str]


class GalleryUpkeep(Protocol):
    """`services.rpc.clients.GalleryUpkeepClient`."""

    def list_references(self) -> Iterator[search_pb2.GalleryListing]: ...

    def rebuild(self) -> search_pb2.GalleryDescription: ...


class RenewingLedger(Protocol):
    """Raises DependencyUnavailable."""

    def renew(self, reference_ids: Sequence[str]) -> Mapping[str, int]:
        """Give enrolled references a new version, so that a gallery takes them again."""
        ...

    def standing(self) -> Mapping[Scope, int]:
        """How many references are enrolled, by owner and watchlist."""
        ...


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
class Part:
    """What one comparison found of one owner's references in one watchlist. An image that stands in two is in both."""

    compared: int = 0
    missing_in_gallery: Drift = field(default_factory=Drift)
    other_in_gallery: Drift = field(default_factory=Drift)
    images: int = 0
    missing_images: Drift = field(default_factory=Drift)
    damaged_images: Drift = field(default_factory=Drift)


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
    parts: dict[Scope, Part] = field(default_factory=dict)

    def part(self, scope: Scope) -> Part:
        return self.parts.setdefault(scope, Part())

    def note(self, kind: str, name: str, scopes: Iterable[Scope]) -> None:
        """Count it once for the platform and once for each that it is of. `kind`: a field of a part."""
        for holder in (self, *(self.part(scope) for scope in scopes)):
            drift: Drift = getattr(holder, kind)
            drift.note(name)

    def seen_from(self, owner: str, watchlist_ids: Collection[str]) -> Reconciliation:
        """What concerns this owner's references in these watchlists and nothing else. What is surplus in the gallery is
        in no ledger, so it is nobody's who could be shown it; what a restored ledger brought back is not told apart."""
        shown = Reconciliation(self.reconciliation_id, self.started_at, self.is_deep, self.finished_at)
        for scope in sorted(self.parts):
            if scope[0] != owner or scope[1] not in watchlist_ids:
                continue
            part = self.parts[scope]
            shown.compared += part.compared
            shown.images += part.images
            for kind in _KINDS:
                held: Drift = getattr(part, kind)
                told: Drift = getattr(shown, kind)
                told.count += held.count
                told.ids = (told.ids + held.ids)[:_NAMED]
        return shown

    def is_all_of(self, owner: str, watchlist_ids: Collection[str]) -> bool:
        """Whether everything that the ledger holds is this owner's in these watchlists."""
        return all(each == owner and watchlist in watchlist_ids for each, watchlist in self.parts)

    @property
    def is_clean(self) -> bool:
        found = (self.missing_in_gallery, self.other_in_gallery, self.surplus_in_gallery)
        return not any(each.count for each in (*found, self.missing_images, self.damaged_images)) and not (
            self.erased_again
        )


_KINDS = ("missing_in_gallery", "other_in_gallery", "missing_images", "damaged_images")


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

    def standing(self, owner: str, watchlist_ids: Collection[str]) -> Mapping[str, int]:
        """How many of this owner's references are enrolled, by watchlist, as the ledger says."""
        counted = self._ledger.standing()
        return {name: count for (each, name), count in counted.items() if each == owner and name in watchlist_ids}

    def is_all_of(self, owner: str, watchlist_ids: Collection[str]) -> bool:
        """Whether everything that is enrolled now is this owner's in these watchlists."""
        return all(each == owner and name in watchlist_ids for each, name in self._ledger.standing())

    def _compare_gallery(self, report: Reconciliation) -> dict[str, tuple[Scope, ...]]:
        """Every image, and of whom it is."""
        held = self._listed()
        images: dict[str, tuple[Scope, ...]] = {}
        drifted: list[tuple[ingest_pb2.ReferenceBatch, dict[int, bool]]] = []
        for batch in self._references.read(self._model.model_id()):
            report.compared += len(batch.reference_ids)
            _count(batch, images, report)
            wanted = _drifted(batch, held)
            if wanted:
                drifted.append((batch, wanted))
        # Only now: the ledger is read in the order of versions, and would bring again what has a new one.
        for batch, wanted in drifted:
            self._put_again(batch, wanted, report)
        self._take_out(held, report)  # what the ledger has was taken out of `held`
        return images

    def _put_again(self, batch: ingest_pb2.ReferenceBatch, wanted: Mapping[int, bool], report: Reconciliation) -> None:
        """Give the gallery what it lacks or holds otherwise. `wanted`: by place in the batch, whether it is missing."""
        versions = self._ledger.renew([batch.reference_ids[place] for place in wanted])
        # What has no new version is just being settled or withdrawn.
        standing = [place for place in wanted if batch.reference_ids[place] in versions]
        for place in standing:
            kind = "missing_in_gallery" if wanted[place] else "other_in_gallery"
            report.note(kind, batch.reference_ids[place], [(batch.owners[place], batch.watchlist_id)])
        if standing:
            self._gallery.put(_part_of(batch, standing, versions))

    def _take_out(self, held: Mapping[str, _Held], report: Reconciliation) -> None:
        """Withdraw from the gallery what the ledger does not have."""
        surplus = sorted(held)
        for name in surplus:
            report.surplus_in_gallery.note(name)
        for start in range(0, len(surplus), _IN_ONE_CALL):
            some = surplus[start : start + _IN_ONE_CALL]
            # At the version that is held a withdrawal wins; a newer one of the ledger's comes back by itself.
            self._gallery.withdraw(some, [held[name].version for name in some])

    def _listed(self) -> dict[str, _Held]:
        held: dict[str, _Held] = {}
        for listing in self._upkeep.list_references():
            for place, (name, version) in enumerate(zip(listing.reference_ids, listing.versions, strict=True)):
                digest = listing.digests[place * _DIGEST : (place + 1) * _DIGEST]
                held[name] = _Held(version, listing.watchlist_id, digest)
        return held

    def _compare_images(self, images: Mapping[str, tuple[Scope, ...]], report: Reconciliation) -> None:
        report.images = len(images)
        for number, sha256 in enumerate(sorted(images)):
            if number % self._images_per_s == self._images_per_s - 1:
                sleep(1.0)  # searches and enrolments go before
            try:
                if report.is_deep:
                    self._images.get(sha256)
                elif not self._images.has(sha256):
                    report.note("missing_images", sha256, images[sha256])
            except NotFound:
                report.note("missing_images", sha256, images[sha256])
            except IntegrityError:
                report.note("damaged_images", sha256, images[sha256])

    def _tell(self, report: Reconciliation) -> None:
        facts = {
            name: str(value.count if isinstance(value, Drift) else value)
            for name, value in vars(report).items()
            if name not in {"reconciliation_id", "started_at", "finished_at", "parts"}
        }
        log = structlog.get_logger()
        (log.info if report.is_clean else log.error)("gallery_reconciled", **asdict(replace(report, parts={})))
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


def _count(batch: ingest_pb2.ReferenceBatch, images: dict[str, tuple[Scope, ...]], report: Reconciliation) -> None:
    """Every reference of a batch, and every image the first time that this owner has it there."""
    for owner, sha256 in zip(batch.owners, batch.image_sha256s, strict=True):
        scope = (owner, batch.watchlist_id)
        part = report.part(scope)
        part.compared += 1
        known = images.get(sha256, ())
        if sha256 and scope not in known:
            images[sha256] = (*known, scope)
            part.images += 1


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
