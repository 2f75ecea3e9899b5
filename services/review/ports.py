"""The ports of review: its own record, and what it needs of the other services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import IO, Any, Protocol

from services.review.model import Case, CaseState, Examination, Training
from services.rpc.v1 import audit_pb2, embed_pb2, picture_pb2, probes_pb2, reference_pb2, search_pb2
from services.shared.biometric import ImageAnalysis
from services.shared.tokens import Principal


@dataclass(frozen=True, slots=True)
class CaseFilter:
    """Which cases; always of one force. Empty `states` means any. The `limit` that are due first, or with `is_newest`
    those that are due last; the one due first always comes first."""

    force: str
    states: frozenset[CaseState] = frozenset()
    requested_by: str | None = None
    limit: int = 500
    is_newest: bool = False


@dataclass(frozen=True, slots=True)
class OpenAct:
    """An act whose audit intent was written and whose outcome is not known to be in the log yet.

    `outcome_entry_id` is the id of its one terminal entry, chosen beforehand, so that whoever writes it, and however
    often, the log keeps the first. `entry` is what that entry says if the service stops: all but its phase.
    """

    activity_id: str
    outcome_entry_id: str
    opened_at: datetime
    entry: bytes


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an open act's entry says from now on, in place of what it said before: with the outcome that it has."""

    activity_id: str
    before: bytes
    after: bytes


class ReviewStore(Protocol):
    """Cases, examinations, trainings. Every method is one transaction, durable when it returns. Safe for many threads.

    All raise DependencyUnavailable when the store cannot be used. Contract tests: tests/contract/test_review_store.py.
    """

    def add(
        self,
        case: Case,
        idempotency_key: str | None = None,
        fingerprint: str = "",
        settles: Settlement | None = None,
    ) -> Case | None:
        """Insert a new case. With a key that the same person used before for the same request: that case, and nothing
        is inserted. `settles` as in `save`. Raises Conflict `idempotency_key_reused` for another request."""
        ...

    def save(self, case: Case, *examinations: Examination, settles: Settlement | None = None) -> Case:
        """Store a changed case, and examinations of it, in one transaction.

        `settles` is the act that changes it: its outcome is stored in the same transaction. AuditUnavailable, and
        nothing is stored, where the act was given up meanwhile.

        `version` of each is the one that was read; it is raised by one. An examination of version 0 is new. Raises
        Conflict `changed_meanwhile` (context: `state`, `version`) when any of them is not what was read, when the case
        has an examination of that ordinal already, or when the examiner has one in this case already. Then nothing is
        stored.
        """
        ...

    def save_examination(self, examination: Examination, settles: Settlement | None = None) -> Examination:
        """Store a changed examination alone; `settles` as in `save`. Raises Conflict `changed_meanwhile`."""
        ...

    def find(self, request_id: str) -> Case | None:
        """The case as it stands, of any force: whoever asks checks who may see it."""
        ...

    def examinations(self, request_id: str) -> Sequence[Examination]:
        """By ordinal."""
        ...

    def list(self, wanted: CaseFilter) -> Sequence[Case]:
        """The most pressing first: by `due_at`."""
        ...

    def examinations_of_force(self, force: str) -> Sequence[Examination]:
        """Every examination of a force, oldest first: what supervisors' figures are made from."""
        ...

    def is_held_elsewhere(self, sha256: str, request_id: str) -> bool:
        """Whether another case, of any force, holds a picture of this digest too."""
        ...

    def next_number(self, force: str, year: int) -> int:
        """The next number of a force's cases in a year, from 1, never given twice."""
        ...

    def put_training(self, training: Training, settles: Settlement | None = None) -> None:
        """Record a training; an earlier one of the person stays on record and no longer counts. `settles` as in
        `save`."""
        ...

    def training(self, force: str, person_id: str) -> Training | None:
        """The newest record of a person; None when there is none."""
        ...

    def trainings(self, force: str) -> Sequence[Training]:
        """The newest training of each person of a force, by person."""
        ...

    def open_act(self, act: OpenAct) -> None:
        """Remember an act before its intent is written."""
        ...

    def close_act(self, activity_id: str) -> None: ...

    def settle_act(self, settlement: Settlement) -> bool:
        """Whether the act's entry was what the settlement found; only then it is changed."""
        ...

    def open_acts(self, before: datetime, limit: int) -> Sequence[OpenAct]:
        """Acts opened before a moment that nobody closed, oldest first."""
        ...


