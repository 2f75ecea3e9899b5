"""F22 and A22: two operators at the same moment, and one person who would be two."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from threading import Barrier

import pytest

from services.review.casework.caller import Caller
from services.review.casework.comparison import Comparison
from services.review.model import Case, Finding
from services.review.workflow import Action
from services.shared.errors import Conflict, Forbidden, LikenessError
from tests.unit.review.people import ANNA, BERT, OFFICER, SUE, Unit, person


def at_once(*acts: Callable[[], object]) -> list[object]:
    """Do all at the same moment; answers and errors in order."""
    start = Barrier(len(acts))

    def run(act: Callable[[], object]) -> object:
        start.wait(60)
        try:
            return act()
        except LikenessError as error:
            return error

    with ThreadPoolExecutor(len(acts)) as threads:
        return list(threads.map(run, acts))


def test_f22_of_two_who_take_a_review_on_at_once_one_gets_it(unit: Unit) -> None:
    case = unit.searched()
    answers = at_once(
        lambda: unit.desk.examining.begin(ANNA, case.request_id, case.version),
        lambda: unit.desk.examining.begin(BERT, case.request_id, case.version),
    )
    [won] = [answer for answer in answers if isinstance(answer, Comparison)]
    [lost] = [answer for answer in answers if isinstance(answer, Conflict)]
    assert lost.context["state"] == "in_first_review"
    [examination] = unit.store.examinations(case.request_id)
    assert examination.examination_id == won.examination_id
    outcomes = sorted(
        entry["phase"]
        for entry in unit.audit.entries
        if entry["activity"] == "begin_first" and entry["phase"] != "INTENT"
    )
    assert outcomes == ["DONE", "REFUSED"]


def test_f22_of_two_tabs_that_judge_one_candidate_at_once_one_wins_and_no_note_is_lost(unit: Unit) -> None:
    case = unit.searched()
    unit.desk.examining.begin(ANNA, case.request_id, case.version)
    candidate_id = case.candidates[0].candidate_id
    unit.desk.examining.open(ANNA, case.request_id, candidate_id)
    unit.clock.pass_s(6)
    version = unit.desk.examining.comparison(ANNA, case.request_id).version

    def judge(remarks: str) -> Comparison:
        return unit.desk.examining.judge(
            ANNA,
            case.request_id,
            version,
            candidate_id=candidate_id,
            finding=Finding.NO_SUPPORT,
            features=(),
            remarks=remarks,
        )

    answers = at_once(lambda: judge("Other ears."), lambda: judge("Other nose."))
    [won] = [answer for answer in answers if isinstance(answer, Comparison)]
    [lost] = [answer for answer in answers if isinstance(answer, Conflict)]
    assert (won.remaining, lost.code) == (2, "changed_meanwhile")
    # The one who lost can send the note again, on top of the other's: both are on record then.
    again = unit.desk.examining.judge(
        ANNA,
        case.request_id,
        won.version,
        candidate_id=candidate_id,
        finding=Finding.NO_SUPPORT,
        features=(),
        remarks="Again.",
    )
    [examination] = unit.store.examinations(case.request_id)
    assert [len(examination.adjudications), again.remaining] == [2, 2]


def refusal(act: Callable[[], object]) -> list[str]:
    with pytest.raises(Forbidden) as refused:
        act()
    return list(refused.value.context["reasons"])


def test_a22_nobody_reviews_their_own_judgement(unit: Unit) -> None:
    case = unit.searched()
    signed = unit.signed(ANNA, case)
    again = person("anna", "operator", "supervisor", "administrator")  # more roles make nobody another person
    for who in (ANNA, again):
        assert refusal(lambda who=who: unit.desk.examining.begin(who, case.request_id, signed.version)) == [  # type: ignore[misc]
            "already_examined"
        ]
    assert Action.BEGIN_SECOND not in unit.desk.looking.case(ANNA, case.request_id).possible
    assert Action.BEGIN_SECOND in unit.desk.looking.case(BERT, case.request_id).possible


def test_a22_nor_judges_or_releases_their_own_request(unit: Unit) -> None:
    both = person("officer", "requester", "operator")
    case = unit.searched()
    assert refusal(lambda: unit.desk.examining.begin(both, case.request_id, case.version)) == ["own_request"]
    unit.signed(ANNA, case)
    decided = unit.signed(BERT, case)
    release = unit.desk.deciding.release
    assert refusal(lambda: release(both, case.request_id, decided.version, date(2026, 12, 1))) == ["own_request"]


@pytest.mark.parametrize("role", ["auditor", "inspector"])
def test_who_reads_the_log_is_not_blind_and_judges_nobody(unit: Unit, role: str) -> None:
    """The log says what the first examiner found as soon as it is recorded, and which probe is planted; what may be
    published leaves that one out at once."""
    case = unit.searched()
    reader = person("bert", "operator", role)
    assert refusal(lambda: unit.desk.examining.begin(reader, case.request_id, case.version)) == ["reads_the_log"]
    assert Action.BEGIN_FIRST not in unit.desk.looking.case(reader, case.request_id).possible
    comparison = unit.judged(BERT, case)
    sign = unit.desk.examining.sign
    assert refusal(lambda: sign(reader, case.request_id, comparison.version)) == ["reads_the_log"]
    assert sign(BERT, case.request_id, comparison.version).version > case.version


def test_a22_nor_decides_a_disagreement_that_is_theirs(unit: Unit) -> None:
    boss = person("boss", "operator", "supervisor")
    case = unit.searched()
    unit.signed(boss, case, frozenset({"S1"}))
    disputed = unit.signed(BERT, case)
    [candidate] = [one for one in case.candidates if one.subject_id == "S1"]
    decide = {
        "findings": {candidate.candidate_id: Finding.POSSIBLE_MATCH},
        "reasons": {candidate.candidate_id: "I said so."},
    }
    arbitrate = unit.desk.deciding.arbitrate
    assert refusal(lambda: arbitrate(boss, case.request_id, disputed.version, **decide)) == [  # type: ignore[arg-type]
        "already_examined"
    ]


@pytest.mark.parametrize(
    "who",
    [
        person("carl", "operator", trained_until=None),
        person("carl", "operator", trained_until=date(2026, 6, 1)),
    ],
    ids=["never", "until today"],
)
def test_who_is_not_trained_today_does_not_judge(unit: Unit, who: Caller) -> None:
    case = unit.searched()
    assert refusal(lambda: unit.desk.examining.begin(who, case.request_id, case.version)) == ["not_trained"]


def test_a_training_that_lapses_while_judging_is_found_at_signing(unit: Unit) -> None:
    case = unit.searched()
    comparison = unit.judged(ANNA, case)
    record_training(unit, "anna", expires_on=date(2026, 6, 3))
    unit.clock.pass_s(3 * 24 * 3600)
    assert refusal(lambda: unit.desk.examining.sign(ANNA, case.request_id, comparison.version)) == ["not_trained"]


def test_a_supervisors_record_makes_somebody_trained_whom_the_token_does_not_name(unit: Unit) -> None:
    carl = person("carl", "operator", trained_until=None)
    record_training(unit, "carl", expires_on=date(2027, 6, 3))
    case = unit.searched()
    unit.signed(carl, case)
    [examination] = unit.store.examinations(case.request_id)
    assert examination.signature is not None
    assert examination.signature.trained_on == date(2026, 1, 5)
    with pytest.raises(Forbidden) as refused:
        record_training(unit, "sue", expires_on=date(2027, 6, 3))
    assert refused.value.context["reasons"] == ["own_training"]


def record_training(unit: Unit, person_id: str, expires_on: date) -> None:
    unit.desk.supervision.record_training(
        SUE,
        person_id,
        course="Facial comparison",
        certificate="FC-1",
        trained_on=date(2026, 1, 5),
        expires_on=expires_on,
    )


def test_the_wrong_role_does_nothing(unit: Unit) -> None:
    case: Case = unit.searched()
    for who in (OFFICER, SUE, person("aud", "auditor"), person("adm", "administrator"), person("cus", "custodian")):
        assert refusal(lambda who=who: unit.desk.examining.begin(who, case.request_id, case.version)) == [  # type: ignore[misc]
            "role_missing"
        ]


def test_a22_one_person_whose_name_is_typed_otherwise_is_no_second_one(unit: Unit) -> None:
    case = unit.searched()
    unit.signed(ANNA, case)
    for spelling in ("Anna", "ANNA", "\uff41nna"):
        with pytest.raises(Forbidden) as refused:
            unit.desk.examining.begin(person(spelling, "operator"), case.request_id, unit.version(case))
        assert refused.value.context["reasons"] == ["already_examined"]
    own = person(OFFICER.person_id.upper(), "operator")
    with pytest.raises(Forbidden) as refused:
        unit.desk.examining.begin(own, case.request_id, unit.version(case))
    assert refused.value.context["reasons"] == ["own_request"]
    unit.signed(BERT, case)
