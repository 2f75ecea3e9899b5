"""The documents of a case: the released result, and the full pack for disclosure with its negatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from services.review.casework.caller import Caller
from services.review.casework.handing_over import given_to_person, given_to_recipient, usable_approval, use, words
from services.review.casework.partners import partner_facts
from services.review.casework.signing import arbitration_document, judgement_document
from services.review.casework.steps import Casebook, not_found, require_role
from services.review.casework.trail import About
from services.review.disclosures import DisclosureApproval
from services.review.enhancement import described
from services.review.model import (
    CandidateForJudgement,
    Case,
    Examination,
    Finding,
    ProbeFace,
    ProbeImage,
    SearchVariant,
)
from services.review.partners import standing
from services.review.ports import DocumentSetter, PictureRenderer, ReferenceDirectory
from services.review.suitability import quality_band
from services.review.workflow import OPERATOR, REQUESTER, SUPERVISOR
from services.rpc.v1 import audit_pb2
from services.shared.clock import rfc3339
from services.shared.errors import Forbidden, LikenessError, NotFound
from services.shared.ids import new_id
from services.shared.ports.image_store import ImageStore

RESULT_DOCUMENT, DISCLOSURE_DOCUMENT = "result_document", "disclosure_document"
DISCLOSURE_APPROVAL = "disclosure_document_approval"
JUDGEMENTS = "signed_judgements"
_PRINTED_SIDE = 900  # pixels; 300 dpi over 76 mm
_THUMBNAIL_SIDE = 300


class Documents:
    """Sets documents of released cases, each time anew; who gets one is recorded before it is given."""

    def __init__(
        self,
        book: Casebook,
        images: ImageStore,
        references: ReferenceDirectory,
        renderer: PictureRenderer,
        setter: DocumentSetter,
    ) -> None:
        self._book = book
        self._images = images
        self._references = references
        self._renderer = renderer
        self._setter = setter

    def result(self, caller: Caller, request_id: str) -> bytes:
        """The released result as PDF, for the requesting force. Raises NotFound before release, and for others."""
        case = self._released(caller, request_id, RESULT_DOCUMENT, OPERATOR, SUPERVISOR, REQUESTER)
        about = About.case(case)
        details = {"document": "result"}
        with self._book.trail.act(caller.principal, RESULT_DOCUMENT, about, audit_pb2.DISCLOSURE, details) as act:
            act.recipients += [f"person:{caller.person_id}", f"force:{caller.force}"]
            named = [one for one in case.candidates if one.candidate_id in _named(case)]
            pictures = self._probe_pictures(case) | self._candidate_pictures(caller, named, _PRINTED_SIDE)
            facts = result_facts(case, self._book.store.examinations(request_id))
            return self._setter.result(
                {**facts, "given": given_to_person(case, caller, self._book.clock.now())}, pictures
            )

    def approve_disclosure(self, caller: Caller, request_id: str, recipient: str, reason: str) -> DisclosureApproval:
        """A supervisor lets the full pack go to one recipient; somebody else fetches it, once, within a day.

        Raises Forbidden, NotFound, InvalidRequest, Conflict (`changed_meanwhile`), AuditUnavailable.
        """
        case = self._released(caller, request_id, DISCLOSURE_APPROVAL, SUPERVISOR)
        approval = DisclosureApproval(
            new_id(), words("recipient", recipient), words("reason", reason), caller.person_id, self._book.clock.now()
        )
        told, about = approval.told(), About.case(case)
        with self._book.trail.act(caller.principal, DISCLOSURE_APPROVAL, about, audit_pb2.DISCLOSURE, told) as act:
            act.recipients.append(f"recipient:{approval.recipient}")
            act.details.update(told)
            with act.settling() as settles:
                self._book.store.save(replace(case, disclosures=(*case.disclosures, approval)), settles=settles)
        return approval

    def disclosure(self, caller: Caller, request_id: str, approval_id: str) -> bytes:
        """Everything: the whole list with its negatives, every judgement with its reasons, every step. For operators
        and supervisors, who hand it to the recipient that another supervisor approved.

        Raises Forbidden (`own_approval`), NotFound, Conflict (`approval_needed`, `changed_meanwhile`).
        """
        case = self._released(caller, request_id, DISCLOSURE_DOCUMENT, OPERATOR, SUPERVISOR)
        about, now = About.case(case), self._book.clock.now()
        with self._book.refusals(caller, DISCLOSURE_DOCUMENT, request_id):
            approval = usable_approval(case, caller, approval_id, now)
        told = approval.told()
        with self._book.trail.act(caller.principal, DISCLOSURE_DOCUMENT, about, audit_pb2.DISCLOSURE, told) as act:
            act.recipients += [f"person:{caller.person_id}", f"recipient:{approval.recipient}"]
            act.details.update(told)
            facts = disclosure_facts(case, self._book.store.examinations(request_id))
            pictures = self._probe_pictures(case) | self._candidate_pictures(caller, case.candidates, _THUMBNAIL_SIDE)
            given = given_to_recipient(case, approval, caller, now)
            document = self._setter.disclosure({**facts, "given": given}, pictures)
            # Last, so that a document that could not be set costs no approval; of two at once one gets it.
            use(self._book, case, approval, caller, now)
            return document

    def judgements(self, caller: Caller, request_id: str) -> Sequence[Mapping[str, Any]]:
        """What was signed, with every remark: the values whose canonical bytes have the digests that the log holds.

        For operators and supervisors of a released case. Raises Forbidden, NotFound, AuditUnavailable.
        """
        case = self._released(caller, request_id, JUDGEMENTS, OPERATOR, SUPERVISOR)
        with self._book.trail.act(caller.principal, JUDGEMENTS, About.case(case), audit_pb2.DISCLOSURE) as act:
            act.recipients.append(f"person:{caller.person_id}")
            signed = [one for one in self._book.store.examinations(request_id) if one.signature is not None]
            decided = [] if case.arbitration is None else [arbitration_document(request_id, case.arbitration)]
            return [*(judgement_document(one) for one in signed), *decided]

    def _released(self, caller: Caller, request_id: str, activity: str, *roles: str) -> Case:
        book = self._book
        with book.refusals(caller, activity, request_id):
            require_role(caller, *roles)
            case = book.case(caller, request_id)
            if case.release is None:
                raise not_found()
            is_worker = not caller.principal.roles.isdisjoint({OPERATOR, SUPERVISOR})
            if is_worker and not caller.principal.watchlists.issuperset(case.request.watchlists):
                raise not_found()
            return case

    def _probe_pictures(self, case: Case) -> dict[str, bytes]:
        searched = {record.probe_id for record in case.searches}
        found = {}
        for probe in case.probes:
            if probe.probe_id not in searched or case.erasure is not None:
                continue
            found[f"probe-{probe.probe_id}"] = self._shown(self._images.get(probe.working_sha256), _PRINTED_SIDE)
            for made in _searched_copies(case, probe):
                found[f"copy-{made}"] = self._shown(self._images.get(_sha256_of(probe, made)), _PRINTED_SIDE)
        return found

    def _candidate_pictures(
        self, caller: Caller, candidates: Sequence[CandidateForJudgement], side: int
    ) -> dict[str, bytes]:
        """Of the candidates whose pictures are still there; a withdrawn reference leaves a gap that is named."""
        found = {}
        for one in candidates:
            try:
                content = self._references.image(
                    caller.bearer, one.watchlist, one.owner, one.subject_id, one.reference_id
                )
                found[f"candidate-{one.candidate_id}"] = self._shown(content, side)
            except (NotFound, Forbidden):
                # Synthetic, withdrawn, or its owner's agreement has ended meanwhile: the document says that there is
                # no picture. What was said and judged is given all the same, for it is relevant material.
                continue
        return found

    def _shown(self, content: bytes, side: int) -> bytes:
        return self._renderer.render(content, max_side=side, as_jpeg=True).content


def result_facts(case: Case, examinations: Sequence[Examination]) -> dict[str, Any]:
    """What the result says, as plain values for the template."""
    release = case.release
    if release is None:
        raise LikenessError("A result is made of a release.", advice="Tell the operators.")
    request = case.request
    return {
        "number": case.number,
        "force": case.force,
        "case_reference": request.case_reference,
        "offence": request.offence,
        "purpose": _words(request.purpose),
        "case_type": _words(request.case_type.value),
        "source": _words(request.source.value).replace("cctv", "CCTV"),
        "necessity": request.necessity,
        "face_chosen_by": request.face_chosen_by,
        "requested_by": case.requested_by,
        "requested_at": rfc3339(case.requested_at),
        "released_by": release.released_by,
        "released_at": rfc3339(release.released_at),
        "retain_until": release.retain_until.isoformat(),
        "names": [
            {
                "candidate_id": name.candidate_id,
                "subject_id": name.subject_id,
                "owner": name.owner,
                "watchlist": name.watchlist,
                "reference_id": name.reference_id,
                "agreement": name.agreement,
                "features": _agreed_features(name.candidate_id, examinations),
            }
            for name in release.names
        ],
        "statements": list(release.statements),
        "probes": [_probe(case, probe) for probe in case.probes if _was_searched(case, probe)],
        "searches": [_search(case, record.search_id) for record in case.searches],
        "partners": [partner_facts(one) for one in standing(case.enquiries)],
        "reviews": [_review(one) for one in examinations],
        "arbitration": _arbitration(case),
        "audit": {
            "sequence": release.audit.sequence,
            "leaf_hash": release.audit.leaf_hash,
            "entry_id": release.audit.entry_id,
            "recorded_at": release.audit.recorded_at,
            "code": release.audit.code,
        },
    }


def disclosure_facts(case: Case, examinations: Sequence[Examination]) -> dict[str, Any]:
    """The result's facts, the whole list, and everything that each examiner recorded."""
    letters = {candidate.candidate_id: number for number, candidate in enumerate(_by_best_rank(case), 1)}
    return {
        **result_facts(case, examinations),
        "candidates": [
            {
                "number": letters[candidate.candidate_id],
                "candidate_id": candidate.candidate_id,
                "subject_id": candidate.subject_id,
                "owner": candidate.owner,
                "watchlist": candidate.watchlist,
                "reference_id": candidate.reference_id,
                "decided": _words(case.decided[candidate.candidate_id].value),
                "appearances": [
                    {"variant": one.variant.value, "rank": one.rank, "score": f"{one.score:.4f}"}
                    for one in candidate.appearances
                ],
                "judgements": [_judgement(one, candidate.candidate_id) for one in examinations],
            }
            for candidate in _by_best_rank(case)
        ],
        "records": [judgement_document(one) for one in examinations],
    }


