"""The disclosure bundle of one search: everything that a check without the platform needs, in one JSON file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson

from services.rpc.v1 import audit_pb2
from services.search.disclosure.access import DISCLOSURE, DisclosureAccess, DisclosureTrail, require_probe
from services.search.disclosure.approvals import Approval, ApprovalStore, require_approval
from services.search.identification.trail import search_object
from services.search.ports import StoredSearch
from services.shared.clock import Clock, rfc3339
from services.shared.errors import CallerError, Conflict, IntegrityError, LikenessError
from services.shared.ports.image_store import ImageStore
from services.shared.tokens import Principal

BUNDLE_FORMAT = "likeness.disclosure.v1"

# Of a request, by different people (docs/review.md).
JUDGEMENTS_REQUIRED = 2
# What an entry of casework says of a picture that was made from an original (docs/disclosure.md), by its digest.
_RECIPE = "enhancement:"


class ActivityProver(Protocol):
    """What a bundle needs of `services.rpc.clients.AuditClient`."""

    def prove_activity(
        self, activity_id: str, case_reference: str, objects: Sequence[str]
    ) -> audit_pb2.ProvenActivity: ...


class DiscloseSearch:
    """Makes bundles. The intent is in the log before anything is read, the outcome before the bundle leaves."""

    def __init__(  # noqa: PLR0917 - what the composition root has made
        self,
        access: DisclosureAccess,
        approvals: ApprovalStore,
        probes: ImageStore,
        audit: ActivityProver,
        trail: DisclosureTrail,
        clock: Clock,
    ) -> None:
        self._access = access
        self._approvals = approvals
        self._probes = probes
        self._audit = audit
        self._trail = trail
        self._clock = clock

    def __call__(self, principal: Principal, search_id: str, reason: str, approval_id: str) -> bytes:
        """The bundle as JSON, made out to the recipient whom somebody else approved.

        Raises Forbidden (also where no approval is left), NotFound, Conflict (no answer; `under_review`),
        AuditUnavailable, DependencyUnavailable, IntegrityError.
        """
        now = self._clock.now()
        try:
            search = self._access.find(principal, search_id)
            require_probe(search)
            approval = require_approval(self._approvals, principal, search.search_id, approval_id, now)
        except CallerError as error:
            self._trail.refused(DISCLOSURE, principal, search_id, error)
            raise
        act = self._trail.intend(DISCLOSURE, principal, search, {**approval.told(), "reason": reason})
        try:
            bundle = self._bundle(principal, search, reason, approval)
            # Last, so that a bundle that could not be made costs no approval; of two at once one gets it.
            if not self._approvals.use(approval.approval_id, now):
                raise Conflict("The approval has been used.", advice="Ask for another.", code="approval_used")
        except LikenessError as error:
            self._trail.failed(act, error.code)
            raise
        self._trail.done(act, {"bundle_sha256": hashlib.sha256(bundle).hexdigest()})
        return bundle

    def _bundle(self, principal: Principal, search: StoredSearch, reason: str, approval: Approval) -> bytes:
        probe = self._probes.get(search.probe_sha256)
        proven = self._audit.prove_activity(search.search_id, search.case_reference, [search_object(search.search_id)])
        facts = [orjson.loads(entry.canonical) for entry in proven.entries]
        require_judged(facts)
        original_sha256, recipe = _origin(search.probe_sha256, facts)
        return orjson.dumps(
            {
                "format": BUNDLE_FORMAT,
                "search_id": search.search_id,
                "made_at": rfc3339(self._clock.now()),
                "made_by": {"person_id": principal.person_id, "force": principal.force},
                "reason": reason,
                "approval": approval.told(),
                "watermark": watermark(approval, search.search_id),
                "original_sha256": original_sha256,
                "enhancement": recipe,
                "probe": {"sha256": search.probe_sha256, "content_base64": base64.b64encode(probe).decode()},
                # As text, because its digest stands in the log: not a byte of it may be written another way.
                "answer": (search.result or b"").decode(),
                "adjudications": [_adjudication(entry) for entry in facts if _is_adjudication(entry)],
                "audit": _audit_part(proven),
            },
            option=orjson.OPT_INDENT_2,
        )


def watermark(approval: Approval, search_id: str) -> str:
    """What whoever finds a copy reads first; the log holds the digest of this recipient's bundle."""
    return (
        f"Disclosed to {approval.recipient} alone, search {search_id}, approval {approval.approval_id}. "
        "Personal data: not to be copied, passed on or published."
    )


