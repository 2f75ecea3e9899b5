"""Images that nothing names go; what an upload needs stays, whichever of the two comes first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event

import pytest
from prometheus_client import CollectorRegistry

from services.ingest.adapters.erasure_register import SqlErasureRegister
from services.ingest.adapters.image_holds import SqlImageHolds
from services.ingest.adapters.sql_clock import SqlClockMarks
from services.ingest.life.clock_guard import ClockGuard
from services.ingest.life.erasure import Tombstone
from services.ingest.life.sweeping import SweepImages, SweepRules
from services.ingest.ports import OpenIntent
from services.rpc.auditing import platform_principal
from services.rpc.open_acts import OpenAct
from services.rpc.v1 import audit_pb2
from services.shared.clock import SystemClock
from services.shared.errors import AuditUnavailable, DependencyUnavailable
from services.shared.ids import new_id
from services.shared.ports.image_store import StoredImage
from services.shared.telemetry import Metrics
from tests.unit.ingest.test_acceptance import CUSTODIAN, Door, Images, door

__all__ = ["door"]
GRACE = timedelta(days=14)
SWEEPER = platform_principal("ingest")


class Acts:
    """Open acts in memory; the log is away when told."""

    def __init__(self) -> None:
        self.is_down = False
        self.said: list[tuple[str, tuple[str, ...], dict[str, str]]] = []

    @contextmanager
    def under_way(self, act: OpenAct) -> Iterator[None]:
        if self.is_down:
            raise AuditUnavailable("down")
        self.said.append(("intent", tuple(act.objects), dict(act.details)))
        yield

    def end(self, act: OpenAct, phase: audit_pb2.Phase.ValueType, details: dict[str, str]) -> None:
        self.said.append((audit_pb2.Phase.Name(phase), tuple(act.objects), details))


@dataclass
class Letters:
    named: set[str] = field(default_factory=set)

    def images(self) -> frozenset[str]:
        return frozenset(self.named)


class Shiftable(SystemClock):
    """The wall clock, set when told."""

    shift = timedelta()

    def now(self) -> datetime:
        return super().now() + self.shift


@dataclass
class Yard:
    """The door that uploads come through, and what sweeps behind it."""

    door: Door
    sweep: SweepImages
    images: Images
    holds: SqlImageHolds
    acts: Acts
    letters: Letters
    register: SqlErasureRegister
    clock: Shiftable
    metrics: Metrics

    def orphan(self, content: bytes, age: timedelta = GRACE * 2) -> str:
        """What an upload leaves that is killed before its enrolment is accepted."""
        sha256 = self.images.put(content)
        self.age(sha256, age)
        return sha256

    def age(self, sha256: str, age: timedelta = GRACE * 2) -> None:
        at_s = (datetime.now(UTC) - age).timestamp()
        [file] = self.images._path.rglob(sha256)
        os.utime(file, (at_s, at_s))


@pytest.fixture
def yard(door: Door) -> Yard:
    return yard_of(door)


def yard_of(door: Door, limit: int = 10) -> Yard:
    engine, committer = door.ledger._engine, door.ledger._committer
    holds, clock, acts, letters = SqlImageHolds(engine, committer, "one"), Shiftable(), Acts(), Letters()
    register, metrics = SqlErasureRegister(engine), Metrics(CollectorRegistry())
    door.acceptance._holds = holds
    sweep = SweepImages(
        images=door.images,
        holds=holds,
        taken_back=register,
        letters=letters,
        guard=ClockGuard(clock, SqlClockMarks(engine, committer)),
        acts=acts,  # type: ignore[arg-type]
        metrics=metrics,
        clock=clock,
        rules=SweepRules(GRACE, limit),
    )
    return Yard(door, sweep, door.images, holds, acts, letters, register, clock, metrics)


def test_what_nothing_names_goes_and_the_log_says_so_before_and_after(yard: Yard) -> None:
    orphan = yard.orphan(b"orphan")
    found = yard.sweep.run(SWEEPER)
    assert (found.orphans.ids, found.removed, found.held_back) == ([orphan], 1, 0)
    assert not yard.images.has(orphan)
    assert [(phase, objects) for phase, objects, _ in yard.acts.said] == [
        ("intent", (f"image:{orphan}",)),
        ("DONE", (f"image:{orphan}",)),
    ]
    assert yard.metrics.ingest_swept_images_total._value.get() == 1
    assert yard.sweep.run(SWEEPER).images == 0


def test_what_anything_names_stays(yard: Yard) -> None:
    yard.door.accept(b"enrolled")
    enrolment_id = yard.door.accept(b"withdrawn", subject_id="S2")
    yard.door.ledger.withdraw(enrolment_id, "c-1", "taken back", 1)
    kept = [yard.images.put(each) for each in (b"enrolled", b"withdrawn")]
    kept += [yard.orphan(b"taken back before it was enrolled"), yard.orphan(b"named by a dead letter")]
    yard.register.add([Tombstone("northshire", "S3", kept[2], new_id(), 1, is_erased=False)])
    yard.letters.named.add(kept[3])
    kept.append(yard.orphan(b"being uploaded"))
    intent = OpenIntent(new_id(), CUSTODIAN, (f"image:{kept[4]}",), {})
    yard.door.ledger.remember_intents([intent], 1)
    for each in kept:
        yard.age(each)
    young = yard.orphan(b"stored yesterday", timedelta(days=1))
    found = yard.sweep.run(SWEEPER)
    assert (found.images, found.removed, found.young) == (6, 0, 1)
    assert all(yard.images.has(each) for each in [*kept, young])


def test_what_was_erased_and_lies_there_again_is_swept(yard: Yard) -> None:
    erased = yard.orphan(b"erased")
    yard.register.add([Tombstone("northshire", "S3", erased, new_id(), 1)])
    assert yard.sweep.run(SWEEPER).removed == 1
    assert not yard.images.has(erased)


def test_more_than_cut_off_uploads_leave_are_left_to_a_person(door: Door) -> None:
    yard = yard_of(door, limit=2)
    orphans = [yard.orphan(b"%d" % number) for number in range(3)]
    found = yard.sweep.run(SWEEPER)
    assert (found.orphans.count, found.removed, found.held_back) == (3, 0, 3)
    assert yard.metrics.ingest_orphan_images.labels("held_back")._value.get() == 3
    assert all(yard.images.has(each) for each in orphans)
    assert yard.sweep.run(SWEEPER, is_confirmed=True).removed == 3


def test_f17_a_clock_that_was_set_sweeps_nothing(yard: Yard) -> None:
    fresh = yard.images.put(b"stored just now")
    assert yard.sweep.run(SWEEPER).young == 1
    yard.clock.shift = timedelta(days=30)
    found = yard.sweep.run(SWEEPER, is_confirmed=True)
    assert (found.removed, found.held_back) == (0, 1)
    assert yard.images.has(fresh)


def test_while_the_audit_log_is_away_nothing_is_removed(yard: Yard) -> None:
    orphan = yard.orphan(b"orphan")
    yard.acts.is_down = True
    with pytest.raises(AuditUnavailable):
        yard.sweep.run(SWEEPER)
    assert yard.images.has(orphan)
    yard.acts.is_down = False
    assert yard.sweep.run(SWEEPER).removed == 1


def test_an_upload_that_has_begun_keeps_the_image_that_it_found(yard: Yard) -> None:
    """The sweep has listed the orphan when the upload of the same bytes writes its intent and finds them there."""
    orphan = yard.orphan(b"the same bytes")
    hold = yard.holds.hold
    accepted: list[str] = []

    def accept_first(holder: str, sha256s: list[str], now_ms: int) -> frozenset[str]:
        accepted.append(yard.door.accept(b"the same bytes"))
        return hold(holder, sha256s, now_ms)

    yard.holds.hold = accept_first  # type: ignore[method-assign, assignment]
    found = yard.sweep.run(SWEEPER)
    assert (found.removed, found.spared) == (0, 1)
    assert accepted
    assert yard.images.has(orphan)


def test_an_upload_that_comes_while_its_image_is_removed_waits_and_stores_it_anew(yard: Yard) -> None:
    """The upload comes in the middle of the removal: after the last look, before the bytes go."""
    orphan = yard.orphan(b"the same bytes")
    discard, held = yard.images.discard, yard.holds.held
    waits = Event()

    def seen(sha256s: list[str]) -> frozenset[str]:
        found = held(sha256s)
        if found:
            waits.set()
        return found

    yard.holds.held = seen  # type: ignore[method-assign, assignment]
    with ThreadPoolExecutor(1) as pool:
        uploads = []

        def upload_first(image: StoredImage) -> bool:
            uploads.append(pool.submit(yard.door.accept, b"the same bytes"))
            assert waits.wait(60), "the upload never came upon the hold"
            return discard(image)

        yard.images.discard = upload_first  # type: ignore[method-assign]
        assert yard.sweep.run(SWEEPER).removed == 1
        enrolment_id = uploads[0].result(timeout=60)
    assert yard.door.ledger.view(enrolment_id) is not None
    assert yard.images.get(orphan) == b"the same bytes"
    assert not held([orphan])


def test_uploads_and_sweeps_of_the_same_bytes_at_once_lose_nothing(yard: Yard) -> None:
    """Each round leaves orphans, and enrols and sweeps them at the same moment: what is accepted has its image."""
    accepted: dict[str, bytes] = {}
    with ThreadPoolExecutor(5) as pool:
        for number in range(6):
            contents = [b"round %d image %d" % (number, each) for each in range(4)]
            for content in contents:
                yard.orphan(content)
            uploads = [
                pool.submit(yard.door.accept, content, subject_id=f"S{number}-{place}")
                for place, content in enumerate(contents)
            ]
            yard.sweep.run(SWEEPER)
            accepted |= {upload.result(timeout=60): content for upload, content in zip(uploads, contents, strict=True)}
            yard.door.waiting["pending"] = 0
    for enrolment_id, content in accepted.items():
        view = yard.door.ledger.view(enrolment_id)
        assert view is not None
        assert yard.images.get(view.image_sha256) == content


def test_an_upload_does_not_wait_for_ever_and_says_when_to_come_again(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ingest.enrolling.acceptance._HELD_WAIT_S", 0.2)
    orphan = yard.orphan(b"held")
    yard.holds.hold("a removal that hangs", [orphan], 1)
    with pytest.raises(DependencyUnavailable, match="being removed"):
        yard.door.accept(b"held")
    assert yard.door.trail.phases()[-1] == audit_pb2.FAILED
    yard.holds.release("a removal that hangs")
    assert yard.door.accept(b"held")


def test_what_a_killed_sweep_held_is_let_go_at_the_start_or_after_a_while(yard: Yard) -> None:
    yard.holds.hold("killed", ["0" * 64], 10)
    yard.holds.release_left_behind(11, is_start=False)
    assert yard.holds.held(["0" * 64])
    yard.holds.release_left_behind(11, is_start=True)
    assert not yard.holds.held(["0" * 64])
    other = SqlImageHolds(yard.door.ledger._engine, yard.door.ledger._committer, "two")
    other.hold("killed elsewhere", ["1" * 64], 10)
    yard.holds.release_left_behind(11, is_start=True)
    assert yard.holds.held(["1" * 64])
    yard.holds.release_left_behind(700_000, is_start=False)
    assert not yard.holds.held(["1" * 64])


def test_two_sweeps_share_nothing(yard: Yard) -> None:
    orphan = yard.orphan(b"orphan")
    assert yard.holds.hold("another sweep", [orphan], yard.sweep._now_ms()) == {orphan}
    assert yard.sweep.run(SWEEPER).spared == 1
    assert yard.images.has(orphan)
