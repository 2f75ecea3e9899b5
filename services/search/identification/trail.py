"""What search writes to the audit log, and in which words."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from services.rpc.auditing import AuditRecorder
from services.rpc.v1 import audit_pb2
from services.search.identification.answer import SearchOutcome
from services.search.identification.evidence import FilmEvidence
from services.search.identification.probe_policy import flags_of
from services.search.policy import Decision
from services.search.ports import NewSearch, StoredSearch
from services.shared.errors import LikenessError
from services.shared.ids import is_id, new_id
from services.shared.tokens import Principal

SEARCH = "search"
SEARCH_VIEW = "search_view"
SEARCH_WITHHELD = "search_withheld"


class SearchTrail:
    """Entries of searches and of views of searches. All methods raise AuditUnavailable; `ended` also Conflict."""

    def __init__(self, recorder: AuditRecorder, always: Mapping[str, str] | None = None) -> None:
        """`always` stands in the details of every entry that tells of a search."""
        self._recorder = recorder
        self._always = dict(always or {})

    def intend(self, search: NewSearch, decision: Decision, evidence: FilmEvidence | None = None) -> None:
        """Before the gallery is touched: who searches what for whom, and by which permission."""
        request = search.request
        details = {
            "offence": request.offence,
            "source": request.source.value,
            "nature": request.nature.value,
            "mode": request.mode.value,
            "max_candidates": str(request.max_candidates),
            "case_type": request.case_type.value,
            "policy": decision.policy,
            "watchlists": decision.watchlists,
            **({} if evidence is None else evidence.audit_details()),
        }
        for scope in decision.scopes:
            details[f"policies:{scope.watchlist_id}"] = ",".join(scope.policies)
            owners = "any" if scope.owners is None else ",".join(sorted(scope.owners))
            details[f"owners:{scope.watchlist_id}"] = owners
            if scope.agreements:
                details[f"agreements:{scope.watchlist_id}"] = ",".join(scope.agreements)
        self._record(search, audit_pb2.INTENT, details)

    def done(self, search: NewSearch, outcome: SearchOutcome, result: bytes) -> None:
        """Before the answer leaves: what was found, given to whom, and the digest of it."""
        details = {
            "model_id": outcome.analysis.model.model_id,
            "gallery": outcome.gallery_name,
            "searchable": str(outcome.searchable),
            "candidates": str(len(outcome.candidates)),
            "faces": str(len(outcome.analysis.faces)),
            "face": str(outcome.face_index),
            "policy": outcome.decision.policy,
            "watchlists": outcome.decision.watchlists,
            "result_sha256": hashlib.sha256(result).hexdigest(),
            # The only face is nobody's choice but the caller's who sent it.
            "face_chosen_by": outcome.face_chosen_by,
        }
        face = outcome.analysis.faces[outcome.face_index]
        if face.assessment is not None:
            details["grade"] = face.assessment.grade
        if flags := flags_of(outcome.analysis, face, outcome.request.nature):
            details["flags"] = ",".join(flag.code for flag in flags)
        quality = outcome.analysis.faces[outcome.face_index].quality.unified
        details["quality"] = f"{quality:.1f}"
        if outcome.index.recall is not None:
            details["gallery_index_recall"] = f"{outcome.index.recall.recall:.4f}"
        if outcome.snapshot is not None:
            details["gallery_snapshot"] = outcome.snapshot.snapshot_id
        for watchlist_id, point in outcome.operating_points.items():
            details[f"threshold:{watchlist_id}"] = f"{point.threshold} ({point.version})"
        for watchlist_id, calibration in outcome.calibrations.items():
            details[f"calibration:{watchlist_id}"] = calibration.version
        self._record(
            search,
            audit_pb2.DONE,
            details,
            entry_id=search.outcome_entry_id,
            references=[candidate.reference_id for candidate in outcome.candidates],
            recipients=[f"person:{search.principal.person_id}"],
        )

    def ended(self, search: NewSearch | StoredSearch, phase: audit_pb2.Phase.ValueType, reason: str) -> None:
        """Without an answer. Raises Conflict when the log already has another outcome of this search."""
        self._record(search, phase, {"reason": reason}, entry_id=search.outcome_entry_id)

    def refused(
        self, principal: Principal, activity: str, activity_id: str, error: LikenessError, about: Mapping[str, str]
    ) -> None:
        """A request that was never begun: not permitted, or incomplete. `about` may hold purpose, case_reference, and
        what kind of picture it was said to be."""
        details = {"reason": error.code, **self._always}
        if nature := about.get("nature"):
            details["nature"] = nature
        if reasons := error.context.get("reasons"):
            details["reasons"] = ",".join(reasons)
        if policy := error.context.get("policy"):
            details["policy"] = str(policy)
        if fields := error.context.get("fields"):
            details["fields"] = ",".join(str(field["field"]) for field in fields)
        self._recorder.record(
            audit_pb2.CONSULTATION,
            audit_pb2.REFUSED,
            activity,
            activity_id,
            principal,
            purpose=about.get("purpose", ""),
            case_reference=about.get("case_reference", ""),
            objects=[about["object"]] if "object" in about else [],
            details=details,
        )

    def withheld(self, search: NewSearch, error: LikenessError) -> None:
        """After the outcome: the answer was made and recorded, and not given out."""
        about = {
            "purpose": search.request.purpose,
            "case_reference": search.request.case_reference,
            "object": search_object(search.search_id),
        }
        self.refused(search.principal, SEARCH_WITHHELD, new_id(), error, about)

    def withheld_again(self, principal: Principal, document: Mapping[str, Any], error: LikenessError) -> None:
        """As `withheld`, of an answer that was recorded and then had to wait for others."""
        about = {
            "purpose": str(document["request"]["purpose"]),
            "case_reference": str(document["request"]["case_reference"]),
            "object": search_object(str(document["search_id"])),
        }
        self.refused(principal, SEARCH_WITHHELD, new_id(), error, about)

    def viewed(self, principal: Principal, view_id: str, search: StoredSearch) -> None:
        """Before a stored search is given out again."""
        self._recorder.record(
            audit_pb2.CONSULTATION,
            audit_pb2.DONE,
            SEARCH_VIEW,
            view_id,
            principal,
            purpose=search.purpose,
            case_reference=search.case_reference,
            objects=[search_object(search.search_id)],
            recipients=[f"person:{principal.person_id}"],
            details={"status": search.status.value},
        )

    def _record(
        self,
        search: NewSearch | StoredSearch,
        phase: audit_pb2.Phase.ValueType,
        details: Mapping[str, str],
        *,
        entry_id: str | None = None,
        references: Sequence[str] = (),
        recipients: Sequence[str] = (),
    ) -> None:
        request = search.request if isinstance(search, NewSearch) else search
        self._recorder.record(
            audit_pb2.CONSULTATION,
            phase,
            SEARCH,
            search.search_id,
            search.principal,
            purpose=request.purpose,
            case_reference=request.case_reference,
            objects=[
                f"probe:{search.probe_sha256}",
                *(f"watchlist:{watchlist_id}" for watchlist_id in request.watchlists),
                *(f"reference:{reference_id}" for reference_id in references),
            ],
            recipients=recipients,
            details={**details, **self._always},
            entry_id=entry_id,
        )


def search_object(search_id: str) -> str:
    """How a search is named in the log; what is no id at all is not copied into it."""
    return f"search:{search_id}" if is_id(search_id) else "search:malformed"
