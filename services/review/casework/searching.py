"""A search for a case: with the operator's own token, the original always, an enhanced copy beside it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from services.review.casework.caller import Caller
from services.review.casework.copies import same_face
from services.review.casework.flagged import undecided
from services.review.casework.forms import prose
from services.review.casework.intake import probe_face
from services.review.casework.partners import NOBODY, Disclosing, Question, disclosing
from services.review.casework.steps import Casebook
from services.review.casework.trail import Act
from services.review.model import (
    Appearance,
    CandidateForJudgement,
    Case,
    Enhancement,
    ProbeImage,
    SearchRecord,
    SearchVariant,
    Suitability,
)
from services.review.partners import PartnerEnquiry
from services.review.ports import FaceAnalyser, Searcher
from services.review.workflow import Action
from services.rpc.v1 import audit_pb2, embed_pb2, search_pb2
from services.shared.errors import Conflict, DependencyUnavailable, NoFaceFound
from services.shared.ports.image_store import ImageStore

MODE = "investigation"  # a list of fixed length for people to judge
DEFAULT_CANDIDATES = 20


@dataclass(frozen=True, slots=True)
class _Probe:
    """One picture to be searched."""

    content: bytes
    sha256: str
    face: int
    variant: SearchVariant
    enhancement_id: str | None


@dataclass(frozen=True, slots=True)
class _Asked:
    """One picture of a case to be searched, by whom and why."""

    caller: Caller
    case: Case
    probe: ProbeImage
    picture: _Probe
    reason: str
    max_candidates: int
    # Who is asked with it.
    to: Disclosing = NOBODY

    @property
    def is_sent(self) -> bool:
        """Whether it leaves: a planted probe does not, whatever its operator chose."""
        return bool(self.to.offers) and self.case.known_answer is None


@dataclass(frozen=True, slots=True)
class _Found:
    record: SearchRecord
    listed: Sequence[Mapping[str, Any]]
    enquiries: tuple[PartnerEnquiry, ...]


class RunSearch:
    """Searches the chosen face of a probe and merges what comes back into the case's list."""

    def __init__(self, book: Casebook, images: ImageStore, searcher: Searcher, analyser: FaceAnalyser) -> None:
        self._book = book
        self._images = images
        self._searcher = searcher
        self._analyser = analyser

    def __call__(
        self,
        caller: Caller,
        request_id: str,
        version: int,
        *,
        probe_id: str,
        enhancement_id: str | None,
        reason: str,
        max_candidates: int = DEFAULT_CANDIDATES,
        partners: Sequence[str] = (),
        authority: str = "",
    ) -> Case:
        """Search the original, and with it the enhanced copy where one is named. Both lists are kept.

        Possible until somebody begins to judge. Where search flags a picture the case waits for a supervisor: FLAGGED.
        `partners` are asked with the original, by an `authority`; a partner that gives no list fails nothing.
        Raises Conflict, Forbidden (also what search's policy denies),
        NoFaceFound (the copy shows no face), everything else that search raises.
        """
        objects = (f"probe:{probe_id}",)
        with self._book.step(
            caller, request_id, Action.SEARCH, version, operation=audit_pb2.CONSULTATION, objects=objects
        ) as step:
            told = prose("reason", reason)
            probe = _ready(step.case, probe_id)
            to = disclosing(self._searcher, caller, step.case, partners, authority)
            records, candidates, enquiries = step.case.searches, step.case.candidates, step.case.enquiries
            for picture in self._pictures(probe, enhancement_id):
                asked_too = to if picture.variant is SearchVariant.ORIGINAL else NOBODY
                found = self._searched(
                    _Asked(caller, step.case, probe, picture, told, max_candidates, asked_too), step.act
                )
                records, enquiries = (*records, found.record), (*enquiries, *found.enquiries)
                candidates = merged(candidates, found.listed, found.record)
            step.act.details["searches"] = ",".join(record.search_id for record in records)
            step.act.details["candidates"] = str(len(candidates))
            open_flags = undecided(records, step.case.probe_decisions)
            step.act.details["flagged"] = str(len(open_flags))
            outcome = Action.SEARCH_FLAGGED if open_flags else Action.SEARCH
            return step.move(action=outcome, searches=records, candidates=candidates, enquiries=enquiries)

    def partners(self, caller: Caller, case: Case) -> Sequence[search_pb2.PartnerOffer]:
        """Whom this caller may have asked with a search of this case. Raises Forbidden, DependencyUnavailable."""
        return self._searcher.partners(caller.bearer, case.request.watchlists)

    def once_more(
        self, caller: Caller, case: Case, reason: str, act: Act
    ) -> tuple[tuple[SearchRecord, ...], tuple[CandidateForJudgement, ...]]:
        """Every original that was searched, searched again on its own: the records, and one candidate a subject."""
        searched = {record.probe_id for record in case.searches}
        records: tuple[SearchRecord, ...] = ()
        candidates: tuple[CandidateForJudgement, ...] = ()
        for probe in (one for one in case.probes if one.probe_id in searched):
            [picture] = self._pictures(probe, None)
            found = self._searched(_Asked(caller, case, probe, picture, reason, DEFAULT_CANDIDATES), act)
            records = (*records, found.record)
            candidates = merged(candidates, found.listed, found.record)
        return records, candidates

    def _searched(self, asked: _Asked, act: Act) -> _Found:
        answer = self._search(asked, act.activity_id)
        record = self._record(asked, answer)
        enquiries = self._enquiries(asked, record, answer)
        act.objects.extend(f"partner-search:{one.their_search_id}" for one in enquiries if one.their_search_id)
        act.details.update({f"partner:{one.partner}": one.status for one in enquiries})
        # What a disclosure of that search finds this case and its judgements by.
        act.objects.extend([f"search:{record.search_id}", f"probe:{asked.picture.sha256}"])
        act.details |= _recipe(asked.probe, asked.picture)
        return _Found(record, answer.document["candidates"], enquiries)

    def _enquiries(self, asked: _Asked, record: SearchRecord, answer: _Answer) -> tuple[PartnerEnquiry, ...]:
        if not asked.to.offers:
            return ()
        question = Question(asked.to, asked.probe, record.search_id, record.searched_by, record.searched_at)
        return question.not_sent() if answer.partners is None else question.answered(answer.partners)

    def _pictures(self, probe: ProbeImage, enhancement_id: str | None) -> Sequence[_Probe]:
        face = probe.face or 0
        sha256 = probe.original.sha256
        original = _Probe(self._images.get(sha256), sha256, face, SearchVariant.ORIGINAL, None)
        if enhancement_id is None:
            return (original,)
        enhanced = next((made for made in probe.enhancements if made.enhancement_id == enhancement_id), None)
        if enhanced is None:
            raise Conflict("There is no such working copy.", advice="Look at the case again.", code="no_such_probe")
        return (original, self._enhanced(probe, enhanced))

    def _enhanced(self, probe: ProbeImage, made: Enhancement) -> _Probe:
        content = self._images.get(made.sha256)
        found = self._analyser.analyse(content, embed_pb2.AnalyseRequest.NONE).faces
        face = same_face(probe, made, [probe_face(index, one) for index, one in enumerate(found)])
        if face is None:
            raise NoFaceFound(
                "The chosen face was not found in the enhanced copy.",
                advice="Search the original alone, or enhance it otherwise.",
            )
        return _Probe(content, made.sha256, face.index, SearchVariant.ENHANCED, made.enhancement_id)

    def _search(self, asked: _Asked, activity_id: str) -> _Answer:
        request, picture = asked.case.request, asked.picture
        answer = self._searcher.identify(
            asked.caller.bearer,
            search_pb2.IdentifyRequest(
                image=picture.content,
                case_reference=request.case_reference,
                purpose=request.purpose,
                offence=request.offence,
                source=request.source.value,
                nature=request.nature.value,
                case_type=request.case_type.value,
                watchlists=request.watchlists,
                mode=MODE,
                max_candidates=asked.max_candidates,
                face=picture.face,
                face_chosen_by=request.face_chosen_by,
                idempotency_key=f"{activity_id}:{asked.probe.probe_id}:{picture.variant.value}",
                partners=asked.to.names if asked.is_sent else (),
                authority=asked.to.authority if asked.is_sent else "",
            ),
        )
        return _Answer.read(answer)

    def _record(self, asked: _Asked, answer: _Answer) -> SearchRecord:
        picture = asked.picture
        document = dict(answer.document)
        candidates = document.pop("candidates")
        return SearchRecord(
            search_id=document["search_id"],
            probe_id=asked.probe.probe_id,
            variant=picture.variant,
            enhancement_id=picture.enhancement_id,
            image_sha256=picture.sha256,
            reason=asked.reason,
            searched_by=asked.caller.person_id,
            searched_at=self._book.clock.now(),
            candidate_count=len(candidates),
            answer_sha256=answer.sha256,
            answer=document,
        )


