"""A flag's pictures: those that it is about, to its owner's custodian, each in the log before it is shown."""

from __future__ import annotations

from typing import Any

import pytest

from services.shared.errors import AuditUnavailable, NotFound
from tests.unit.review.people import Unit, person

CARL = person("carl", "custodian")


def flag(kind: str = "probable_same_person", **changes: Any) -> dict[str, Any]:
    """As ingest gives it: of two subjects, one reference each."""
    references = [{"reference_id": f"S{n}-1", "enrolment_id": f"e{n}", "subject_id": f"S{n}"} for n in (1, 2)]
    told = {"flag_id": "f-1", "kind": kind, "watchlist": "custody", "subject_ids": ["S1", "S2"]}
    return {**told, "references": references, **changes}


def test_two_subjects_side_by_side(unit: Unit) -> None:
    shown = unit.desk.gallery_flags.pictures(CARL, flag())
    assert [(one.reference_id, one.is_flagged) for one in shown] == [("S1-1", True), ("S2-1", True)]


def test_a_picture_under_the_wrong_subject_stands_beside_the_subjects_others(unit: Unit) -> None:
    wrong = flag("wrong_subject_suspected", subject_ids=["S1"], references=flag()["references"][:1])
    shown = unit.desk.gallery_flags.pictures(CARL, wrong)
    assert [(one.reference_id, one.is_flagged) for one in shown] == [("S1-1", True), ("S1-2", False)]


def test_a_picture_is_recorded_before_it_is_shown(unit: Unit) -> None:
    assert unit.desk.gallery_flags.picture(CARL, flag(), "S2-1").content[:3] == b"\xff\xd8\xff"
    [entry] = [one for one in unit.audit.entries if one["activity"] == "see_flagged_reference"]
    assert set(entry["objects"]) == {"flag:f-1", "reference:S2-1", "watchlist:custody"}
    assert entry["phase"] == "DONE"
    unit.audit.is_down = True
    with pytest.raises(AuditUnavailable):
        unit.desk.gallery_flags.picture(CARL, flag(), "S2-1")


def test_nothing_is_shown_that_the_flag_is_not_about(unit: Unit) -> None:
    for other in ("S1-2", "S9-1"):
        with pytest.raises(NotFound):
            unit.desk.gallery_flags.picture(CARL, flag(), other)
    assert not [one for one in unit.audit.entries if one["activity"] == "see_flagged_reference"]
