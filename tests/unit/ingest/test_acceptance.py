"""Acceptance where something fails on the way: nothing half done, and every audit intent gets its end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.ingest.adapters.erasure_register import SqlErasureRegister
from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.sql_erasures import SqlErasures
from services.ingest.adapters.sql_ledger import SqlLedger
from services.ingest.auditing import EnrolmentAudit
from services.ingest.bootstrap import MIGRATIONS
from services.ingest.enrolling.acceptance import AcceptEnrolments, Backlog
from services.ingest.enrolling.barring import BarErased
from services.ingest.enrolling.checks import LawfulnessChecks
from services.ingest.enrolling.enrolment import EnrolmentState, EnrolReference, Source
from services.ingest.life.erasing import EraseCommand, EraseSubject, ErasureStores
from services.ingest.life.erasure import AWAITING_ERASURE, CAME_MEANWHILE, Erasure, ErasureState, Tombstone
from services.ingest.life.proof import AuditedErasure
from services.ingest.maintenance import CloseAbandonedIntents
from services.ingest.models import CurrentModel
from services.rpc.v1 import audit_pb2, embed_pb2
from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.adapters.scanned_image_store import ScannedImageStore
from services.shared.biometric import ImageAnalysis, ModelProvenance
from services.shared.clock import SystemClock
from services.shared.database import create_engine, migrate
from services.shared.errors import (
    AuditUnavailable,
    Conflict,
    DependencyUnavailable,
    ImageRefused,
    InvalidRequest,
    LikenessError,
    Overloaded,
)
from services.shared.ids import new_id
from services.shared.settings import DatabaseSettings
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal
from services.shared.watchlists import WatchlistFile

CUSTODIAN = Principal("c-1", "northshire", frozenset({"custodian"}), frozenset({"custody"}))


class Trail:
    """An audit log in memory that fails when told."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[str, audit_pb2.Phase.ValueType]] = {}
        self.is_down = False

    def entry(
        self,
        operation: audit_pb2.Operation.ValueType,
        phase: audit_pb2.Phase.ValueType,
        activity: str,
        activity_id: str,
        principal: Principal,
        *,
        objects: Sequence[str] = (),
        details: Mapping[str, str] | None = None,
        entry_id: str | None = None,
    ) -> audit_pb2.AuditEntry:
        assert entry_id is not None
        return audit_pb2.AuditEntry(entry_id=entry_id, phase=phase, activity_id=activity_id)

    def record_all(self, entries: Sequence[audit_pb2.AuditEntry]) -> None:
        if self.is_down:
            raise AuditUnavailable("down")
        for entry in entries:
            said = (entry.activity_id, entry.phase)
            if self.entries.setdefault(entry.entry_id, said) != said:
                raise Conflict("another entry")

    def phases(self) -> list[audit_pb2.Phase.ValueType]:
        return [phase for _, phase in self.entries.values()]


class Images(FolderImageStore):
    """A folder that cannot be written when told."""

    is_full = False

    def put(self, content: bytes) -> str:
        if self.is_full:
            raise DependencyUnavailable("no space left")
        return super().put(content)


class Embed:
    """Says which model it runs, when it is there."""

    is_there = True

    def describe_model(self) -> ModelProvenance:
        if not self.is_there:
            raise DependencyUnavailable("away")
        return ModelProvenance("m1", "d", "0", "r", "1", "l", 4, "p", "rt", "cpu")

    def analyse(
        self, image: bytes, selection: embed_pb2.AnalyseRequest.Selection.ValueType, *, timeout_s: float
    ) -> ImageAnalysis:
        raise NotImplementedError


@dataclass
class Door:
    """The use case with everything around it."""

    acceptance: AcceptEnrolments
    ledger: SqlLedger
    trail: Trail
    images: Images
    embed: Embed
    closing: CloseAbandonedIntents
    waiting: dict[str, int] = field(default_factory=lambda: {"pending": 0, "events": 0})

    def accept(self, image: bytes = b"image", **changes: Any) -> str:
        return self.acceptance.accept(command(image, **changes), CUSTODIAN, Source.REST).enrolment_id


def command(image: bytes, **changes: Any) -> EnrolReference:
    return EnrolReference(**{**_fields(), **changes}, image=image)


