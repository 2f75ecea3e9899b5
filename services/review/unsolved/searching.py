"""A kept case searched again by itself: only against what is new, only as far as its keeper may today, and once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import orjson
import structlog

from services.review.casework.continuing import continuing_case
from services.review.casework.searching import merged
from services.review.casework.steps import Casebook
from services.review.casework.trail import About
from services.review.model import CandidateForJudgement, Case, ProbeImage, SearchRecord, SearchVariant
from services.review.ports import AuditTrail
from services.review.unsolved.ports import KeptCase, KeptLook, KeptSearcher, KeptState, KeptStore
from services.review.unsolved.settings import UnsolvedSettings
from services.rpc.v1 import audit_pb2, common_pb2, search_pb2, unsolved_pb2
from services.shared.errors import DependencyUnavailable, LikenessError, PlatformError
from services.shared.ids import new_id
from services.shared.ports.image_store import ImageStore
from services.shared.tokens import Principal

ACTIVITY = "search_kept_again"
# A list over a threshold that is set for few false alarms: of a list of fixed length somebody is always first.
_MODE = "identification"
_REASON = "Searched again against new enrolments, by the unsolved file."


@dataclass(frozen=True, slots=True)
class _Found:
    """What the probes of one case came to."""

    records: tuple[SearchRecord, ...]
    candidates: tuple[CandidateForJudgement, ...]

    def since_ms(self) -> int:
        """Where the next search begins: when the first of these began."""
        return min(searched_ms(record) for record in self.records)

    def snapshot(self) -> str:
        return min((snapshot_of(record) for record in self.records), default="")


class SearchKept:
    """Looks at the kept cases that are due, a bounded number at a time.

    Of one case, in this order: a search is begun under an id that is stored first; search decides and records it as
    every search; what came back is recorded; a case is opened for whoever is new; the watermark moves. A stop anywhere
    takes it up again under the same id: search gives the same answer, the log keeps one entry, one case is opened.
    """

    def __init__(
        self,
        *,
        settings: UnsolvedSettings,
        book: Casebook,
        kept: KeptStore,
        images: ImageStore,
        searcher: KeptSearcher,
        audit: AuditTrail,
    ) -> None:
        self._settings = settings
        self._book = book
        self._kept = kept
        self._images = images
        self._searcher = searcher
        self._audit = audit

    def turn(self) -> None:
        """Raises PlatformError: what is missing now is missing for the rest too, and the next turn takes it up."""
        now = self._book.clock.now()
        due = self._kept.due(
            now - timedelta(hours=self._settings.case_every_h),
            now - timedelta(hours=self._settings.denied_every_h),
            self._settings.per_turn,
            now=now,
        )
        for one in due:
            self.look(one)

    def look(self, one: KeptCase) -> None:
        """Search one case again where that may be."""
        case, now = one.case, self._book.clock.now()
        if case.unsolved is None or case.unsolved.expires_on <= now.date():
            return  # its end is another's to bring about
        before = one.look or first_look(case, now)
        if before.since_ms > _ms(now):
            # The clock was ahead then and was set back: since when to look is not known any more, who was found is.
            before = replace(before, since_ms=first_look(case, now).since_ms, snapshot="")
        if case.unsolved.mandate is None:
            self._end(case, before, KeptState.NO_MANDATE, "Kept before its keeper's rights were noted with it.")
            return
        # Looked at now, whatever comes of it: a case that always fails does not stand before all others for ever.
        begun = replace(before, pending=before.pending or new_id(), looked_at=now)
        if not self._kept.begin(case.request_id, one.look, begun):
            return  # another process has it
        try:
            self._search(case, begun)
        except LikenessError as error:
            if error.retriable and not error.caller_fault:
                raise
            if error.retriable or error.code == "search_running":
                structlog.get_logger().info("kept_search_deferred", request_id=case.request_id, code=error.code)
                return
            state = KeptState.DENIED if error.caller_fault else KeptState.FAILED
            self._end(case, begun, state, error.detail)

    def _search(self, case: Case, begun: KeptLook) -> None:
        found = self._ask(case, begun)
        if found is None:
            self._end(case, replace(begun, searched_at=self._book.clock.now()), KeptState.UNCHANGED, "")
            return
        self._record(case, begun, found)
        known = {_key(one) for each in (case, *self._kept.continuations(case)) for one in each.candidates}
        new = tuple(one for one in found.candidates if _key(one) not in known)
        if new:
            self._continue(case, begun, found.records, new)
        moved = replace(begun, since_ms=found.since_ms(), snapshot=found.snapshot(), searched_at=self._book.clock.now())
        self._end(case, moved, KeptState.SEARCHED, "")

    def _ask(self, case: Case, begun: KeptLook) -> _Found | None:
        """Every original that was searched, searched again; None where the gallery is what it was."""
        searched = {record.probe_id for record in case.searches}
        records: tuple[SearchRecord, ...] = ()
        candidates: tuple[CandidateForJudgement, ...] = ()
        for probe in (one for one in case.probes if one.probe_id in searched):
            content = self._searcher.search_again(_request(case, probe, begun, self._images, is_first=not records))
            if content is None:
                return None
            record, listed = self._read(case, probe, content)
            records = (*records, record)
            candidates = merged(candidates, listed, record)
        return _Found(records, candidates) if records else None

    def _read(self, case: Case, probe: ProbeImage, content: bytes) -> tuple[SearchRecord, Sequence[Mapping[str, Any]]]:
        document = orjson.loads(content)
        if document.get("status") != "done" or "candidates" not in document:
            raise DependencyUnavailable("search gave no list.", advice="Tell the operators.")
        listed = document.pop("candidates")
        record = SearchRecord(
            search_id=document["search_id"],
            probe_id=probe.probe_id,
            variant=SearchVariant.ORIGINAL,
            enhancement_id=None,
            image_sha256=probe.original.sha256,
            reason=_REASON,
            searched_by=_actor(case).person_id,
            searched_at=self._book.clock.now(),
            candidate_count=len(listed),
            answer_sha256=hashlib.sha256(content).hexdigest(),
            answer=document,
        )
        return record, listed

    def _record(self, case: Case, begun: KeptLook, found: _Found) -> None:
        """That it was searched, by which searches: the same words whether anybody was found or not."""
        about = About.case(case, *(f"search:{record.search_id}" for record in found.records))
        self._audit.record(
            audit_pb2.CONSULTATION,
            audit_pb2.DONE,
            ACTIVITY,
            begun.pending or "",
            _actor(case),
            purpose=about.purpose,
            case_reference=about.case_reference,
            objects=about.objects,
            details={"since_ms": str(begun.since_ms)},
            entry_id=begun.pending,
        )

    def _continue(
        self,
        case: Case,
        begun: KeptLook,
        records: tuple[SearchRecord, ...],
        new: tuple[CandidateForJudgement, ...],
    ) -> None:
        """A case of the same requester, for the case's own people alone until one of them takes it up."""
        now, kept = self._book.clock.now(), case.unsolved
        told = (case.requested_by, kept.kept_by if kept is not None else case.requested_by)
        opened = continuing_case(self._book, case, records, new, now, told=tuple(dict.fromkeys(told)))
        self._book.store.add(opened, f"unsolved:{begun.pending}", begun.pending or "")

    def _end(self, case: Case, look: KeptLook, state: KeptState, reason: str) -> None:
        ended = replace(look, state=state, reason=reason, looked_at=self._book.clock.now(), pending=None)
        self._kept.put(case.request_id, ended)


