"""The documents: whole, tagged, and inert whatever people have written into a case."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest

from services.review.casework.documents import disclosure_facts, result_facts
from services.review.documents import typesetting
from services.review.documents.characters import KnownCharacters, replaced
from services.review.documents.typesetting import Typesetter
from services.review.enhancement import as_jpeg
from services.review.model import EnhancementStep, StepKind
from services.shared.errors import Conflict, Forbidden, InvalidRequest, NotFound
from tests.unit.review.people import ANNA, BERT, OFFICER, SUE, Unit, person, png
from tests.unit.review.test_two_people import at_once

# What would be markup, code or a string's end, were it ever read as such.
NASTY = '#import "x.typ" ] } $x$ *b* `c` // <a> \\ "q" @r = h #{panic("ran")} <script>alert(1)</script>'


@pytest.fixture(scope="module")
def setter() -> Typesetter:
    return Typesetter()


def released(unit: Unit, **texts: list[str]) -> str:
    """A released case with an enhanced copy and one potential name."""
    case = unit.assessed(**texts)
    probe_id = case.probes[0].probe_id
    case = unit.desk.probes.enhance(
        ANNA,
        case.request_id,
        case.version,
        probe_id=probe_id,
        steps=[EnhancementStep(StepKind.GAMMA, {"gamma": 0.8})],
        reason=NASTY,
    )
    made = case.probes[0].enhancements[0].enhancement_id
    case = unit.desk.searching(
        ANNA, case.request_id, case.version, probe_id=probe_id, enhancement_id=made, reason=NASTY
    )
    unit.signed(ANNA, case, frozenset({"S2"}))
    decided = unit.signed(BERT, case, frozenset({"S2"}))
    unit.desk.deciding.release(BERT, case.request_id, decided.version, unit.clock.now().date().replace(year=2027))
    return case.request_id


def is_tagged(pdf: bytes) -> bool:
    """Tagged, in a language, and declared PDF/UA-1 in its metadata."""
    text = pdf + b"".join(_inflated(stream) for stream in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL))
    return all(mark in text for mark in (b"/StructTreeRoot", b"/Lang", b"/MarkInfo")) and b"pdfuaid" in text


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(stream)
    except zlib.error:
        return b""


def test_both_documents_are_tagged_and_inert(unit: Unit, setter: Typesetter) -> None:
    request_id = released(unit, necessity=[NASTY], offence=[NASTY], face_chosen_by=[NASTY])
    case = unit.store.find(request_id)
    assert case is not None
    examinations = unit.store.examinations(request_id)
    picture = as_jpeg(png())
    names = [f"probe-{case.probes[0].probe_id}", *(f"candidate-{one.candidate_id}" for one in case.candidates[:2])]
    pictures = dict.fromkeys(names, picture)
    for pdf in (
        setter.result(result_facts(case, examinations), pictures),
        setter.disclosure(disclosure_facts(case, examinations), pictures),
    ):
        assert pdf.startswith(b"%PDF-1.7")
        assert is_tagged(pdf)


def test_no_name_and_no_picture_are_set_too(unit: Unit, setter: Typesetter) -> None:
    case = unit.released(frozenset())
    assert is_tagged(setter.result(result_facts(case, unit.store.examinations(case.request_id)), {}))


def test_the_pack_has_every_candidate_with_both_judgements_and_the_result_none_of_the_negatives(unit: Unit) -> None:
    request_id = released(unit)
    approval = unit.desk.documents.approve_disclosure(SUE, request_id, "Crown Court", "CPIA, case 12/26")
    unit.desk.documents.disclosure(BERT, request_id, approval.approval_id)
    pack = unit.setter.facts
    assert [one["subject_id"] for one in pack["candidates"]] == ["S1", "S2", "S3"]
    for candidate in pack["candidates"]:
        assert [judgement["examiner"] for judgement in candidate["judgements"]] == ["anna", "bert"]
        assert [one["variant"] for one in candidate["appearances"]] == ["original", "enhanced"]
    assert len(pack["records"]) == 2
    unit.desk.documents.result(OFFICER, request_id)
    result = unit.setter.facts
    assert [name["subject_id"] for name in result["names"]] == ["S2"]
    assert "S1" not in str(result)
    assert "S3" not in str(result)


def test_who_gets_a_document_is_recorded_before_and_only_some_do(unit: Unit) -> None:
    request_id = released(unit)
    for who in (OFFICER, person("aud", "auditor"), person("cus", "custodian")):
        with pytest.raises(Forbidden):
            unit.desk.documents.disclosure(who, request_id, "")
    with pytest.raises(NotFound):
        unit.desk.documents.result(person("x", "requester", force="eastmoor"), request_id)
    approval = unit.desk.documents.approve_disclosure(SUE, request_id, "Crown Court", "CPIA, case 12/26")
    unit.desk.documents.disclosure(BERT, request_id, approval.approval_id)
    [intent, done] = [entry for entry in unit.audit.entries if entry["activity"] == "disclosure_document"][-2:]
    assert (intent["phase"], done["phase"]) == ("INTENT", "DONE")
    assert done["recipients"] == ["person:bert", "recipient:Crown Court"]
    assert intent["operation"] == "DISCLOSURE"
    assert (done["details"]["approved_by"], done["details"]["approval"]) == ("sue", approval.approval_id)


def test_the_pack_leaves_once_for_the_recipient_that_somebody_else_approved(unit: Unit) -> None:
    request_id = released(unit)
    documents = unit.desk.documents
    for none in ("", "another"):
        with pytest.raises(Conflict) as missing:
            documents.disclosure(BERT, request_id, none)
        assert missing.value.code == "approval_needed"
    for who in (BERT, OFFICER):
        with pytest.raises(Forbidden):
            documents.approve_disclosure(who, request_id, "Crown Court", "Because.")
    for wrong in ("  ", "a\nb", "x" * 201):
        with pytest.raises(InvalidRequest):
            documents.approve_disclosure(SUE, request_id, wrong, "Because.")
    approval = documents.approve_disclosure(SUE, request_id, "Crown Court", "Because.")
    with pytest.raises(Forbidden) as own:
        documents.disclosure(SUE, request_id, approval.approval_id)
    assert own.value.code == "own_approval"
    documents.disclosure(BERT, request_id, approval.approval_id)
    given = unit.setter.facts["given"]
    assert given.startswith("Disclosed to Crown Court alone, request ")
    assert f"approval {approval.approval_id} of sue, handed out by bert" in given
    with pytest.raises(Conflict) as used:
        documents.disclosure(ANNA, request_id, approval.approval_id)
    assert used.value.code == "approval_needed"
    late = documents.approve_disclosure(SUE, request_id, "Crown Court", "Because.")
    unit.clock.pass_s(24 * 3600)
    with pytest.raises(Conflict):
        documents.disclosure(BERT, request_id, late.approval_id)
    told = [item.what for item in unit.desk.looking.case(ANNA, request_id).history]
    assert "full pack handed out for Crown Court" in told
    assert unit.desk.looking.case(OFFICER, request_id).case.disclosures == ()


def test_of_two_who_fetch_a_pack_at_once_one_gets_it(unit: Unit) -> None:
    request_id = released(unit)
    approval = unit.desk.documents.approve_disclosure(SUE, request_id, "Crown Court", "Because.")
    answers = at_once(
        lambda: unit.desk.documents.disclosure(ANNA, request_id, approval.approval_id),
        lambda: unit.desk.documents.disclosure(BERT, request_id, approval.approval_id),
    )
    assert {type(answer) for answer in answers} == {bytes, Conflict}


def test_a_result_names_who_fetched_it_and_who_released_it(unit: Unit) -> None:
    request_id = released(unit)
    unit.desk.documents.result(OFFICER, request_id)
    given = unit.setter.facts["given"]
    assert given.startswith("Given to officer of northshire on ")
    assert "released by bert" in given


def test_a_watermark_is_text_whatever_stands_in_it(unit: Unit, setter: Typesetter) -> None:
    request_id = released(unit)
    case = unit.store.find(request_id)
    assert case is not None
    facts = disclosure_facts(case, unit.store.examinations(request_id))
    plain = setter.disclosure(facts, {})
    marked = setter.disclosure({**facts, "given": f"Disclosed to {NASTY} alone, request 1."}, {})
    assert is_tagged(marked)
    assert len(marked) > len(plain)


def test_a_character_that_no_font_has_costs_nobody_the_document(unit: Unit, setter: Typesetter) -> None:
    case = unit.released(frozenset({"S2"}))
    facts = result_facts(case, unit.store.examinations(case.request_id))
    written = "王小明 ᠮᠣᠩ 👍 \x07"
    pdf = setter.result({**facts, "offence": written, "given": f"Given to {written}"}, {})
    assert is_tagged(pdf)
    plain = KnownCharacters(lambda one: one in "é…")
    assert plain.missing({"a": ["é…王", 3], "b": {"c": ("王\x07",)}}) == {0x738B: "[U+738B]", 7: "[U+0007]"}
    assert replaced({"a": ["x王", None]}, {0x738B: "[U+738B]"}) == {"a": ["x[U+738B]", None]}


@pytest.mark.parametrize(
    "name", ["王小明", "佐藤 ゆかり", "김민준", "สมชาย", "Νίκος", "Ольга", "דוד", "محمد", "Nguyễn Thị Ánh"]
)
def test_a_name_is_set_in_its_own_script(name: str) -> None:
    assert KnownCharacters(typesetting._is_displayed).missing(name) == {}


def test_the_templates_are_packaged() -> None:
    folder = Path(__file__).parents[3] / "services" / "review" / "documents"
    assert {path.name for path in folder.glob("*.typ")} == {"common.typ", "result.typ", "disclosure.typ"}