def require_judged(entries: Sequence[Mapping[str, Any]]) -> None:
    """Whoever fetches a bundle reads what examiners found, and may be the second one: so a search of a request that is
    being judged is not disclosed before both have signed. Raises Conflict."""
    signed: dict[str, set[str]] = {}
    for entry in filter(_is_adjudication, entries):
        ordinals = {entry["details"]["ordinal"]} if "ordinal" in entry["details"] else set()
        for name in (one for one in entry["objects"] if one.startswith("request:")):
            signed.setdefault(name, set()).update(ordinals)
    if any(len(ordinals) < JUDGEMENTS_REQUIRED for ordinals in signed.values()):
        raise Conflict(
            "The request of this search is being judged, and the second examiner must not learn what the first found.",
            advice="Disclose it once both judgements are signed; the approval can still be used then.",
            code="under_review",
        )


def _origin(probe_sha256: str, entries: Sequence[Mapping[str, Any]]) -> tuple[str, list[Any]]:
    """The original's digest and the steps from it to the probe, as casework recorded them; none where it did not."""
    for entry in entries:
        told = entry["details"].get(_RECIPE + probe_sha256)
        if told is not None:
            try:
                made = orjson.loads(told)
                return str(made["original_sha256"]), list(made["steps"])
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                raise IntegrityError(
                    f"The enhancement recorded at {entry['sequence']} cannot be read.",
                    advice="Export the whole log instead: likeness audit export.",
                ) from error
    return probe_sha256, []


def _is_adjudication(entry: Mapping[str, Any]) -> bool:
    """What people found: single findings, signed judgements, a supervisor's decision."""
    details = entry["details"]
    is_found = "finding" in details or "judgement_sha256" in details
    return bool(entry["service"] == "review" and entry["phase"] == "DONE" and is_found)


def _adjudication(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A judgement in the words of its entry, and where it stands in the log."""
    return {
        "sequence": entry["sequence"],
        "activity": entry["activity"],
        "person_id": entry["actor"]["person_id"],
        "recorded_at": entry["recorded_at"],
        "objects": entry["objects"],
        "details": entry["details"],
    }


def _audit_part(proven: audit_pb2.ProvenActivity) -> dict[str, Any]:
    head = proven.checkpoint
    return {
        "checkpoint": {
            "checkpoint": {
                "created_at": head.created_at,
                "format": "likeness.audit-checkpoint.v1",
                "key_id": head.key_id,
                "log_id": head.log_id,
                "root_hash": head.root_hash.hex(),
                "tree_size": head.tree_size,
            },
            "signature": head.signature.hex(),
        },
        "keys": [
            {"key_id": key.key_id, "public_key": key.pem, "endorsement": key.endorsement.decode()}
            for key in proven.keys
        ],
        "entries": [
            {
                "sequence": entry.sequence,
                "canonical": entry.canonical.decode(),
                "path": [part.hex() for part in entry.path],
            }
            for entry in proven.entries
        ],
        "counted": [
            {
                "activity": one.activity,
                "phase": one.phase,
                "person_id": one.person_id,
                "count": one.count,
                "first_sequence": one.first_sequence,
                "last_sequence": one.last_sequence,
            }
            for one in proven.counted
        ],
        "counted_sha256": proven.counted_sha256.hex(),
    }
