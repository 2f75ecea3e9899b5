"""The use cases of exports: requested by one person, approved by another, given under the eyes of the audit log."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from services.ingest.bulk.type10 import FaceRecord, write_transaction
from services.ingest.enrolling.checks import MAX_TEXT
from services.ingest.exports.model import MAX_SUBJECTS, Export, ExportedReference, ExportState, ExportStore
from services.ingest.exports.rules import ExportRules
from services.ingest.exports.sizes import picture_size
from services.rpc.auditing import AuditRecorder
from services.rpc.open_acts import OpenAct, OpenActs
from services.rpc.v1 import audit_pb2
from services.shared.clock import Clock
from services.shared.errors import (
    Conflict,
    Forbidden,
    IntegrityError,
    InvalidRequest,
    NotFound,
)
from services.shared.ids import is_id, new_id
from services.shared.people import is_same_person
from services.shared.ports.image_store import ImageStore
from services.shared.tokens import Principal

EXPORT = "type10_export"
REQUEST = "type10_export_request"
APPROVAL = "type10_export_approval"
_MAX_BYTES = 512 * 1024 * 1024
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class ExportCommand:
    """Which subjects of a watchlist, to whom, for which purpose, why."""

    watchlist_id: str
    subject_ids: tuple[str, ...]
    recipient: str
    purpose: str
    reason: str


@dataclass(frozen=True, slots=True)
class Given:
    """A transaction a subject: one as it is, several in a zip file. `left_out`: references whose image is neither JPEG
    nor PNG, which a Type-10 record does not take as it is."""

    content: bytes
    name: str
    records: int
    left_out: tuple[str, ...]


class ExportReferences:
    """Gives an owner's enrolled references to another body, as they were received, and keeps who got what."""

    def __init__(  # noqa: PLR0917 - what the composition root has made
        self,
        store: ExportStore,
        images: ImageStore,
        rules: ExportRules,
        recorder: AuditRecorder,
        acts: OpenActs,
        clock: Clock,
    ) -> None:
        self._store = store
        self._images = images
        self._rules = rules
        self._recorder = recorder
        self._acts = acts
        self._clock = clock

    def request(self, command: ExportCommand, principal: Principal) -> Export:
        """Nothing is given yet. Raises InvalidRequest, Forbidden, NotFound (a subject has nothing enrolled there),
        AuditUnavailable, DependencyUnavailable."""
        _check(command)
        if command.watchlist_id not in principal.watchlists:
            raise Forbidden(
                "Your token does not permit this watchlist.", advice="Ask an administrator for one that names it."
            )
        export = Export(
            export_id=new_id(),
            owner=principal.force,
            watchlist_id=command.watchlist_id,
            subject_ids=tuple(sorted(set(command.subject_ids))),
            recipient=command.recipient,
            purpose=command.purpose,
            reason=command.reason,
            requested_by=principal.person_id,
            requested_at_ms=self._now_ms(),
        )
        found = {each.subject_id for each in self._store.references(export)}
        missing = [subject_id for subject_id in export.subject_ids if subject_id not in found]
        if missing:
            raise NotFound(f"Nothing is enrolled there of {len(missing)} of them.", advice="Check the subject ids.")
        self._rules.check(export)
        self._record(audit_pb2.DONE, REQUEST, export, principal, {"reason": export.reason})
        self._store.add(export)
        return export

    def approve(self, export_id: str, principal: Principal) -> Export:
        """Raises NotFound, Forbidden (by who requested it), Conflict (approved already), AuditUnavailable."""
        export = self.find(export_id, principal)
        if is_same_person(principal.person_id, export.requested_by):
            self._record(audit_pb2.REFUSED, APPROVAL, export, principal, {"reason": "own_request"})
            raise Forbidden(
                "Nobody approves their own request.", advice="Ask another custodian.", code="second_person_needed"
            )
        self._rules.check(export)
        self._record(audit_pb2.DONE, APPROVAL, export, principal, {})
        if not self._store.approve(export_id, principal.person_id, self._now_ms()):
            raise Conflict("It is approved already.", advice="Fetch it.", code="export_approved")
        return self.find(export_id, principal)

    def give(self, export_id: str, principal: Principal) -> Given:
        """Raises NotFound, Conflict (not approved), Forbidden (an agreement has ended), IntegrityError,
        AuditUnavailable."""
        export = self.find(export_id, principal)
        if export.state is not ExportState.APPROVED:
            raise Conflict("It is not approved yet.", advice="Let another custodian approve it.", code="not_approved")
        agreements = self._rules.check(export)
        act = OpenAct(
            activity=EXPORT,
            operation=audit_pb2.DISCLOSURE,
            principal=principal,
            objects=_objects(export),
            details=agreements,
            purpose=export.purpose,
            recipients=[f"force:{export.recipient}"],
        )
        with self._acts.under_way(act):
            references = self._store.references(export)
            given = self._given(export, references)
            # Half a gigabyte takes its time: what was withdrawn meanwhile, by its owner or by an agreement's end, is
            # not given.
            agreements = self._rules.check(export)
            if not {each.reference_id for each in references} <= self._standing(export):
                raise Conflict(
                    "References of it were withdrawn while it was put together.",
                    advice="Fetch it again.",
                    code="changed_meanwhile",
                )
            sha256 = hashlib.sha256(given.content).hexdigest()
            details = {**agreements, "sha256": sha256, "records": str(given.records)}
            details["left_out"] = str(len(given.left_out))
            told = [each.reference_id for each in references if each.reference_id not in given.left_out]
            self._acts.end(act, audit_pb2.DONE, details, [f"reference:{reference_id}" for reference_id in told])
        self._store.note_given(export_id, sha256, self._now_ms())
        return given

    def find(self, export_id: str, principal: Principal) -> Export:
        """Raises NotFound for what is not there and for what is not the caller's alike."""
        export = self._store.find(export_id) if is_id(export_id) else None
        if export is None or export.owner != principal.force or export.watchlist_id not in principal.watchlists:
            raise NotFound("No such export.", advice="Check the export_id and that your token permits its watchlist.")
        return export

    def _standing(self, export: Export) -> set[str]:
        return {each.reference_id for each in self._store.references(export)}

    def _given(self, export: Export, references: Sequence[ExportedReference]) -> Given:
        usable: list[tuple[ExportedReference, bytes, tuple[int, int]]] = []
        left_out: list[str] = []
        for reference in references:
            content = self._image(reference)
            size = picture_size(content)
            if size is None:
                left_out.append(reference.reference_id)
            else:
                usable.append((reference, content, size))
            if sum(len(held) for _, held, _ in usable) > _MAX_BYTES:
                raise InvalidRequest("The images are over 512 MiB together.", advice="Export fewer subjects at once.")
        if not usable:
            raise NotFound("Nothing of it is enrolled as JPEG or PNG now.", advice="Ask for other subjects.")
        by_subject = groupby(usable, key=lambda each: each[0].subject_id)
        transactions = [
            self._transaction(export, list(group), number) for number, (_, group) in enumerate(by_subject, 1)
        ]
        content, name = _packed(transactions)
        return Given(content, name, len(usable), tuple(left_out))

    def _transaction(
        self, export: Export, group: Sequence[tuple[ExportedReference, bytes, tuple[int, int]]], number: int
    ) -> bytes:
        return write_transaction(
            [_face(export, reference, content, place) for place, (reference, content, _) in enumerate(group, 1)],
            agency=export.owner,
            recipient=export.recipient,
            number=f"{export.export_id[-12:]}-{number:03d}",
            day=self._clock.now().date().isoformat(),
            sizes=[size for _, _, size in group],
        )

    def _image(self, reference: ExportedReference) -> bytes:
        content = self._images.get(reference.image_sha256)
        if hashlib.sha256(content).hexdigest() != reference.image_sha256:
            raise IntegrityError(
                f"The image of reference {reference.reference_id} is damaged.", advice="Restore it from the backup."
            )
        return content

    def _record(
        self,
        phase: audit_pb2.Phase.ValueType,
        activity: str,
        export: Export,
        principal: Principal,
        details: Mapping[str, str],
    ) -> None:
        self._recorder.record(
            audit_pb2.DISCLOSURE,
            phase,
            activity,
            export.export_id,
            principal,
            purpose=export.purpose,
            objects=_objects(export),
            details=details,
        )

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _objects(export: Export) -> list[str]:
    subjects = [f"subject:{export.owner}/{subject_id}" for subject_id in export.subject_ids]
    return [f"export:{export.export_id}", f"watchlist:{export.watchlist_id}", *subjects]


