"""A probe that search flags: nothing is made of its candidates before a supervisor has allowed it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest

from services.review.api_models import request_status
from services.review.casework.flagged import undecided
from services.review.model import Case, CaseState, EnhancementStep, StepKind
from services.review.workflow import TRANSITIONS, Action
from services.shared.errors import Conflict, Forbidden, InvalidRequest
from tests.unit.review.people import ANNA, BERT, OFFICER, SUE, Unit, person


@pytest.fixture
def flagged(unit: Unit) -> Case:
    unit.search.flags = ("line_art", "missing_noise")
    return unit.searched()


def test_the_candidates_of_a_flagged_probe_wait_for_a_supervisor(unit: Unit, flagged: Case) -> None:
    assert flagged.state is CaseState.FLAGGED
    with pytest.raises(Conflict) as refused:
        unit.desk.examining.begin(ANNA, flagged.request_id, flagged.version)
    assert refused.value.code == "illegal_transition"
    # Searching again, or another recipe, is no way round.
    probe = flagged.probes[0].probe_id
    with pytest.raises(Conflict):
        unit.desk.searching(
            ANNA, flagged.request_id, flagged.version, probe_id=probe, enhancement_id=None, reason="Once more."
        )
    assert unit.desk.looking.case(ANNA, flagged.request_id).possible == ()
    assert set(unit.desk.looking.case(SUE, flagged.request_id).possible) == {Action.ALLOW_PROBE, Action.REFUSE_PROBE}


def test_there_is_one_way_from_a_flagged_probe_to_a_judgement_and_it_is_a_supervisors() -> None:
    ways = {(action, target) for (source, action), target in TRANSITIONS.items() if source is CaseState.FLAGGED}
    assert ways == {
        (Action.ALLOW_PROBE, CaseState.SEARCHED),
        (Action.REFUSE_PROBE, CaseState.UNSUITABLE),
    }


def test_an_allowed_probe_is_judged_and_the_result_says_what_spoke_against_it(unit: Unit, flagged: Case) -> None:
    allowed = unit.desk.flagged.allow(SUE, flagged.request_id, flagged.version, "A photograph of a screen.")
    assert allowed.state is CaseState.SEARCHED
    unit.signed(ANNA, allowed)
    decided = unit.signed(BERT, allowed)
    released = unit.desk.deciding.release(BERT, decided.request_id, decided.version, date(2026, 12, 1))
    assert released.release is not None
    said = " ".join(released.release.statements)
    assert "Told of line_art. Told of missing_noise." in said
    assert "Supervisor sue allowed it on 2026-06-01: A photograph of a screen." in said
    assert "flagged probe allowed" in [item.what for item in unit.desk.looking.case(ANNA, released.request_id).history]
    [entry] = [one for one in unit.audit.entries if one["activity"] == "allow_probe" and one["phase"] == "DONE"]
    assert entry["details"]["flags"] == "line_art,missing_noise"
    assert f"probe:{released.probes[0].original.sha256}" in entry["objects"]


def test_a_refused_probe_ends_the_case_and_the_requester_reads_why(unit: Unit, flagged: Case) -> None:
    ended = unit.desk.flagged.refuse(SUE, flagged.request_id, flagged.version, "It is a drawing.")
    assert ended.state is CaseState.UNSUITABLE
    seen = unit.desk.looking.case(OFFICER, flagged.request_id).case
    assert request_status(seen).reason == "It is a drawing."
    assert (seen.searches, seen.candidates) == ((), ())


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (ANNA, "role_missing"),
        (person("officer", "supervisor"), "own_request"),
        (person("anna", "operator", "supervisor"), "searched_it"),
    ],
)
@pytest.mark.parametrize("decision", ["allow", "refuse"])
def test_neither_the_requester_nor_who_searched_it_decides(
    unit: Unit, flagged: Case, who: object, reason: str, decision: str
) -> None:
    decide: Callable[..., Case] = getattr(unit.desk.flagged, decision)
    with pytest.raises(Forbidden) as refused:
        decide(who, flagged.request_id, flagged.version, "Because.")
    assert refused.value.context["reasons"] == [reason]


def test_a_decision_has_a_reason_and_is_for_what_was_seen(unit: Unit, flagged: Case) -> None:
    with pytest.raises(InvalidRequest):
        unit.desk.flagged.allow(SUE, flagged.request_id, flagged.version, " ")
    with pytest.raises(Conflict) as refused:
        unit.desk.flagged.allow(SUE, flagged.request_id, flagged.version - 1, "A screen.")
    assert refused.value.code == "changed_meanwhile"


def test_a_decision_is_of_one_picture_and_of_the_flags_that_it_had(unit: Unit, flagged: Case) -> None:
    allowed = unit.desk.flagged.allow(SUE, flagged.request_id, flagged.version, "A photograph of a screen.")
    probe = allowed.probes[0].probe_id

    def searched(case: Case, enhancement_id: str | None = None) -> Case:
        return unit.desk.searching(
            ANNA, case.request_id, case.version, probe_id=probe, enhancement_id=enhancement_id, reason="Once more."
        )

    again = searched(allowed)
    assert again.state is CaseState.SEARCHED, "the same picture with the same flags was decided"
    enhanced = unit.desk.probes.enhance(
        ANNA,
        again.request_id,
        again.version,
        probe_id=probe,
        steps=[EnhancementStep(StepKind.MIRROR)],
        reason="Mirrored by the camera.",
    )
    copied = searched(enhanced, enhanced.probes[0].enhancements[0].enhancement_id)
    assert copied.state is CaseState.FLAGGED, "the copy is another picture"
    allowed = unit.desk.flagged.allow(SUE, copied.request_id, copied.version, "The same screen.")
    unit.search.flags = ("file_says_generated",)
    assert searched(allowed).state is CaseState.FLAGGED, "a flag that nobody has seen"


def test_search_may_ask_for_a_supervisor_without_naming_a_flag(unit: Unit) -> None:
    case = unit.searched()
    [record] = case.searches
    unnamed = replace(record, answer={**record.answer, "probe": {"flags": [], "needs_supervisor": True}})
    assert undecided((record,), ()) == ()
    assert len(undecided((unnamed,), ())) == 1
    # Answers of before there were flags.
    assert undecided((replace(record, answer={}),), ()) == ()


def test_an_unsolved_probe_that_is_flagged_when_it_is_searched_again_waits_too(unit: Unit) -> None:
    released = unit.released(frozenset())
    kept = unit.desk.retention.keep_unsolved(
        BERT, released.request_id, released.version, authority="DCI Holt", reason="Series.", expires_on=date(2027, 1, 1)
    )
    unit.search.count, unit.search.flags = 4, ("line_art",)
    done = unit.desk.retention.search_again(ANNA, kept.request_id, kept.version, "New enrolments.")
    assert done.continuation is not None
    assert done.continuation.state is CaseState.FLAGGED
