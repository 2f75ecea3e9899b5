"""Exports: four eyes, agreements, the log, and a file that other software reads."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import nistitl  # type: ignore[import-untyped]
import pytest
from PIL import Image

from services.ingest.bulk.type10 import faces_of, read_transaction
from services.ingest.exports.exporting import ExportCommand, ExportReferences
from services.ingest.exports.model import Export, ExportedReference, ExportState
from services.ingest.exports.rules import ExportRules
from services.ingest.exports.sizes import picture_size
from services.rpc.auditing import AuditRecorder
from services.rpc.open_acts import OpenActs
from services.rpc.v1 import audit_pb2
from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.clock import SystemClock
from services.shared.errors import AuditUnavailable, Conflict, Forbidden, InvalidRequest, NotFound
from services.shared.tokens import Principal
from services.shared.watchlists import WatchlistFile
from tests.support.open_acts import MemoryActs
from tests.unit.ingest.test_flags import FakeAudit

ASKS = Principal("c-1", "northshire", frozenset({"custodian"}), frozenset({"custody", "op_liberal"}))
APPROVES = Principal("c-2", "northshire", frozenset({"custodian"}), frozenset({"custody", "op_liberal"}))
COMMAND = ExportCommand("custody", ("S1",), "national-database", "prevention_and_detection", "monthly exchange")


def picture(shade: int, form: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (48, 64), (shade, 90, 90)).save(stream, form)
    return stream.getvalue()


@dataclass
class Store:
    """In memory."""

    held: list[ExportedReference] = field(default_factory=list)
    exports: dict[str, Export] = field(default_factory=dict)

    def add(self, export: Export) -> None:
        self.exports[export.export_id] = export

    def find(self, export_id: str) -> Export | None:
        return self.exports.get(export_id)

    def list(self, owner: str, watchlist_ids: frozenset[str], limit: int) -> Sequence[Export]:
        return [each for each in self.exports.values() if each.owner == owner]

    def approve(self, export_id: str, person_id: str, now_ms: int) -> bool:
        export = self.exports[export_id]
        if export.state is ExportState.APPROVED:
            return False
        approved = replace(export, state=ExportState.APPROVED, approved_by=person_id, approved_at_ms=now_ms)
        self.exports[export_id] = approved
        return True

    def note_given(self, export_id: str, sha256: str, now_ms: int) -> None:
        self.exports[export_id] = replace(self.exports[export_id], sha256=sha256, given_at_ms=now_ms)

    def references(self, export: Export) -> Sequence[ExportedReference]:
        return [each for each in self.held if each.subject_id in export.subject_ids]


@dataclass
class Agreements:
    """In force by party."""

    parties: dict[str, str] = field(default_factory=dict)

    def find(self, watchlist_id: str, owner: str, on: date) -> str:
        return self.parties.get(owner, "")


@dataclass
class Desk:
    exporting: ExportReferences
    store: Store
    images: FolderImageStore
    agreements: Agreements
    audit: FakeAudit

    def hold(self, subject_id: str, content: bytes, pose: str = "frontal") -> ExportedReference:
        sha256 = hashlib.sha256(content).hexdigest()
        self.images.put(content)
        held = ExportedReference(f"r-{len(self.store.held)}", subject_id, sha256, "2026-02-03", pose, "C/7")
        self.store.held.append(held)
        return held

    def approved(self, command: ExportCommand = COMMAND) -> Export:
        export = self.exporting.request(command, ASKS)
        return self.exporting.approve(export.export_id, APPROVES)


def open_desk(folder: Path) -> Desk:
    """Exports out of memory, with images in a folder."""
    store, images, agreements, audit = Store(), FolderImageStore(folder), Agreements(), FakeAudit()
    clock = SystemClock()
    rules = ExportRules(WatchlistFile(None), agreements, {"custody": ("national-database",)}, clock)
    recorder = AuditRecorder(audit, "ingest", clock)
    acts = OpenActs(MemoryActs(), recorder, clock, 30.0)
    return Desk(ExportReferences(store, images, rules, recorder, acts, clock), store, images, agreements, audit)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return open_desk(tmp_path)


def test_another_library_reads_what_is_given_and_so_do_we(desk: Desk) -> None:
    front, side = picture(1), picture(2, "PNG")
    desk.hold("S1", front)
    desk.hold("S1", side, "left_profile")
    given = desk.exporting.give(desk.approved().export_id, ASKS)
    assert (given.name, given.records) == ("export.an2", 2)
    message = nistitl.Message()
    message.parse(given.content)
    tens = list(message.iter(10))
    assert [bytes(ten.DATA) for ten in tens] == [front, side]
    assert [(ten.POS, ten.PHD, ten.CGA, ten.HLL, ten.VLL) for ten in tens] == [
        ("F", "20260203", "JPEGB", "48", "64"),
        ("L", "20260203", "PNG", "48", "64"),
    ]
    assert (message[0].ORI, message[0].DAI) == ("northshire", "national-database")
    faces = faces_of(read_transaction(given.content))
    assert [(face.pose, face.captured_on, face.descriptive[10], face.descriptive[11]) for face in faces] == [
        ("frontal", "2026-02-03", "S1", "C/7"),
        ("left_profile", "2026-02-03", "S1", "C/7"),
    ]


def test_an_unknown_pose_is_not_said_to_be_frontal(desk: Desk) -> None:
    desk.hold("S1", picture(1), "")
    given = desk.exporting.give(desk.approved().export_id, ASKS)
    assert faces_of(read_transaction(given.content))[0].pose == ""


def test_several_subjects_are_a_file_each(desk: Desk) -> None:
    for number in (1, 2):
        desk.hold(f"S{number}", picture(number))
    given = desk.exporting.give(desk.approved(replace(COMMAND, subject_ids=("S1", "S2"))).export_id, ASKS)
    with zipfile.ZipFile(io.BytesIO(given.content)) as archive:
        subjects = [
            faces_of(read_transaction(archive.read(name)))[0].descriptive[10] for name in sorted(archive.namelist())
        ]
    assert subjects == ["S1", "S2"]


def test_what_a_record_does_not_take_is_named(desk: Desk) -> None:
    desk.hold("S1", picture(1))
    other = desk.hold("S1", picture(2, "WEBP"))
    given = desk.exporting.give(desk.approved().export_id, ASKS)
    assert given.left_out == (other.reference_id,)


def test_nobody_approves_their_own_request_and_nothing_leaves_before(desk: Desk) -> None:
    desk.hold("S1", picture(1))
    export = desk.exporting.request(COMMAND, ASKS)
    with pytest.raises(Forbidden):
        desk.exporting.approve(export.export_id, ASKS)
    with pytest.raises(Conflict):
        desk.exporting.give(export.export_id, ASKS)


def test_each_giving_is_in_the_log_with_its_recipient_and_digest(desk: Desk) -> None:
    held = desk.hold("S1", picture(1))
    export = desk.approved()
    given = desk.exporting.give(export.export_id, ASKS)
    done = desk.audit.entries[-1]
    assert (done.operation, done.phase, list(done.recipients)) == (
        audit_pb2.DISCLOSURE,
        audit_pb2.DONE,
        ["force:national-database"],
    )
    assert done.details["sha256"] == hashlib.sha256(given.content).hexdigest()
    assert f"reference:{held.reference_id}" in done.objects
    desk.audit.is_down = True
    with pytest.raises(AuditUnavailable):
        desk.exporting.give(export.export_id, ASKS)


def test_only_recipients_that_are_named_or_the_owner(desk: Desk) -> None:
    desk.hold("S1", picture(1))
    with pytest.raises(Forbidden):
        desk.exporting.request(replace(COMMAND, recipient="somebody"), ASKS)
    desk.exporting.request(replace(COMMAND, recipient="northshire"), ASKS)


def test_an_agreement_that_ends_after_the_approval_ends_the_export(desk: Desk) -> None:
    desk.hold("S1", picture(1))
    command = replace(COMMAND, watchlist_id="op_liberal", recipient="eastmoor")
    desk.agreements.parties = {"northshire": "OPL-1"}
    with pytest.raises(Forbidden):
        desk.exporting.request(command, ASKS)
    desk.agreements.parties = {"northshire": "OPL-1", "eastmoor": "OPL-2"}
    export = desk.approved(command)
    desk.exporting.give(export.export_id, ASKS)
    del desk.agreements.parties["eastmoor"]
    with pytest.raises(Forbidden):
        desk.exporting.give(export.export_id, ASKS)


def test_what_it_refuses(desk: Desk) -> None:
    desk.hold("S1", picture(1))
    with pytest.raises(InvalidRequest):
        desk.exporting.request(replace(COMMAND, subject_ids=tuple(f"S{number}" for number in range(51))), ASKS)
    with pytest.raises(InvalidRequest):
        desk.exporting.request(replace(COMMAND, purpose="curiosity"), ASKS)
    with pytest.raises(NotFound):
        desk.exporting.request(replace(COMMAND, subject_ids=("S1", "S2")), ASKS)
    stranger = Principal("c-9", "eastmoor", frozenset({"custodian"}), frozenset({"custody"}))
    with pytest.raises(NotFound):
        desk.exporting.find(desk.exporting.request(COMMAND, ASKS).export_id, stranger)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_the_size_is_read_from_the_header(form: str) -> None:
    content = picture(1, form)
    assert picture_size(content) == (48, 64)
    assert all(picture_size(content[:length]) in (None, (48, 64)) for length in range(0, len(content), 3))


def test_another_format_has_no_size() -> None:
    assert picture_size(picture(1, "WEBP")) is None
    assert picture_size(b"") is None


@pytest.mark.parametrize("ends", ["the agreement", "the reference"])
def test_what_is_withdrawn_while_it_is_put_together_is_not_given(
    desk: Desk, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.agreements.parties = {"northshire": "OPL-N", "eastmoor": "OPL-E"}
    desk.hold("S1", picture(1))
    export = desk.approved(replace(COMMAND, watchlist_id="op_liberal", recipient="eastmoor"))
    get = desk.images.get

    def meanwhile(sha256: str) -> bytes:
        if ends == "the agreement":
            del desk.agreements.parties["eastmoor"]
        else:
            desk.store.held.clear()
        return get(sha256)

    monkeypatch.setattr(desk.images, "get", meanwhile)
    with pytest.raises(Forbidden if ends == "the agreement" else Conflict):
        desk.exporting.give(export.export_id, ASKS)
    assert desk.audit.entries[-1].phase == audit_pb2.REFUSED