def _fields() -> dict[str, Any]:
    return {
        "watchlist_id": "custody",
        "owner": "northshire",
        "subject_id": "S1",
        "lawful_basis": "pace_1984_s64a",
        "captured_on": "2026-01-02",
    }


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    yield from open_door(f"sqlite:///{tmp_path / 'l.sqlite'}", tmp_path)


def open_door(url: str, folder: Path) -> Iterator[Door]:
    engine = create_engine(DatabaseSettings(url=url))
    migrate(engine, MIGRATIONS)
    committer = GroupCommitter(engine)
    ledger, trail, images, embed = SqlLedger(engine, committer, "one"), Trail(), Images(folder / "i"), Embed()
    audit, clock, pool = EnrolmentAudit(trail), SystemClock(), ThreadPoolExecutor(4)
    waiting = {"pending": 0, "events": 0}
    acceptance = AcceptEnrolments(
        ledger=ledger,
        images=images,
        audit=audit,
        checks=LawfulnessChecks(WatchlistFile(), clock),
        model=CurrentModel(embed, ledger),
        backlog=Backlog(lambda: waiting["pending"], 10, lambda: waiting["events"], 10),
        clock=clock,
        pool=pool,
        wake_worker=lambda: None,
    )
    closing = CloseAbandonedIntents(ledger, audit, clock, acceptance.is_under_way)
    closing._started_ms = 2**60  # as after a restart: whatever stands open was begun by the process before
    yield Door(acceptance, ledger, trail, images, embed, closing, waiting)
    pool.shutdown()
    committer.close()
    engine.dispose()


def test_accepted_has_an_intent_an_image_and_a_row(door: Door) -> None:
    enrolment_id = door.accept()
    view = door.ledger.view(enrolment_id)
    assert view is not None
    assert door.images.get(view.image_sha256) == b"image"
    assert list(door.trail.entries.values()) == [(enrolment_id, audit_pb2.INTENT)]
    assert door.closing.step() > 0
    assert door.trail.phases() == [audit_pb2.INTENT]


def test_while_the_audit_log_is_down_nothing_is_done_and_its_intents_end_later(door: Door) -> None:
    door.trail.is_down = True
    for _ in range(3):
        with pytest.raises(AuditUnavailable):
            door.accept()
    assert door.ledger.pending_count() == 0
    assert not [path for path in door.images._path.rglob("*") if path.is_file()]
    door.trail.is_down = False
    door.closing.step()
    # Only the first was tried at all; the others were refused because of it.
    assert door.trail.phases() == [audit_pb2.INTENT, audit_pb2.FAILED]
    door.closing.step()
    assert len(door.trail.entries) == 2


def test_when_the_image_cannot_be_stored_the_intent_fails_at_once(door: Door) -> None:
    door.images.is_full = True
    with pytest.raises(DependencyUnavailable):
        door.accept()
    assert door.trail.phases() == [audit_pb2.INTENT, audit_pb2.FAILED]
    assert door.ledger.pending_count() == 0
    door.images.is_full = False
    assert door.accept()
    assert door.closing.step() > 0


class _KnowsMalware:
    name = "of this test"

    def scan(self, pieces: Iterable[bytes]) -> str | None:
        return "Known" if b"malware" in b"".join(pieces) else None


def test_what_the_scanner_knows_is_refused_alone_and_its_intent_says_so(door: Door) -> None:
    """Whether it came with the command or lay in the store before, put there by a custody system."""
    lying = door.images.put(b"malware that lay there")
    scanned = ScannedImageStore(door.images, _KnowsMalware(), Metrics(CollectorRegistry()), SystemClock())
    door.acceptance._images = scanned
    by_name = EnrolReference(**{**_fields(), "subject_id": "S3"}, image=None, image_sha256=lying)
    commands = [command(b"malware"), command(b"image", subject_id="S2"), by_name]
    known, clean, lain = door.acceptance.accept_all(commands, CUSTODIAN, Source.KAFKA)
    for answer in (known, lain):
        assert isinstance(answer, ImageRefused)
        assert answer.code == "image_malware"
    assert not isinstance(clean, LikenessError)
    assert door.ledger.pending_count() == 1
    assert sorted(door.trail.phases()) == sorted([audit_pb2.INTENT] * 3 + [audit_pb2.REFUSED] * 2)
    assert not scanned.has(hashlib.sha256(b"malware").hexdigest())


