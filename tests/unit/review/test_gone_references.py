"""A candidate whose pictures may not be shown any more can still be judged: else its case would never end."""

from __future__ import annotations

from typing import NoReturn

import pytest

from services.shared.errors import Forbidden, LikenessError, NotFound
from tests.unit.review.people import ANNA, BERT, OFFICER, SUE, Ingest, Unit

GONE = [
    NotFound("There is no such reference."),
    Forbidden("The agreement by which this reference was shared is no longer in force.", code="agreement_ended"),
]


@pytest.mark.parametrize("gone", GONE, ids=lambda error: error.code)
def test_a_case_ends_although_a_candidate_is_gone(
    unit: Unit, gone: LikenessError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise gone

    case = unit.searched()
    monkeypatch.setattr(Ingest, "references_of", refuse)
    unit.desk.examining.begin(ANNA, case.request_id, case.version)
    candidate = case.candidates[0]
    opened = unit.desk.examining.open(ANNA, case.request_id, candidate.candidate_id)
    assert opened.reference_ids == (candidate.reference_id,)
    comparison = unit.judge(ANNA, case, candidate.candidate_id, is_match=False)
    assert comparison.remaining == len(case.candidates) - 1


@pytest.mark.parametrize("gone", GONE, ids=lambda error: error.code)
def test_its_documents_are_given_without_the_picture(
    unit: Unit, gone: LikenessError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was released, and what the defence is owed, does not hang on an agreement that ended afterwards."""

    def refuse(*_: object) -> NoReturn:
        raise gone

    case = unit.released()
    monkeypatch.setattr(Ingest, "image", refuse)
    assert unit.desk.documents.result(OFFICER, case.request_id)
    approval = unit.desk.documents.approve_disclosure(SUE, case.request_id, "Crown Court", "CPIA, case 12/26")
    assert unit.desk.documents.disclosure(BERT, case.request_id, approval.approval_id)
    assert not [name for name in unit.setter.pictures if name.startswith("candidate-")]
    assert [one["subject_id"] for one in unit.setter.facts["candidates"]] == ["S1", "S2", "S3"]