def _by_best_rank(case: Case) -> list[CandidateForJudgement]:
    return sorted(case.candidates, key=lambda one: (min(a.rank for a in one.appearances), one.candidate_id))


def _judgement(examination: Examination, candidate_id: str) -> dict[str, Any]:
    made = [one for one in examination.adjudications if one.candidate_id == candidate_id]
    standing = examination.standing()[candidate_id]
    return {
        "ordinal": examination.ordinal,
        "examiner": examination.examiner,
        "place": examination.order.index(candidate_id) + 1,
        "finding": _words(standing.finding.value),
        "remarks": standing.remarks,
        "viewed_s": f"{standing.viewed_s:.0f}",
        "features": [
            {"feature": _words(f.feature.value), "observation": _words(f.observation.value), "remark": f.remark}
            for f in standing.features
        ],
        "changed": [_words(one.finding.value) for one in made[:-1]],
    }


def _agreed_features(candidate_id: str, examinations: Sequence[Examination]) -> list[dict[str, str]]:
    return [
        {
            "review": "first" if one.ordinal == 1 else "second",
            "feature": _words(item.feature.value),
            "observation": _words(item.observation.value),
            "remark": item.remark,
        }
        for one in examinations
        if (standing := one.standing().get(candidate_id)) is not None
        for item in standing.features
    ]