def test_an_intent_under_way_is_not_closed_whatever_the_clock_says(door: Door) -> None:
    """While the image is being stored, the sweep runs with a clock that is far ahead."""
    put = door.images.put

    def put_and_sweep(content: bytes) -> str:
        door.closing.step()
        return put(content)

    door.images.put = put_and_sweep  # type: ignore[method-assign]
    door.accept()
    assert door.trail.phases() == [audit_pb2.INTENT]


def test_over_the_backlog_nothing_new_is_begun_but_the_known_is_answered(door: Door) -> None:
    known = door.accept()
    for what in door.waiting:
        door.waiting[what] = 10
        with pytest.raises(Overloaded):
            door.accept(b"another")
        assert door.accept() == known
        door.waiting[what] = 0
    assert door.trail.phases() == [audit_pb2.INTENT]


def test_before_embed_was_ever_seen_nothing_is_accepted_and_afterwards_it_may_go(door: Door) -> None:
    door.embed.is_there = False
    with pytest.raises(DependencyUnavailable):
        door.accept()
    door.embed.is_there = True
    first = door.accept()
    door.embed.is_there = False
    assert door.accept(b"another") != first


def test_of_a_batch_each_gets_its_own_answer(door: Door) -> None:
    commands = [
        command(b"one"),
        command(b"", subject_id="S2"),
        command(b"one"),
        command(b"two", watchlist_id="nowhere"),
        command(b"three"),
    ]
    answers = door.acceptance.accept_all(commands, CUSTODIAN, Source.CLI)
    codes = [answer.code if isinstance(answer, LikenessError) else answer.is_new for answer in answers]
    assert codes == [True, "image_empty", False, "unknown_watchlist", True]
    # The second of a pair in one batch has begun as well, so it has an end as well.
    assert sorted(door.trail.phases()) == [audit_pb2.INTENT] * 3 + [audit_pb2.REFUSED]
    assert door.closing.step() > 0


def test_an_image_of_the_store_has_to_be_there(door: Door) -> None:
    fields = ("custody", "northshire", "S1", "pace_1984_s64a", "2026-01-02")
    with pytest.raises(InvalidRequest):
        door.acceptance.accept(EnrolReference(*fields, image_sha256="0" * 64), CUSTODIAN, Source.KAFKA)
    stored = door.images.put(b"stored before")
    answer = door.acceptance.accept(EnrolReference(*fields, image_sha256=stored), CUSTODIAN, Source.KAFKA)
    assert answer.is_new


class Galleries:
    """Counts what is taken out."""

    def __init__(self) -> None:
        self.withdrawn: list[str] = []

    def withdraw(self, reference_ids: Sequence[str], versions: Sequence[int]) -> None:
        self.withdrawn += reference_ids


@dataclass
class Eraser:
    """The use case of erasing on a door's own ledger, as far as the quarantine."""

    door: Door
    gallery: Galleries = field(default_factory=Galleries)

    def __post_init__(self) -> None:
        engine, committer = self.door.ledger._engine, self.door.ledger._committer
        nothing: Any = None
        self.register, self.erasures = SqlErasureRegister(engine), SqlErasures(engine, committer)
        self.door.acceptance._barring = BarErased(self.register, self.erasures)
        writer: Any = self.gallery
        stores = ErasureStores(
            self.erasures, self.register, writer, nothing, nothing, nothing, nothing, topics=(), about=nothing
        )
        log: Any = ErasureLog()
        self.erasing = EraseSubject(stores, log, nothing, nothing, SystemClock())

    def ask(self) -> Erasure:
        return self.erasing.request(EraseCommand("S1", "acquitted", "request 1", 30), CUSTODIAN)

    def now(self, erasure: Erasure) -> Erasure:
        found = self.erasures.find(erasure.erasure_id)
        assert found is not None
        return found


class ErasureLog:
    """Takes every entry."""

    def record_intent(self, erasure: Erasure) -> None: ...

    def record_outcome(self, erasure: Erasure, phase: int, details: Mapping[str, str]) -> None: ...


@pytest.fixture
def eraser(door: Door) -> Eraser:
    return Eraser(door)


