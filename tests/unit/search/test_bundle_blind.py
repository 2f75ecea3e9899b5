"""A bundle has what examiners found: it does not leave while the second one could still learn what the first found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.rpc.v1 import audit_pb2
from services.search.disclosure.approvals import LIFETIME, Approval
from services.search.disclosure.bundle import DiscloseSearch
from services.shared.clock import SystemClock
from services.shared.errors import Conflict
from services.shared.ids import new_id
from tests.unit.search.fakes import OPERATOR
from tests.unit.search.test_identify import Journal
from tests.unit.search.test_standing import UPLOAD, SealedProbe, Stage

REQUEST = "request:00000000-0000-7000-8000-000000000001"


@dataclass
class Approvals:
    """One, that serves once."""

    approval: Approval
    is_used: bool = False

    def add(self, approval: Approval) -> None:
        raise NotImplementedError

    def find(self, approval_id: str) -> Approval | None:
        return None if self.is_used else self.approval

    def use(self, approval_id: str, at: datetime) -> bool:
        was_used, self.is_used = self.is_used, True
        return not was_used


@dataclass
class Log:
    """What casework recorded, as (activity, details)."""

    acts: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    def prove_activity(self, activity_id: str, case_reference: str, objects: Sequence[str]) -> audit_pb2.ProvenActivity:
        return audit_pb2.ProvenActivity(
            entries=[
                audit_pb2.ProvenEntry(sequence=number, canonical=orjson.dumps(_facts(number, activity, details)))
                for number, (activity, details) in enumerate(self.acts)
            ]
        )


def _facts(number: int, activity: str, details: Mapping[str, str]) -> dict[str, Any]:
    return {
        "service": "review",
        "phase": "DONE",
        "sequence": number,
        "activity": activity,
        "actor": {"person_id": "anna"},
        "recorded_at": "2026-06-01T09:00:00.000Z",
        "objects": [REQUEST],
        "details": dict(details),
    }


def test_a_search_that_is_being_judged_is_disclosed_once_both_have_signed(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "northshire")
    try:
        search_id = orjson.loads(stage.identify(OPERATOR, UPLOAD))["search_id"]
        now = SystemClock().now()
        approval = Approval(new_id(), search_id, "Crown Court", "CPIA, case 12/26", "sv-1", now, now + LIFETIME)
        approvals, log = Approvals(approval), Log([("search", {"searches": search_id})])
        disclose = DiscloseSearch(
            stage.access, approvals, SealedProbe(Journal()), log, stage.disclosures, SystemClock()
        )
        log.acts.append(("judge_candidate", {"finding": "possible_match"}))
        for _ in range(2):
            with pytest.raises(Conflict) as refused:
                disclose(OPERATOR, search_id, "CPIA disclosure", approval.approval_id)
            assert refused.value.code == "under_review"
            log.acts.append(("sign_first", {"judgement_sha256": "a" * 64, "ordinal": "1"}))
        log.acts.append(("sign_second_agreeing", {"judgement_sha256": "b" * 64, "ordinal": "2"}))
        assert not approvals.is_used, "a refusal costs no approval"
        bundle = orjson.loads(disclose(OPERATOR, search_id, "CPIA disclosure", approval.approval_id))
        assert next(one["activity"] for one in bundle["adjudications"]) == "judge_candidate"
        with pytest.raises(Conflict) as again:
            disclose(OPERATOR, search_id, "CPIA disclosure", approval.approval_id)
        assert again.value.code == "approval_needed"
    finally:
        stage.executor.shutdown()
        stage.engine.dispose()
