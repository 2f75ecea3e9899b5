"""The way of a case from request to outcome, and who may take which step of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from itertools import product

import pytest

from services.review.model import (
    CaseState,
    FacialFeature,
    FeatureRemark,
    Finding,
    Observation,
    OutcomeKind,
    Suitability,
)
from services.review.workflow import TRANSITIONS, Action, following
from services.shared.errors import AuditUnavailable, Conflict, Forbidden, InvalidRequest, LikenessError, NotFound
from services.shared.ids import new_id
from tests.unit.review.people import ANNA, BERT, FORM, NOW, OFFICER, SUE, WATCHLISTS, Unit, person, png

STRANGER = person("anna", "operator", "requester", "supervisor", force="eastmoor")


def test_a_case_from_request_to_outcome(unit: Unit) -> None:
    case = unit.released()
    assert case.state is CaseState.RELEASED
    assert case.release is not None
    assert [name.subject_id for name in case.release.names] == ["S2"]
    said = " ".join(case.release.statements)
    for words in (
        "FOR INTELLIGENCE PURPOSES ONLY",
        "must not be the sole basis",
        "first reviewer anna",
        "second reviewer bert",
        "107500 references were searchable, 12 were not",
        "look-alikes",
        "eyes 70 px apart",
        "Enhancement: none",
        case.probes[0].original.sha256,
        "custody of northshire",
        "negatives are relevant material for disclosure",
        "Model m1",
        "NS/2026/1",
        "2026-12-01",
        case.release.audit.code,
    ):
        assert words in said
    assert "%" not in said
    result = unit.desk.looking.result(OFFICER, case.request_id)
    assert [name.subject_id for name in result.release.names] == ["S2"]
    closed = unit.desk.deciding.record_outcome(OFFICER, case.request_id, case.version, OutcomeKind.CHARGED, "")
    assert closed.state is CaseState.CLOSED


def test_no_potential_name_is_released_too_and_says_that_absence_proves_nothing(unit: Unit) -> None:
    case = unit.released(frozenset())
    assert case.release is not None
    assert case.release.names == ()
    assert "The absence of a name does not mean that the person is not on the database." in " ".join(
        case.release.statements
    )
    kept = unit.desk.retention.keep_unsolved(
        BERT, case.request_id, case.version, authority="DCI Holt", reason="Series.", expires_on=date(2027, 1, 1)
    )
    assert kept.state is CaseState.UNSOLVED
    assert unit.desk.retention.close(BERT, kept.request_id, kept.version, "Solved otherwise.").state is CaseState.CLOSED


def test_an_incomplete_request_names_everything_that_is_missing(unit: Unit) -> None:
    with pytest.raises(InvalidRequest) as refused:
        unit.desk.intake.submit(OFFICER, {"offence": ["x"], "force": ["eastmoor"]}, [])
    named = {field["field"] for field in refused.value.context["fields"]}
    assert named == (FORM.keys() - {"offence"}) | {"images", "force"}
    assert unit.audit.of("submit_request") == ["REFUSED"]


@pytest.mark.parametrize("nature", ["drawing", "composite", "look_alike", "generated"])
def test_what_is_no_picture_of_a_person_is_refused_as_a_probe(unit: Unit, nature: str) -> None:
    with pytest.raises(InvalidRequest, match="nature"):
        unit.requested(nature=[nature])


@pytest.mark.parametrize("nature", ["retouched", "rephotographed"])
def test_what_is_no_plain_photograph_is_searched_by_that_name(unit: Unit, nature: str) -> None:
    unit.searched(nature=[nature])
    assert {request.nature for _, request in unit.search.asked} == {nature}


def test_triage_refuses_what_a_watchlist_is_not_for(unit: Unit) -> None:
    case = unit.requested(case_type=["witness"], watchlists=["sex_offenders"])
    with pytest.raises(Forbidden) as refused:
        unit.desk.triage.accept(ANNA, case.request_id, case.version, "Lawful and needed.")
    assert refused.value.context["reasons"] == ["case_type_not_permitted"]
    back = unit.desk.triage.send_back(ANNA, case.request_id, case.version, "Not for witnesses.")
    assert back.state is CaseState.RETURNED


def test_an_agreement_that_ended_keeps_a_name_from_being_released(unit: Unit) -> None:
    unit.search.watchlist, unit.search.owner = "op_liberal", "eastmoor"
    case = unit.searched(watchlists=["op_liberal"])
    unit.signed(ANNA, case, frozenset({"S2"}))
    decided = unit.signed(BERT, case, frozenset({"S2"}))
    unit.agreements.ended.add("eastmoor")
    with pytest.raises(Conflict) as refused:
        unit.desk.deciding.release(BERT, case.request_id, decided.version, date(2026, 12, 1))
    assert refused.value.code == "agreement_ended"
    unit.agreements.ended = {"northshire"}
    with pytest.raises(Forbidden) as denied:
        unit.desk.deciding.release(BERT, case.request_id, decided.version, date(2026, 12, 1))
    assert denied.value.context["reasons"] == ["no_agreement_in_force"]
    unit.agreements.ended = set()
    released = unit.desk.deciding.release(BERT, case.request_id, decided.version, date(2026, 12, 1))
    assert released.release is not None
    assert [name.agreement for name in released.release.names] == ["AGR-op_liberal-eastmoor"]


def test_an_unsuitable_probe_ends_the_case(unit: Unit) -> None:
    case = unit.requested()
    case = unit.desk.triage.accept(ANNA, case.request_id, case.version, "Lawful and needed.")
    ended = unit.desk.probes.assess(
        ANNA,
        case.request_id,
        case.version,
        probe_id=case.probes[0].probe_id,
        face=0,
        grade=Suitability.UNSUITABLE,
        remarks="Half the face is hidden.",
    )
    assert ended.state is CaseState.UNSUITABLE


def test_a_grade_better_than_measured_has_to_be_explained(unit: Unit) -> None:
    unit.embed.inter_eye_px = 10
    with pytest.raises(InvalidRequest, match="remarks"):
        case = unit.requested()
        case = unit.desk.triage.accept(ANNA, case.request_id, case.version, "Lawful and needed.")
        unit.desk.probes.assess(
            ANNA,
            case.request_id,
            case.version,
            probe_id=case.probes[0].probe_id,
            face=0,
            grade=Suitability.SUITABLE,
            remarks="",
        )


def test_what_is_not_in_the_table_does_not_exist() -> None:
    illegal = set(product(CaseState, Action)) - TRANSITIONS.keys()
    assert len(illegal) > 200
    for state, action in illegal:
        with pytest.raises(Conflict) as refused:
            following(state, action)
        assert refused.value.code == "illegal_transition"
    released = {source for (source, action), _ in TRANSITIONS.items() if action is Action.RELEASE}
    assert released == {CaseState.DECIDED}
    into = {action for (_, action), state in TRANSITIONS.items() if state is CaseState.DECIDED}
    assert into == {Action.SIGN_SECOND_AGREEING, Action.ARBITRATE}


def test_every_candidate_is_judged_before_signing(unit: Unit) -> None:
    case = unit.searched()
    comparison = unit.desk.examining.begin(ANNA, case.request_id, case.version)
    comparison = unit.judge(ANNA, case, comparison.candidates[0].candidate_id, is_match=False)
    with pytest.raises(Conflict) as refused:
        unit.desk.examining.sign(ANNA, case.request_id, comparison.version)
    assert refused.value.code == "not_all_judged"
    assert refused.value.context["remaining"] == 2


def test_a_candidate_is_judged_after_the_minimum_viewing_time_only(unit: Unit) -> None:
    case = unit.searched()
    comparison = unit.desk.examining.begin(ANNA, case.request_id, case.version)
    candidate_id = comparison.candidates[0].candidate_id
    judgement = {"candidate_id": candidate_id, "finding": Finding.NO_SUPPORT, "features": (), "remarks": "Other ears."}
    for opened_s in (None, 4.9):
        if opened_s is not None:
            unit.desk.examining.open(ANNA, case.request_id, candidate_id)
            unit.clock.pass_s(opened_s)
        version = unit.desk.examining.comparison(ANNA, case.request_id).version
        with pytest.raises(Conflict) as refused:
            unit.desk.examining.judge(ANNA, case.request_id, version, **judgement)  # type: ignore[arg-type]
        assert refused.value.code == "not_viewed_long_enough"
    unit.clock.pass_s(0.1)
    judged = unit.desk.examining.judge(ANNA, case.request_id, version, **judgement)  # type: ignore[arg-type]
    assert judged.remaining == 2


def test_rank_score_and_biography_are_hidden_until_judged(unit: Unit) -> None:
    case = unit.searched()
    seen = unit.desk.looking.case(ANNA, case.request_id).case
    assert seen.candidates == ()
    assert {record.search_id for record in seen.searches} == {""}
    assert "search_id" not in seen.searches[0].answer
    comparison = unit.desk.examining.begin(ANNA, case.request_id, case.version)
    assert {candidate.revealed for candidate in comparison.candidates} == {None}
    first = comparison.candidates[0].candidate_id
    comparison = unit.judge(ANNA, case, first, is_match=False)
    revealed = comparison.candidates[0].revealed
    assert revealed is not None
    assert revealed.subject_id.startswith("S")
    # By the id of a search its whole list could be asked for, of those too who are not judged yet.
    assert [one.search_id for one in revealed.appearances] == [""]
    assert {candidate.revealed for candidate in comparison.candidates[1:]} == {None}


def test_a_possible_match_names_features_and_every_finding_a_reason(unit: Unit) -> None:
    case = unit.searched()
    comparison = unit.desk.examining.begin(ANNA, case.request_id, case.version)
    candidate_id = comparison.candidates[0].candidate_id
    unit.desk.examining.open(ANNA, case.request_id, candidate_id)
    unit.clock.pass_s(6)
    version = unit.desk.examining.comparison(ANNA, case.request_id).version
    hidden = tuple(FeatureRemark(feature, Observation.NOT_COMPARABLE) for feature in list(FacialFeature)[:5])
    for finding, features, remarks in (
        (Finding.POSSIBLE_MATCH, hidden, "Looks like him."),
        (Finding.NO_SUPPORT, (), " "),
    ):
        with pytest.raises(InvalidRequest):
            unit.desk.examining.judge(
                ANNA,
                case.request_id,
                version,
                candidate_id=candidate_id,
                finding=finding,
                features=features,
                remarks=remarks,
            )


def test_a_judgement_can_be_undone_until_signed_and_stays_on_record(unit: Unit) -> None:
    case = unit.searched()
    comparison = unit.judged(ANNA, case)
    candidate_id = comparison.candidates[0].candidate_id
    undone = unit.desk.examining.undo(ANNA, case.request_id, comparison.version, candidate_id)
    assert undone.remaining == 1
    again = unit.judge(ANNA, case, candidate_id, is_match=True)
    signed = unit.desk.examining.sign(ANNA, case.request_id, again.version)
    assert signed.state is CaseState.AWAITING_SECOND_REVIEW
    with pytest.raises(Conflict) as refused:
        unit.desk.examining.undo(ANNA, case.request_id, again.version + 1, candidate_id)
    assert refused.value.code == "already_signed"
    [examination] = unit.store.examinations(case.request_id)
    assert len(examination.adjudications) == 5


def test_the_second_reviewer_finds_nothing_of_the_first(unit: Unit) -> None:
    case = unit.searched()
    unit.signed(ANNA, case, frozenset({"S1"}))
    seen = unit.desk.looking.case(BERT, case.request_id)
    assert (seen.case.candidates, dict(seen.case.decided)) == ((), {})
    with pytest.raises(Conflict) as refused:
        unit.desk.examining.comparison(BERT, case.request_id)
    assert refused.value.code == "not_your_examination"
    candidate_id = case.candidates[0].candidate_id
    with pytest.raises(NotFound):
        unit.desk.pictures.reference(BERT, case.request_id, candidate_id, "any")
    begun = unit.desk.examining.begin(BERT, case.request_id, unit.version(case))
    assert begun.ordinal == 2
    assert all(one.adjudication is None and one.revealed is None for one in begun.candidates)
    for reader in (SUE, OFFICER, ANNA):
        assert unit.desk.looking.case(reader, case.request_id).case.decided == {}
    with pytest.raises(Conflict):
        unit.desk.deciding.disagreement(SUE, case.request_id)
    for read in (unit.desk.looking.result, unit.desk.documents.result):
        with pytest.raises(NotFound):
            read(BERT, case.request_id)
    with pytest.raises(NotFound):
        unit.desk.documents.disclosure(BERT, case.request_id, new_id())


def test_orders_differ_between_examiners_and_tell_nothing(unit: Unit) -> None:
    unit.search.count = 40
    case = unit.searched()
    first = unit.desk.examining.begin(ANNA, case.request_id, case.version)
    ranks = {one.candidate_id: one.appearances[0].rank for one in case.candidates}
    assert [ranks[one.candidate_id] for one in first.candidates] != sorted(ranks.values())
    assert "rank" not in repr(first)


def test_a_disagreement_goes_to_a_supervisor_who_is_a_third_person(unit: Unit) -> None:
    case = unit.searched()
    unit.signed(ANNA, case, frozenset({"S1"}))
    disputed = unit.signed(BERT, case, frozenset())
    assert disputed.state is CaseState.DISPUTED
    both = unit.desk.deciding.disagreement(SUE, case.request_id)
    [candidate] = both.disputed
    assert candidate.subject_id == "S1"
    decision = {
        "findings": {candidate.candidate_id: Finding.INCONCLUSIVE},
        "reasons": {candidate.candidate_id: "Blur."},
    }
    bert_as_supervisor = person("bert", "operator", "supervisor")
    with pytest.raises(Forbidden) as refused:
        unit.desk.deciding.arbitrate(bert_as_supervisor, case.request_id, disputed.version, **decision)  # type: ignore[arg-type]
    assert refused.value.context["reasons"] == ["already_examined"]
    decided = unit.desk.deciding.arbitrate(SUE, case.request_id, disputed.version, **decision)  # type: ignore[arg-type]
    released = unit.desk.deciding.release(BERT, case.request_id, decided.version, date(2026, 12, 1))
    assert released.release is not None
    assert released.release.names == ()
    assert "supervisor who decided their disagreement sue" in " ".join(released.release.statements)


def test_two_negatives_of_different_degree_are_no_disagreement(unit: Unit) -> None:
    case = unit.searched()
    unit.signed(ANNA, case)
    comparison = unit.judged(BERT, case)
    candidate_id = comparison.candidates[0].candidate_id
    comparison = unit.desk.examining.judge(
        BERT,
        case.request_id,
        comparison.version,
        candidate_id=candidate_id,
        finding=Finding.INCONCLUSIVE,
        features=(),
        remarks="Too dark.",
    )
    decided = unit.desk.examining.sign(BERT, case.request_id, comparison.version)
    assert decided.state is CaseState.DECIDED
    assert decided.decided[candidate_id] is Finding.INCONCLUSIVE


def test_a_known_answer_probe_looks_like_any_other_and_is_never_released(unit: Unit) -> None:
    case = unit.desk.intake.plant(SUE, FORM, [png()], ("northshire", "S2"), "PC 4711")
    rows = unit.desk.looking.queue(ANNA)
    assert [row.requested_by for row in rows] == ["PC 4711"]
    seen = unit.desk.looking.case(ANNA, case.request_id)
    assert seen.case.known_answer is None
    assert "sue" not in repr(seen)
    case = unit.desk.triage.accept(ANNA, case.request_id, case.version, "Lawful and needed.")
    probe = case.probes[0].probe_id
    case = unit.desk.probes.assess(
        ANNA, case.request_id, case.version, probe_id=probe, face=0, grade=Suitability.SUITABLE, remarks=""
    )
    case = unit.desk.searching(
        ANNA, case.request_id, case.version, probe_id=probe, enhancement_id=None, reason="First search."
    )
    unit.signed(ANNA, case, frozenset({"S2"}))
    # Nor does a figure tell it to a supervisor who may be the second reviewer, or how the first one did.
    figures = unit.desk.supervision.figures(person("boss", "operator", "supervisor"))
    assert (figures.known_answers, figures.unsuitable.of) == ([], 1)
    decided = unit.signed(BERT, case, frozenset({"S2"}))
    assert Action.RELEASE in unit.desk.looking.case(BERT, case.request_id).possible
    closed = unit.desk.deciding.release(BERT, case.request_id, decided.version, date(2026, 12, 1))
    assert (closed.state, closed.release) == (CaseState.CLOSED, None)
    figures = unit.desk.supervision.figures(SUE)
    assert [(one.examiner, one.right.count, one.right.of) for one in figures.known_answers] == [
        ("anna", 1, 1),
        ("bert", 1, 1),
    ]
    assert figures.with_name.of == 0


def test_who_works_here_sees_no_result_of_a_watchlist_that_is_not_theirs(unit: Unit) -> None:
    case = unit.released()
    own = unit.desk.looking.result(person("officer", "requester", watchlists=frozenset()), case.request_id)
    assert len(own.release.names) == 1
    for role in ("operator", "supervisor"):
        other = person("dora", role, "requester", watchlists=WATCHLISTS - {"custody"})
        with pytest.raises(NotFound):
            unit.desk.looking.result(other, case.request_id)
        with pytest.raises(NotFound):
            unit.desk.documents.result(other, case.request_id)


def test_another_force_finds_nothing_by_any_route(unit: Unit) -> None:
    case = unit.released()
    desk, request_id = unit.desk, case.request_id
    candidate = case.candidates[0]
    routes: list[Callable[[], object]] = [
        lambda: desk.looking.case(STRANGER, request_id),
        lambda: desk.looking.result(STRANGER, request_id),
        lambda: desk.documents.result(STRANGER, request_id),
        lambda: desk.documents.disclosure(STRANGER, request_id, new_id()),
        lambda: desk.examining.comparison(STRANGER, request_id),
        lambda: desk.examining.begin(STRANGER, request_id, case.version),
        lambda: desk.pictures.probe(STRANGER, request_id, case.probes[0].probe_id),
        lambda: desk.pictures.reference(STRANGER, request_id, candidate.candidate_id, candidate.reference_id),
        lambda: desk.deciding.disagreement(STRANGER, request_id),
        lambda: desk.deciding.record_outcome(STRANGER, request_id, case.version, OutcomeKind.CHARGED, ""),
        lambda: desk.intake.withdraw(STRANGER, request_id, case.version),
        lambda: desk.triage.accept(STRANGER, request_id, case.version, "Mine."),
    ]
    for route in routes:
        with pytest.raises(NotFound):
            route()
    assert list(unit.desk.looking.queue(STRANGER)) == []


def test_the_operators_own_token_goes_to_search_and_nobody_elses(unit: Unit) -> None:
    unit.searched()
    [(bearer, request)] = unit.search.asked
    assert bearer == "token-of-anna"
    assert (request.case_reference, request.case_type, request.mode) == ("NS/2026/1", "suspect", "investigation")


def test_nothing_is_done_and_nothing_shown_without_the_audit_log(unit: Unit) -> None:
    case = unit.searched()
    unit.audit.is_down = True
    desk, request_id = unit.desk, case.request_id
    acts: list[Callable[[], object]] = [
        lambda: desk.intake.submit(OFFICER, FORM, [png()]),
        lambda: desk.examining.begin(ANNA, request_id, case.version),
        lambda: desk.looking.case(ANNA, request_id),
        lambda: desk.looking.queue(ANNA),
        lambda: desk.pictures.probe(ANNA, request_id, case.probes[0].probe_id),
        lambda: desk.supervision.figures(SUE),
        lambda: desk.triage.accept(OFFICER, request_id, case.version, "Mine."),
    ]
    for act in acts:
        with pytest.raises(AuditUnavailable):
            act()
    assert unit.store.examinations(request_id) == []
    assert unit.version(case) == case.version


def test_every_step_has_an_intent_before_it_and_one_outcome(unit: Unit) -> None:
    case = unit.released()
    by_activity: dict[str, list[str]] = {}
    for entry in unit.audit.entries:
        by_activity.setdefault(entry["activity_id"], []).append(entry["phase"])
    assert {tuple(phases) for phases in by_activity.values()} == {("INTENT", "DONE"), ("DONE",)}
    release = [entry for entry in unit.audit.entries if entry["activity"] == "release"]
    assert release[0]["operation"] == "DISCLOSURE"
    assert release[1]["recipients"] == ["force:northshire"]
    assert case.release is not None
    assert case.release.audit.sequence == unit.audit.entries.index(release[0])
    assert unit.store.open_acts(unit.clock.now(), 10) == []


def test_what_a_crash_left_open_gets_its_outcome(unit: Unit) -> None:
    case = unit.requested()
    unit.audit.down_after = 1  # the intent is written, the outcome is not
    with pytest.raises(AuditUnavailable):
        unit.desk.triage.accept(ANNA, case.request_id, case.version, "Lawful and needed.")
    unit.audit.down_after = None
    unit.desk.trail.sweep()
    assert unit.audit.of("accept") == ["INTENT"]
    unit.clock.pass_s(61)
    unit.desk.trail.sweep()
    unit.desk.trail.sweep()
    assert unit.audit.of("accept") == ["INTENT", "DONE"], "it was stored"


def test_supervisors_see_shares_with_denominators(unit: Unit) -> None:
    unit.released()
    unit.released(frozenset())
    figures = unit.desk.supervision.figures(SUE)
    assert (figures.with_name.count, figures.with_name.of) == (1, 2)
    assert figures.with_name.low is not None
    assert 0 < figures.with_name.low < 0.5
    assert (figures.agreement.count, figures.agreement.of) == (2, 2)
    assert [one.signed for one in figures.examiners] == [2, 2]
    with pytest.raises(Forbidden):
        unit.desk.supervision.figures(ANNA)


def test_the_same_key_makes_one_request(unit: Unit) -> None:
    first = unit.desk.intake.submit(OFFICER, FORM, [png()], "key-1")
    again = unit.desk.intake.submit(OFFICER, FORM, [png()], "key-1")
    assert again.request_id == first.request_id
    with pytest.raises(Conflict) as refused:
        unit.desk.intake.submit(OFFICER, {**FORM, "offence": ["theft"]}, [png()], "key-1")
    assert refused.value.code == "idempotency_key_reused"


def test_a_withdrawn_request_is_over(unit: Unit) -> None:
    case = unit.requested()
    gone = unit.desk.intake.withdraw(OFFICER, case.request_id, case.version)
    assert gone.state is CaseState.WITHDRAWN
    with pytest.raises(LikenessError):
        unit.desk.triage.accept(ANNA, case.request_id, gone.version, "Lawful and needed.")


def test_numbers_and_due_times_follow_from_the_request(unit: Unit) -> None:
    first, second = unit.requested(urgency=["immediate"]), unit.requested(urgency=["routine"])
    assert (first.number, second.number) == ("2026-00001", "2026-00002")
    assert (first.due_at - NOW).total_seconds() == 3600
    assert [row.number for row in unit.desk.looking.queue(BERT)] == ["2026-00001", "2026-00002"]