def searched_ms(record: SearchRecord) -> int:
    """When a search began, by search's own clock where its answer says so."""
    told = record.answer.get("searched_at")
    return _ms(datetime.fromisoformat(told) if isinstance(told, str) else record.searched_at)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def snapshot_of(record: SearchRecord) -> str:
    snapshot = record.answer.get("gallery_snapshot")
    return str(snapshot["snapshot_id"]) if isinstance(snapshot, Mapping) else ""


def first_look(case: Case, now: datetime) -> KeptLook:
    """Before the first look: what people have searched already is not new."""
    oldest = min(case.searches, key=searched_ms, default=None)
    if oldest is None:
        return KeptLook(0, "", KeptState.WAITING, "", now)
    return KeptLook(searched_ms(oldest), snapshot_of(oldest), KeptState.WAITING, "", now)


def _actor(case: Case) -> Principal:
    keeper = "" if case.unsolved is None else case.unsolved.kept_by
    return Principal(f"service:review/{keeper}", case.force, frozenset(), frozenset())


def _key(one: CandidateForJudgement) -> tuple[str, str, str]:
    return one.owner, one.subject_id, one.watchlist


def _request(
    case: Case, probe: ProbeImage, begun: KeptLook, images: ImageStore, *, is_first: bool
) -> unsolved_pb2.SearchAgainRequest:
    kept, request = case.unsolved, case.request
    if kept is None or kept.mandate is None:
        raise PlatformError("A case without a mandate is not searched.")
    mandate = kept.mandate
    return unsolved_pb2.SearchAgainRequest(
        search=search_pb2.IdentifyRequest(
            image=images.get(probe.original.sha256),
            case_reference=request.case_reference,
            purpose=request.purpose,
            offence=request.offence,
            source=request.source.value,
            nature=request.nature.value,
            case_type=request.case_type.value,
            watchlists=request.watchlists,
            mode=_MODE,
            face=probe.face or 0,
            face_chosen_by=request.face_chosen_by,
            idempotency_key=f"{begun.pending}:{probe.probe_id}",
        ),
        mandate=unsolved_pb2.Mandate(
            owner=common_pb2.Actor(person_id=kept.kept_by, force=case.force, roles=mandate.roles),
            watchlists=mandate.watchlists,
            trained_until=mandate.trained_until.isoformat() if mandate.trained_until else "",
            granted_at_ms=int(kept.kept_at.timestamp() * 1000),
        ),
        request_id=case.request_id,
        since_ms=begun.since_ms,
        unless_snapshot=begun.snapshot if is_first else "",
    )