class FaceAnalyser(Protocol):
    """Embed, as review uses it; `services.rpc.clients.EmbedClient`."""

    def analyse(
        self, image: bytes, selection: embed_pb2.AnalyseRequest.Selection.ValueType, face_index: int = 0
    ) -> ImageAnalysis:
        """Decode untrusted bytes and find the selected faces. Raises ImageRefused, PayloadTooLarge, Overloaded,
        DependencyUnavailable."""
        ...


class PictureRenderer(Protocol):
    """Untrusted bytes in, a picture of the platform's own making out; `services.rpc.casework.PictureClient`."""

    def render(self, image: bytes, *, max_side: int, as_jpeg: bool = False) -> picture_pb2.RenderedPicture:
        """Upright PNG, or JPEG. The same bytes give the same answer. Raises ImageRefused, Overloaded,
        DependencyUnavailable."""
        ...


class Searcher(Protocol):
    """Search, as review uses it; `services.rpc.casework.IdentificationClient`."""

    def identify(self, bearer: str, request: search_pb2.IdentifyRequest) -> bytes:
        """The answer's JSON. The operator's own token travels along and search decides by it.

        Raises what search raises: Forbidden, InvalidRequest, ImageRefused, NoFaceFound, FaceChoiceNeeded,
        GalleryIncomplete, ...
        """
        ...

    def partners(self, bearer: str, watchlists: Sequence[str]) -> Sequence[search_pb2.PartnerOffer]:
        """Whom the person may have asked about these watchlists. Raises Forbidden, DependencyUnavailable."""
        ...


class ProbeCopies(Protocol):
    """What search sealed of the probes that it searched: `services.rpc.probes.ProbeClient`."""

    def erase(self, request: probes_pb2.EraseProbesRequest) -> Sequence[str]:
        """The SHA-256 of what was there and is gone. Raises DependencyUnavailable, AuditUnavailable: do it again."""
        ...


class FilmReader(Protocol):
    """Search, as review has films read by it; `adapters.http_films.HttpFilmReader`. The operator's own token decides.

    All raise what search answers with: FilmRefused, Forbidden, InvalidRequest, NotFound, Overloaded, ...,
    DependencyUnavailable.
    """

    def hand_in(self, bearer: str, form: Mapping[str, str | list[str]], film: IO[bytes], key: str) -> str:
        """Send a film with the fields of the searches that may come of it; search's id of it. The same `key` again, by
        the same person with the same film, is the same reading."""
        ...

    def see(self, bearer: str, reading_id: str, *, with_chips: bool) -> Mapping[str, Any]:
        """The document of `GET /v1/films/{film_id}`."""
        ...

    def still(self, bearer: str, reading_id: str, sha256: str) -> bytes:
        """A frame that a track names, as PNG."""
        ...


class AgreementRegister(Protocol):
    """The owners' agreements as they stand now, kept by search; `services.rpc.clients.AgreementClient`."""

    def find(self, watchlist_id: str, owner: str, on: date) -> str:
        """The reference of the agreement in force on a day; empty where there is none. Raises DependencyUnavailable."""
        ...


class ReferenceDirectory(Protocol):
    """The enrolment ledger, as review uses it; `services.rpc.casework.ReferenceClient`. The person's token decides."""

    def references_of(
        self, bearer: str, watchlist: str, owner: str, subject_id: str
    ) -> Sequence[reference_pb2.EnrolledReference]:
        """Every enrolled reference of a subject in one watchlist, newest capture first. Raises NotFound."""
        ...

    def image(self, bearer: str, watchlist: str, owner: str, subject_id: str, reference_id: str) -> bytes:
        """The enrolled image as received: untrusted. Raises NotFound."""
        ...


class AuditTrail(Protocol):
    """The audit log, as review uses it; `services.rpc.auditing.AuditRecorder`."""

    def record(
        self,
        operation: audit_pb2.Operation.ValueType,
        phase: audit_pb2.Phase.ValueType,
        activity: str,
        activity_id: str,
        principal: Principal,
        *,
        purpose: str = "",
        case_reference: str = "",
        objects: Sequence[str] = (),
        recipients: Sequence[str] = (),
        details: Mapping[str, str] | None = None,
        entry_id: str | None = None,
    ) -> audit_pb2.AppendResponse:
        """Durable when it returns; the same `entry_id` is recorded once. Raises AuditUnavailable."""
        ...


class DocumentSetter(Protocol):
    """Sets a document; `documents.typesetting.Typesetter`."""

    def result(self, facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> bytes:
        """The released result as PDF (A4, tagged)."""
        ...

    def disclosure(self, facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> bytes:
        """The full pack with the candidates judged negative."""
        ...