def _probe(case: Case, probe: ProbeImage) -> dict[str, Any]:
    face = probe.faces[probe.face or 0]
    assessment = probe.assessment
    return {
        "probe_id": probe.probe_id,
        "face": _which(probe, face),
        "sha256": probe.original.sha256,
        "format": probe.original.format,
        "size": f"{probe.original.width} x {probe.original.height} px",
        "band": quality_band(face),
        "inter_eye_px": f"{face.inter_eye_px:.0f}",
        "unified_quality": f"{face.unified_quality:.0f}",
        "grade": _words(assessment.grade.value) if assessment is not None else "",
        "words": list(assessment.words) if assessment is not None else [],
        "remarks": assessment.remarks if assessment is not None else "",
        "copies": [
            {
                "enhancement_id": made.enhancement_id,
                "sha256": made.sha256,
                "reason": made.reason,
                "steps": [described(step) for step in made.steps],
            }
            for made in probe.enhancements
            if made.enhancement_id in _searched_copies(case, probe)
        ],
    }


def _which(probe: ProbeImage, face: ProbeFace) -> str:
    """Of several faces the one that was searched, so that a reader finds it in the picture; else nothing."""
    if len(probe.faces) == 1:
        return ""
    left, top, width, height = (round(side) for side in face.box)
    place = f"{width} x {height} px, {left} from the left and {top} from the top"
    return f"number {face.index + 1} of {len(probe.faces)}, in rows from the top left: {place}"


