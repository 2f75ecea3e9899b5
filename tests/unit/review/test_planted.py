"""A planted probe is told from no other before it is closed: not by a step that is refused, nor by what may be done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from services.review.model import Case, CaseState
from services.review.workflow import Action
from services.shared.errors import CallerError, Conflict, Forbidden, InvalidRequest
from tests.unit.review.people import ANNA, BERT, FORM, SUE, Unit, person, png

UNTIL = date(2026, 12, 1)


def planted(unit: Unit) -> Case:
    return unit.desk.intake.plant(SUE, FORM, [png()], ("northshire", "S2"), "officer")


def searched(unit: Unit, case: Case) -> Case:
    case = unit.assess(unit.desk.triage.accept(ANNA, case.request_id, case.version, "Lawful and needed."))
    probe_id = case.probes[0].probe_id
    return unit.desk.searching(
        ANNA, case.request_id, case.version, probe_id=probe_id, enhancement_id=None, reason="First search."
    )


def refused(release: Callable[[], object], unit: Unit) -> tuple[str, str, str, object, object, str]:
    """What the caller is told, and how the log names it."""
    with pytest.raises(CallerError) as told:
        release()
    error, entry = told.value, unit.audit.entries[-1]
    return error.code, error.detail, error.advice, error.context, entry["phase"], entry["activity"]


@pytest.mark.parametrize("stage", ["received", "searched", "judged once"])
def test_a_release_that_comes_too_early_is_refused_in_the_same_words(unit: Unit, stage: str) -> None:
    told = []
    for case in (unit.requested(), planted(unit)):
        if stage != "received":
            searched(unit, case)
        if stage == "judged once":
            unit.signed(ANNA, standing(unit, case), frozenset({"S2"}))
        version = unit.version(case)

        def release(case: Case = case, version: int = version) -> object:
            return unit.desk.deciding.release(BERT, case.request_id, version, UNTIL)

        told.append(refused(release, unit))
    assert told[0] == told[1]
    assert told[0][0] == "illegal_transition"
    assert told[0][-1] == "release"


def standing(unit: Unit, case: Case) -> Case:
    found = unit.store.find(case.request_id)
    assert found is not None
    return found


def test_nobody_releases_what_is_shown_as_their_own_nor_is_offered_it(unit: Unit) -> None:
    shown = person("officer", "operator", "requester")
    for received in (unit.requested(), planted(unit)):
        case = searched(unit, received)
        unit.signed(ANNA, case, frozenset({"S2"}))
        decided = unit.signed(BERT, case, frozenset({"S2"}))
        assert Action.RELEASE not in unit.desk.looking.case(shown, case.request_id).possible
        with pytest.raises(Forbidden) as told:
            unit.desk.deciding.release(shown, case.request_id, decided.version, UNTIL)
        assert told.value.context["reasons"] == ["own_request"]
        with pytest.raises(InvalidRequest):
            unit.desk.deciding.release(BERT, case.request_id, decided.version, date(2026, 6, 1))
        ended = unit.desk.deciding.release(BERT, case.request_id, decided.version, UNTIL)
        assert ended.state in {CaseState.RELEASED, CaseState.CLOSED}


def test_an_earlier_version_is_refused_in_the_same_words(unit: Unit) -> None:
    told = []
    for case in (unit.requested(), planted(unit)):
        with pytest.raises(Conflict) as error:
            unit.desk.deciding.release(BERT, case.request_id, case.version + 5, UNTIL)
        told.append((error.value.code, error.value.detail, unit.audit.entries[-1]["activity"]))
    assert told[0] == told[1]