def refusal(door: Door, image: bytes, **changes: Any) -> str:
    with pytest.raises(Conflict) as caught:
        door.accept(image, **changes)
    return caught.value.code


def test_while_a_subject_is_being_erased_nothing_from_before_comes_to_it(door: Door, eraser: Eraser) -> None:
    door.accept(b"first")
    erasure = eraser.ask()
    while eraser.erasing.step():
        pass
    entries = len(door.trail.entries)
    assert refusal(door, b"late") == "awaiting_erasure"
    assert refusal(door, b"late", occurred_at_ms=erasure.requested_at_ms) == "awaiting_erasure"
    assert refusal(door, b"late", captured_on=today(), occurred_at_ms=0) == "awaiting_erasure"
    assert len(door.trail.entries) == entries, "nothing was begun"
    door.accept(b"another arrest", captured_on=today())
    door.accept(b"and as the feed says it", occurred_at_ms=erasure.requested_at_ms + 1)
    door.accept(b"late", subject_id="S2")
    assert eraser.erasing.step() == 0
    assert eraser.now(erasure).enrolment_ids == erasure.enrolment_ids
    eraser.erasing.lift(erasure)
    door.accept(b"late")


def test_after_a_subject_was_erased_nothing_from_before_comes_to_it(door: Door, eraser: Eraser) -> None:
    asked_ms = int(SystemClock().now().timestamp() * 1000)
    eraser.register.add([Tombstone("northshire", "S1", "", "e-1", asked_ms)])
    assert refusal(door, b"late") == "erased"
    assert refusal(door, b"late", captured_on=today(), occurred_at_ms=asked_ms) == "erased"
    door.accept(b"another arrest", captured_on=today())


def test_an_upload_that_began_before_the_erasure_was_asked_for_is_refused(door: Door, eraser: Eraser) -> None:
    door.accept(b"first")
    record_all = door.trail.record_all

    def record_and_ask(entries: Sequence[audit_pb2.AuditEntry]) -> None:
        record_all(entries)
        door.trail.record_all = record_all  # type: ignore[method-assign]
        eraser.ask()

    door.trail.record_all = record_and_ask  # type: ignore[method-assign]
    assert refusal(door, b"late") == "awaiting_erasure"
    assert sorted(door.trail.phases()) == sorted([audit_pb2.INTENT, audit_pb2.INTENT, audit_pb2.REFUSED])
    assert door.closing.step() > 0
    assert len(door.trail.entries) == 3


def test_or_it_goes_along_with_the_erasure(door: Door, eraser: Eraser) -> None:
    door.accept(b"first")
    put, asked = door.images.put, []

    def put_and_ask(content: bytes) -> str:
        asked.append(eraser.ask())
        assert eraser.erasing.step() == 0, "it waits for the upload"
        return put(content)

    door.images.put = put_and_ask  # type: ignore[method-assign]
    late = door.accept(b"late", captured_on=today())
    [erasure] = asked
    assert late not in erasure.enrolment_ids
    while eraser.erasing.step():
        pass
    found, view = eraser.now(erasure), door.ledger.view(late)
    assert (found.state, found.done) == (ErasureState.QUARANTINED, {CAME_MEANWHILE: 1})
    assert sorted(found.enrolment_ids) == sorted([*erasure.enrolment_ids, late])
    assert view is not None
    assert (view.state, view.reason) == (EnrolmentState.QUARANTINED, AWAITING_ERASURE)
    assert view.reference_id in eraser.gallery.withdrawn
    assert eraser.erasing.lift(found) == 2


def test_the_intent_of_an_erasure_is_the_same_entry_when_more_came_along() -> None:
    told: list[Mapping[str, str]] = []

    class Recorder:
        def record(self, *_: Any, details: Mapping[str, str], **__: Any) -> None:
            told.append(details)

    recorder, nothing = Recorder(), None
    proof = AuditedErasure(recorder, nothing)  # type: ignore[arg-type]
    erasure = Erasure(new_id(), "northshire", "S1", True, ("a",), "reason", "authority", "c-1", 1, 0)
    proof.record_intent(erasure)
    proof.record_intent(replace(erasure, enrolment_ids=("a", "b"), done={CAME_MEANWHILE: 1, "images": 2}))
    assert told[0] == told[1]


def today() -> str:
    return SystemClock().now().date().isoformat()