def _recipe(probe: ProbeImage, picture: _Probe) -> dict[str, str]:
    """From which original, by which steps the picture that was searched was made; empty for an original."""
    made = next((one for one in probe.enhancements if one.enhancement_id == picture.enhancement_id), None)
    if made is None:
        return {}
    steps = [{"kind": step.kind.value, "amounts": dict(step.amounts)} for step in made.steps]
    told = {"original_sha256": probe.original.sha256, "steps": steps}
    return {f"enhancement:{picture.sha256}": orjson.dumps(told).decode()}


@dataclass(frozen=True, slots=True)
class _Answer:
    document: Mapping[str, Any]
    sha256: str
    # The whole document of a search at partners too.
    partners: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, content: bytes) -> _Answer:
        document, whole = orjson.loads(content), None
        if "consortium_id" in document:
            # The search at home stands in it as it would stand alone, but for whose it is: the same bytes.
            whole, document = document, {name: told for name, told in document["home"].items() if name != "source"}
            content = orjson.dumps(document)
        if document.get("status") != "done" or "candidates" not in document:
            raise DependencyUnavailable("search gave no list.", advice="Search again; tell the operators.")
        return cls(document, hashlib.sha256(content).hexdigest(), whole)


def merged(
    known: Sequence[CandidateForJudgement], listed: Sequence[Mapping[str, Any]], record: SearchRecord
) -> tuple[CandidateForJudgement, ...]:
    """One candidate a subject of an owner and watchlist, with every list that it stood in.

    The ids are random and the order is by them, so that nothing about a candidate follows from its place.
    """
    found = {(one.owner, one.subject_id, one.watchlist): one for one in known}
    for entry in listed:
        appearance = Appearance(record.search_id, record.variant, entry["rank"], entry["score"], entry["reference_id"])
        key = (entry["owner"], entry["subject_id"], entry["watchlist"])
        earlier = found.get(key)
        found[key] = (
            replace(earlier, appearances=(*earlier.appearances, appearance))
            if earlier is not None
            else CandidateForJudgement(
                candidate_id=f"{random.SystemRandom().getrandbits(64):016x}",
                subject_id=entry["subject_id"],
                owner=entry["owner"],
                watchlist=entry["watchlist"],
                reference_id=entry["reference_id"],
                appearances=(appearance,),
            )
        )
    return tuple(sorted(found.values(), key=lambda candidate: candidate.candidate_id))


def _ready(case: Case, probe_id: str) -> ProbeImage:
    """The probe, when it was assessed and not found unsuitable."""
    probe = case.probe(probe_id)
    if probe is None or probe.assessment is None or probe.assessment.grade is Suitability.UNSUITABLE:
        raise Conflict(
            "This picture was not assessed as suitable.",
            advice="Assess it first; what is unsuitable is not searched.",
            code="probe_not_suitable",
        )
    return probe
