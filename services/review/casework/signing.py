"""What a signature is over."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from services.review.model import Adjudication, Arbitration, Examination, Finding
from services.shared.canonical import canonical_bytes
from services.shared.clock import rfc3339


def judgement_sha256(examination: Examination) -> str:
    """SHA-256 of the canonical bytes of a judgement: who found what of whom, with every remark and every change.

    The audit entry of the signature holds the same digest, and the entry stands under the log's signed checkpoints:
    that is what makes it a signature of an authenticated person, and not this digest alone.
    """
    return hashlib.sha256(canonical_bytes(judgement_document(examination))).hexdigest()


def arbitration_sha256(request_id: str, supervisor: str, findings: dict[str, Finding], reasons: dict[str, str]) -> str:
    return hashlib.sha256(canonical_bytes(_arbitration(request_id, supervisor, findings, reasons))).hexdigest()


def arbitration_document(request_id: str, made: Arbitration) -> dict[str, Any]:
    """A supervisor's decision as plain values, as it was digested."""
    return _arbitration(request_id, made.signature.signed_by, made.findings, made.reasons)


def _arbitration(
    request_id: str, supervisor: str, findings: Mapping[str, Finding], reasons: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "supervisor": supervisor,
        "findings": {candidate_id: finding.value for candidate_id, finding in findings.items()},
        "reasons": dict(reasons),
    }


def judgement_document(examination: Examination) -> dict[str, Any]:
    """The judgement as plain values, as it is digested and as it stands in the disclosure pack."""
    return {
        "examination_id": examination.examination_id,
        "request_id": examination.request_id,
        "ordinal": examination.ordinal,
        "examiner": examination.examiner,
        "order": list(examination.order),
        "adjudications": [_adjudication(one) for one in examination.adjudications],
    }


def _adjudication(one: Adjudication) -> dict[str, Any]:
    return {
        "candidate_id": one.candidate_id,
        "finding": one.finding.value,
        "features": [[item.feature.value, item.observation.value, item.remark] for item in one.features],
        "remarks": one.remarks,
        "judged_at": rfc3339(one.judged_at),
        "viewed_s": f"{one.viewed_s:.1f}",
        "is_undone": one.is_undone,
    }