def _face(export: Export, reference: ExportedReference, content: bytes, place: int) -> FaceRecord:
    """Type-2 says whose it is: field 10 the subject's identifier, 11 the custody reference, as our reader has them."""
    descriptive = {10: reference.subject_id, 11: reference.custody_reference}
    return FaceRecord(
        f"{place:02d}", content, reference.captured_on, reference.pose, export.owner, descriptive=descriptive
    )


def _packed(transactions: Sequence[bytes]) -> tuple[bytes, str]:
    if len(transactions) == 1:
        return transactions[0], "export.an2"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for number, content in enumerate(transactions, 1):
            archive.writestr(zipfile.ZipInfo(f"{number:04d}.an2", _EPOCH), content)
    return stream.getvalue(), "export.zip"


def _check(command: ExportCommand) -> None:
    if not 0 < len(command.subject_ids) <= MAX_SUBJECTS:
        raise InvalidRequest(
            f"Not 1 to {MAX_SUBJECTS} subjects.", advice="Request several exports, with a reason each."
        )
    named = {"recipient": command.recipient, "purpose": command.purpose, "reason": command.reason}
    for name, text in [*named.items(), *(("subject_ids", subject_id) for subject_id in command.subject_ids)]:
        if not text.strip() or len(text) > MAX_TEXT or not text.isprintable():
            raise InvalidRequest(
                f"`{name}` is empty, longer than {MAX_TEXT} characters or not printable.",
                advice="Say who gets what and why, each in a line.",
            )