def _search(case: Case, search_id: str) -> dict[str, Any]:
    record = next(one for one in case.searches if one.search_id == search_id)
    answer: Mapping[str, Any] = record.answer
    model = answer["model"]
    return {
        "search_id": record.search_id,
        "variant": record.variant.value,
        "searched_at": rfc3339(record.searched_at),
        "searched_by": record.searched_by,
        "reason": record.reason,
        "flags": [str(flag["detail"]) for flag in answer.get("probe", {}).get("flags", ())],
        "candidates": record.candidate_count,
        "searchable": answer["searchable"],
        "unsearchable": "unknown" if answer.get("unsearchable") is None else answer["unsearchable"],
        "scopes": [
            {"watchlist": one["watchlist"], "owners": list(one["owners"]), "agreements": list(one["agreements"])}
            for one in answer["searched"]
        ],
        "model": model["model_id"],
        "detector": f"{model['detector']} ({model['detector_sha256'][:16]})",
        "recogniser": f"{model['recogniser']} ({model['recogniser_sha256'][:16]})",
        "runtime": f"{model['runtime']}, {model['provider']}",
        "gallery": answer["gallery"],
        "threshold": answer["threshold"].get("version") or "none applied",
        "answer_sha256": record.answer_sha256,
    }


def _review(examination: Examination) -> dict[str, Any]:
    signature = examination.signature
    findings = list(examination.findings().values())
    return {
        "name": "First review" if examination.ordinal == 1 else "Second review",
        "examiner": examination.examiner,
        "signed_at": rfc3339(signature.signed_at) if signature is not None else "",
        "trained_on": str(signature.trained_on or "not stated") if signature is not None else "",
        "trained_until": str(signature.training_expires_on) if signature is not None else "",
        "judgement_sha256": signature.judgement_sha256 if signature is not None else "",
        "audit_sequence": signature.audit_sequence if signature is not None else 0,
        "counts": {_words(kind.value): findings.count(kind) for kind in Finding},
    }


def _arbitration(case: Case) -> dict[str, Any] | None:
    if case.arbitration is None:
        return None
    signature = case.arbitration.signature
    return {
        "supervisor": signature.signed_by,
        "signed_at": rfc3339(signature.signed_at),
        "audit_sequence": signature.audit_sequence,
        "judgement_sha256": signature.judgement_sha256,
        "decisions": [
            {
                "subject_id": candidate.subject_id,
                "finding": _words(finding.value),
                "reason": case.arbitration.reasons[candidate.candidate_id],
            }
            for candidate in case.candidates
            if (finding := case.arbitration.findings.get(candidate.candidate_id)) is not None
        ],
    }


def _searched_copies(case: Case, probe: ProbeImage) -> list[str]:
    return [
        record.enhancement_id
        for record in case.searches
        if record.probe_id == probe.probe_id
        and record.variant is SearchVariant.ENHANCED
        and record.enhancement_id is not None
    ]


def _sha256_of(probe: ProbeImage, enhancement_id: str) -> str:
    return next(made.sha256 for made in probe.enhancements if made.enhancement_id == enhancement_id)


def _was_searched(case: Case, probe: ProbeImage) -> bool:
    return any(record.probe_id == probe.probe_id for record in case.searches)


def _named(case: Case) -> frozenset[str]:
    return frozenset(name.candidate_id for name in case.release.names) if case.release is not None else frozenset()


def _words(code: str) -> str:
    return code.replace("_", " ")
