"""Other forces in a case: who may be asked, what is kept of the answer, who sees it when, and what a result says."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, date, datetime

import orjson
import pytest

from services.review.casework.documents import disclosure_facts, result_facts
from services.review.documents.typesetting import Typesetter
from services.review.model import Case, EnhancementStep, StepKind
from services.review.partners import PartnerEnquiry, standing
from services.rpc.v1 import search_pb2
from services.shared.errors import Forbidden, InvalidRequest
from tests.unit.review.people import ANNA, BERT, FORM, OFFICER, SUE, Unit, png

EASTMOOR = search_pb2.PartnerOffer(
    name="eastmoor", forces=["eastmoor"], watchlists=["op_liberal"], agreements=["OPL-2026-EASTMOOR"]
)
WESTHAVEN = search_pb2.PartnerOffer(
    name="westhaven", forces=["westhaven"], watchlists=["op_liberal"], agreements=["OPL-2026-WESTHAVEN"]
)
BOTH = ("eastmoor", "westhaven")


@pytest.fixture
def two(unit: Unit) -> Unit:
    """One partner answers, the other cannot be reached."""
    unit.search.offers = (EASTMOOR, WESTHAVEN)
    unit.search.partner_status = {"westhaven": "unreachable"}
    return unit


def asked(unit: Unit, case: Case, *names: str, authority: str = "OPL s.4, DI 1234", copy: str | None = None) -> Case:
    return unit.desk.searching(
        ANNA,
        case.request_id,
        case.version,
        probe_id=case.probes[0].probe_id,
        enhancement_id=copy,
        reason="The same van was seen there.",
        partners=names,
        authority=authority,
    )


def released(unit: Unit, *names: str) -> Case:
    case = asked(unit, unit.assessed(), *names)
    unit.signed(ANNA, case, frozenset({"S2"}))
    decided = unit.signed(BERT, case, frozenset({"S2"}))
    return unit.desk.deciding.release(BERT, case.request_id, decided.version, date(2026, 12, 1))


def test_a_partners_list_is_attributed_and_none_of_it_is_a_candidate(two: Unit) -> None:
    case = asked(two, two.assessed(), *BOTH)
    answered, missing = case.enquiries
    assert (answered.partner, answered.agreements, answered.searchable) == ("eastmoor", ("AGR-eastmoor",), 321)
    assert [(one.rank, one.subject_id) for one in answered.candidates] == [(1, "eastmoor-1")]
    assert (missing.status, missing.candidates, missing.why_not) == ("unreachable", (), "it could not be reached")
    assert missing.agreements == ("OPL-2026-WESTHAVEN",)
    assert {one.subject_id for one in case.candidates} == {"S1", "S2", "S3"}
    # The search at home stands as it would stand alone, with the digest of the bytes that search has of it.
    alone = two.search.identify("", search_pb2.IdentifyRequest())
    document = {**orjson.loads(alone), "search_id": case.searches[0].search_id}
    assert case.searches[0].answer_sha256 == hashlib.sha256(orjson.dumps(document)).hexdigest()
    [entry] = [one for one in two.audit.entries if one["activity"] == "search" and one["phase"] == "DONE"]
    assert f"partner-search:{answered.their_search_id}" in entry["objects"]
    assert entry["details"]["partner:westhaven"] == "unreachable"


def test_the_original_alone_goes_to_partners(two: Unit) -> None:
    case = two.assessed()
    case = two.desk.probes.enhance(
        ANNA,
        case.request_id,
        case.version,
        probe_id=case.probes[0].probe_id,
        steps=[EnhancementStep(StepKind.GAMMA, {"gamma": 0.8})],
        reason="Too dark.",
    )
    case = asked(two, case, "eastmoor", copy=case.probes[0].enhancements[0].enhancement_id)
    assert [list(request.partners) for _, request in two.search.asked] == [["eastmoor"], []]
    assert [one.image_sha256 for one in case.enquiries] == [case.probes[0].original.sha256]


def test_nobody_is_asked_who_is_not_offered_or_without_an_authority(two: Unit) -> None:
    case = two.assessed()
    with pytest.raises(Forbidden) as refused:
        asked(two, case, "eastmoor", "southshire")
    assert refused.value.context["reasons"] == ["partner_not_permitted"]
    with pytest.raises(InvalidRequest):
        asked(two, case, "eastmoor", authority=" ")
    assert two.search.asked == []


def test_nothing_of_a_list_is_shown_before_two_judgements_are_signed(two: Unit) -> None:
    case = asked(two, two.assessed(), *BOTH)
    hidden = ("eastmoor-1", "00000000-0000-7000-c000", "0.61")
    before = repr(two.desk.looking.case(BERT, case.request_id).case.enquiries)
    assert not [text for text in hidden if text in before]
    comparison = two.judged(ANNA, case)
    assert [one.partner for one in comparison.enquiries] == list(BOTH)
    assert not [text for text in hidden if text in repr(comparison)]
    two.desk.examining.sign(ANNA, case.request_id, comparison.version)
    two.signed(BERT, case)
    assert "eastmoor-1" in repr(two.desk.looking.case(ANNA, case.request_id).case.enquiries)


def test_a_result_names_who_was_asked_and_who_was_not_searched(two: Unit) -> None:
    case = released(two, *BOTH)
    assert case.release is not None
    [answered, missing] = [text for text in case.release.statements if text.startswith("Partner")]
    assert "eastmoor was searched too under AGR-eastmoor" in answered
    assert "none was judged here" in answered
    assert missing == (
        "Partner westhaven: not searched, it could not be reached. That nobody of its galleries is named means nothing."
    )
    assert [name.subject_id for name in case.release.names] == ["S2"]
    seen = two.desk.looking.result(OFFICER, case.request_id).case.enquiries
    assert [(one.partner, one.candidates) for one in seen] == [("eastmoor", ()), ("westhaven", ())]
    examinations = two.store.examinations(case.request_id)
    facts = disclosure_facts(case, examinations)
    assert facts["partners"][0]["candidates"][0]["subject_id"] == "eastmoor-1"
    given = {**facts, "given": None}
    assert Typesetter().disclosure(given, {}).startswith(b"%PDF")
    assert Typesetter().result({**result_facts(case, examinations), "given": None}, {}).startswith(b"%PDF")


def test_a_planted_probe_is_disclosed_to_nobody_and_looks_like_any_other(two: Unit) -> None:
    case = two.desk.intake.plant(SUE, FORM, [png()], ("northshire", "S2"), "PC 4711")
    case = two.desk.triage.accept(ANNA, case.request_id, case.version, "Lawful.")
    case = two.assess(case)
    case = asked(two, case, "eastmoor")
    assert [list(request.partners) for _, request in two.search.asked] == [[]]
    [kept] = case.enquiries
    assert (kept.status, kept.detail) == ("not_sent", "")
    real = asked(two, two.assessed(), "eastmoor")
    [like] = two.desk.looking.case(ANNA, real.request_id).case.enquiries
    [shown] = two.desk.looking.case(ANNA, case.request_id).case.enquiries
    same = ("partner", "status", "detail", "why_not", "their_search_id", "model_id", "searchable", "agreements")
    assert [getattr(shown, name) for name in same] == [getattr(like, name) for name in same]
    [compared] = two.judged(ANNA, case).enquiries
    assert compared == shown


def test_of_a_partner_its_last_list_stands() -> None:
    at = datetime(2026, 6, 1, tzinfo=UTC)
    first = PartnerEnquiry("eastmoor", "timed_out", "p", "", "", "", "", at, (), ())
    second = replace(first, status="answered", their_search_id="s2")
    third = replace(first, status="unreachable")
    assert standing((first, second, third)) == (second,)
    assert standing((first, third)) == (third,)
    assert len(standing((first, replace(first, probe_id="q")))) == 2
