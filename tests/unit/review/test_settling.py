"""A stop between what was stored and its entry in the log: the log says afterwards what the record says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.review.casework.trail import About, CaseTrail
from services.review.model import CaseState, Finding
from services.shared.errors import AuditUnavailable, Conflict
from services.shared.telemetry import Metrics
from tests.unit.review.people import ANNA, BERT, FORM, MATCH, OFFICER, SUE, Unit, png


def _cut_short(unit: Unit, act: Callable[[], object]) -> None:
    """The intent is written and the act stored; its outcome is not written."""
    unit.audit.down_after = 1
    with pytest.raises(AuditUnavailable):
        act()
    unit.audit.down_after = None


def _settled(unit: Unit, activity: str) -> dict[str, Any]:
    """The last outcome of an activity once the sweep has been."""
    unit.clock.pass_s(61)
    for _ in range(2):
        unit.desk.trail.sweep()
    assert unit.store.open_acts(unit.clock.now(), 10) == []
    *_, intent, outcome = (entry for entry in unit.audit.entries if entry["activity"] == activity)
    assert (intent["phase"], intent["activity_id"]) == ("INTENT", outcome["activity_id"])
    assert {name: outcome[name] for name in ("person", "case")} == {name: intent[name] for name in ("person", "case")}
    return dict(outcome)


def test_a_signed_judgement_is_in_the_log_with_its_digest(unit: Unit) -> None:
    case = unit.searched()
    mine = unit.judged(ANNA, case)
    _cut_short(unit, lambda: unit.desk.examining.sign(ANNA, case.request_id, mine.version))
    outcome = _settled(unit, "sign_first")
    signature = unit.store.examinations(case.request_id)[0].signature
    assert signature is not None
    assert outcome["phase"] == "DONE"
    assert outcome["details"] == {
        "judgement_sha256": signature.judgement_sha256,
        "ordinal": "1",
        "state": CaseState.AWAITING_SECOND_REVIEW.value,
    }
    unit.signed(BERT, case)
    assert [entry["phase"] for entry in unit.audit.entries if "judgement_sha256" in entry["details"]] == [
        "INTENT",
        "DONE",
        "INTENT",
        "DONE",
    ]


def test_a_finding_is_in_the_log(unit: Unit) -> None:
    case = unit.searched()
    comparison = unit.desk.examining.begin(ANNA, case.request_id, unit.version(case))
    candidate = comparison.candidates[0].candidate_id
    unit.desk.examining.open(ANNA, case.request_id, candidate)
    unit.clock.pass_s(6)
    version = unit.desk.examining.comparison(ANNA, case.request_id).version

    def judge() -> object:
        return unit.desk.examining.judge(
            ANNA,
            case.request_id,
            version,
            candidate_id=candidate,
            finding=Finding.POSSIBLE_MATCH,
            features=MATCH,
            remarks="Compared feature by feature.",
        )

    _cut_short(unit, judge)
    outcome = _settled(unit, "judge_candidate")
    assert (outcome["phase"], outcome["details"]["finding"]) == ("DONE", Finding.POSSIBLE_MATCH.value)


def test_a_release_names_whom_it_went_to(unit: Unit) -> None:
    case = unit.decided()
    _cut_short(unit, lambda: unit.desk.deciding.release(BERT, case.request_id, case.version, date(2026, 12, 1)))
    outcome = _settled(unit, "release")
    assert (outcome["phase"], outcome["recipients"]) == ("DONE", ["force:northshire"])
    assert outcome["details"]["potential_names"] == "1"


def test_a_new_request_and_a_training_and_an_approval(unit: Unit) -> None:
    _cut_short(unit, unit.requested)
    outcome = _settled(unit, "submit_request")
    assert (outcome["phase"], outcome["objects"][-1].partition(":")[0]) == ("DONE", "request")
    case = unit.released()
    _cut_short(unit, lambda: unit.desk.documents.approve_disclosure(SUE, case.request_id, "The court", "CPIA"))
    assert _settled(unit, "disclosure_document_approval")["details"]["reason"] == "CPIA"


def test_the_same_request_again_is_the_earlier_one(unit: Unit) -> None:
    first = unit.desk.intake.submit(OFFICER, FORM, [png()], "key-1")
    again = unit.desk.intake.submit(OFFICER, FORM, [png()], "key-1")
    assert again.request_id == first.request_id
    assert unit.audit.entries[-1]["objects"][-1] == f"request:{first.request_id}"


def test_what_was_never_stored_stays_unknown_and_cannot_be_stored_later(unit: Unit) -> None:
    case = unit.requested()
    with (
        pytest.raises(AuditUnavailable),
        unit.desk.trail.act(ANNA.principal, "slow", About.case(case)) as act,
    ):
        unit.clock.pass_s(61)
        unit.desk.trail.sweep()
        assert unit.audit.of("slow") == ["INTENT"], "it runs here"
        CaseTrail(unit.audit, unit.store, unit.clock, Metrics(CollectorRegistry())).sweep()  # another process
        with act.settling() as settles:
            unit.store.save(case, settles=settles)
    assert unit.version(case) == case.version
    assert unit.audit.of("slow") == ["INTENT", "UNKNOWN"]


def test_a_fault_after_it_was_stored_does_not_undo_it(unit: Unit) -> None:
    case = unit.requested()
    with pytest.raises(Conflict), unit.desk.trail.act(ANNA.principal, "broken", About.case(case)) as act:
        with act.settling() as settles:
            unit.store.save(case, settles=settles)
        raise Conflict("Something else.", advice="None.")
    assert unit.audit.of("broken") == ["INTENT", "DONE"]


def test_erasing_is_done_only_when_the_pictures_are_gone(unit: Unit) -> None:
    case = unit.released()
    unit.clock.pass_s(400 * 86_400)
    standing = unit.version(case)
    # The entry of the erasure's outcome is what fails: the pictures are gone, the record alone does not say so.
    _cut_short(unit, lambda: unit.desk.retention.erase(ANNA, case.request_id, standing, "Retention is over."))
    assert _settled(unit, "erase")["phase"] == "UNKNOWN"
