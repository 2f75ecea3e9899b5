"""Several people in one picture: who is searched, in the original and in working copies of it, and by whom picked."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.review.casework import films
from services.review.enhancement import apply, carried, decoded
from services.review.model import Case, CaseState, EnhancementStep, StepKind, Suitability
from services.shared.errors import Conflict, InvalidRequest, NoFaceFound
from tests.unit.review.people import ANNA, BERT, Unit

LEFT, RIGHT = 0, 1
MIRROR = EnhancementStep(StepKind.MIRROR)


def step(kind: StepKind, **amounts: float) -> EnhancementStep:
    return EnhancementStep(kind, amounts)


def _group(unit: Unit, face: int) -> Case:
    """A picture of two, one of them chosen."""
    unit.embed.lefts = (10.0, 90.0)
    case = unit.requested()
    case = unit.desk.triage.accept(ANNA, case.request_id, case.version, "Lawful and needed.")
    return _assess(unit, case, case.probes[0].probe_id, face)


def _assess(unit: Unit, case: Case, probe_id: str, face: int) -> Case:
    return unit.desk.probes.assess(
        ANNA, case.request_id, case.version, probe_id=probe_id, face=face, grade=Suitability.SUITABLE, remarks="Clear."
    )


def _search(unit: Unit, case: Case, probe_id: str, *steps: EnhancementStep) -> Case:
    """Search the probe, with a working copy where there are steps."""
    made = None
    if steps:
        case = unit.desk.probes.enhance(
            ANNA, case.request_id, case.version, probe_id=probe_id, steps=steps, reason="It needs it."
        )
        found = case.probe(probe_id)
        assert found is not None
        made = found.enhancements[-1].enhancement_id
    return unit.desk.searching(
        ANNA, case.request_id, case.version, probe_id=probe_id, enhancement_id=made, reason="First search."
    )


def _pick(unit: Unit, case: Case, *faces: int) -> Case:
    return unit.desk.probes.pick_faces(
        ANNA, case.request_id, case.version, probe_id=case.probes[0].probe_id, faces=faces
    )


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([step(StepKind.GAMMA, gamma=0.8)], LEFT),
        ([MIRROR], RIGHT),
        ([MIRROR, MIRROR], LEFT),
        ([step(StepKind.ROTATE, degrees=180)], RIGHT),
    ],
)
def test_a_working_copy_is_searched_by_the_face_that_was_chosen(
    unit: Unit, steps: list[EnhancementStep], expected: int
) -> None:
    case = _group(unit, LEFT)
    _search(unit, case, case.probes[0].probe_id, *steps)
    assert [request.face for _, request in unit.search.asked] == [LEFT, expected]


def test_a_copy_without_the_chosen_face_is_not_searched_by_anothers(unit: Unit) -> None:
    case = _group(unit, LEFT)
    with pytest.raises(NoFaceFound):
        _search(unit, case, case.probes[0].probe_id, step(StepKind.CROP, x=80, y=0, width=80, height=120))
    assert unit.search.asked == []


@pytest.mark.parametrize(
    "steps",
    [
        [step(StepKind.CROP, x=31, y=12, width=100, height=90), MIRROR],
        [step(StepKind.ROTATE, degrees=90), step(StepKind.CROP, x=3, y=5, width=80, height=130)],
        [step(StepKind.ROTATE, degrees=-33.5), MIRROR, step(StepKind.ROTATE, degrees=-90)],
    ],
)
def test_a_point_is_followed_to_where_the_steps_put_it(steps: list[EnhancementStep]) -> None:
    """A white spot on black is drawn, and found again in what the steps make of the picture."""
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[58:63, 68:73] = 255
    made = decoded(apply(cv2.imencode(".png", pixels)[1].tobytes(), steps)[0])
    rows, columns = np.nonzero(made[:, :, 0] > 127)
    x, y = carried((70.5, 60.5), (160, 120), steps)
    assert abs(columns.mean() + 0.5 - x) < 1
    assert abs(rows.mean() + 0.5 - y) < 1


def test_others_of_a_group_become_probes_of_their_own(unit: Unit) -> None:
    case = _group(unit, LEFT)
    case = _pick(unit, case, RIGHT)
    first, second = case.probes
    assert (second.face, second.assessment, second.original) == (RIGHT, None, first.original)
    with pytest.raises(Conflict) as unassessed:
        _search(unit, case, second.probe_id)
    assert unassessed.value.code == "probe_not_suitable"
    case = _search(unit, _assess(unit, case, second.probe_id, RIGHT), first.probe_id)
    case = _search(unit, case, second.probe_id)
    assert [request.face for _, request in unit.search.asked] == [LEFT, RIGHT]
    assert {record.probe_id for record in case.searches} == {first.probe_id, second.probe_id}
    unit.signed(ANNA, case)
    decided = unit.signed(BERT, case)
    assert decided.state is CaseState.DECIDED
    assert unit.audit.of("pick_faces") == ["INTENT", "DONE"]


def test_a_face_is_picked_once_and_only_one_that_was_found(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    case = _group(unit, LEFT)
    for wrong in ((), (2,), (-1,)):
        with pytest.raises(InvalidRequest):
            _pick(unit, case, *wrong)
    with pytest.raises(Conflict) as chosen:
        _pick(unit, case, LEFT)
    assert chosen.value.code == "already_picked"
    monkeypatch.setattr("services.review.casework.probes.MAX_PROBES", 1)
    with pytest.raises(Conflict) as many:
        _pick(unit, case, RIGHT)
    assert many.value.code == "too_many_probes"
    monkeypatch.setattr("services.review.casework.probes.MAX_PROBES", films.MAX_PROBES)
    case = _pick(unit, case, RIGHT)
    with pytest.raises(Conflict):
        _pick(unit, case, RIGHT)


def test_where_the_chosen_face_is_in_a_picture_is_known_for_original_and_copy(unit: Unit) -> None:
    case = _group(unit, RIGHT)
    probe_id = case.probes[0].probe_id
    case = _search(unit, case, probe_id, MIRROR)
    made = case.probes[0].enhancements[0].enhancement_id
    for variant, left in (("original", 90.0), (made, 10.0)):
        _, face = unit.desk.pictures.chosen_face(ANNA, case.request_id, probe_id, variant)
        assert face is not None
        assert face.box[0] == left
