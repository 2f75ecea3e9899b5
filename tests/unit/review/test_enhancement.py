"""Enhancement: closed, repeatable, never painted in."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.review.casework import probes
from services.review.enhancement import LIMITS, apply, decoded, described
from services.review.model import Case, EnhancementStep, StepKind
from services.shared.errors import Conflict, InvalidRequest, Overloaded
from tests.unit.review.people import ANNA, Unit, png

PICTURE = png(97, 64)


def step(kind: StepKind, **amounts: float) -> EnhancementStep:
    return EnhancementStep(kind, amounts)


EVERY = [
    step(StepKind.DEINTERLACE, field=1),
    step(StepKind.CROP, x=3, y=2, width=64, height=48),
    step(StepKind.ROTATE, degrees=7.5),
    step(StepKind.MIRROR),
    step(StepKind.BRIGHTNESS, levels=20),
    step(StepKind.CONTRAST, factor=1.2),
    step(StepKind.GAMMA, gamma=0.8),
    step(StepKind.DENOISE, strength=2),
    step(StepKind.SHARPEN, strength=0.5),
]


def test_every_kind_of_step_is_tried_here() -> None:
    assert {one.kind for one in EVERY} == set(StepKind) == set(LIMITS)


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.kind.value)
def test_a_step_changes_the_picture_and_is_repeatable(one: EnhancementStep) -> None:
    made, width, height = apply(PICTURE, [one])
    assert made == apply(PICTURE, [one])[0]
    pixels = decoded(made)
    assert pixels.shape == (height, width, 3)
    assert pixels.shape != decoded(PICTURE).shape or (pixels != decoded(PICTURE)).any()
    assert described(one).startswith(one.kind.value)


def test_steps_follow_one_another(unit: Unit) -> None:
    all_at_once = apply(PICTURE, EVERY)[0]
    one_by_one = PICTURE
    for one in EVERY:
        one_by_one = apply(one_by_one, [one])[0]
    assert all_at_once == one_by_one


def test_no_recipe_makes_a_picture_grow_without_end_or_takes_minutes() -> None:
    large = cv2.imencode(".png", np.zeros((4096, 4096, 3), np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    turn = step(StepKind.ROTATE, degrees=45)
    with pytest.raises(InvalidRequest, match="Crop it first"):  # 20 of them would make a million times as many pixels
        apply(large, [turn] * 20)
    assert apply(PICTURE, [turn] * 3)[1] > 97
    apply(PICTURE, [step(StepKind.DENOISE, strength=2)] * 2)
    with pytest.raises(InvalidRequest, match="denoise"):
        apply(PICTURE, [step(StepKind.DENOISE, strength=2)] * 3)


def test_few_copies_are_made_at_once_and_not_too_many_of_one_picture(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = unit.assessed()

    def enhance(version: int) -> Case:
        steps, probe_id = [step(StepKind.MIRROR)], case.probes[0].probe_id
        return unit.desk.probes.enhance(
            ANNA, case.request_id, version, probe_id=probe_id, steps=steps, reason="Mirrored by the camera."
        )

    monkeypatch.setattr(probes, "_WAIT_S", 0.01)
    with unit.desk.probes._turn(), unit.desk.probes._turn(), pytest.raises(Overloaded):
        enhance(case.version)
    monkeypatch.setattr(probes, "MAX_COPIES", 1)
    once = enhance(case.version)
    with pytest.raises(Conflict) as refused:
        enhance(once.version)
    assert refused.value.code == "too_many_copies"


def test_deinterlacing_keeps_one_field_as_it_is() -> None:
    pixels = decoded(PICTURE)
    for field in (0, 1):
        made = decoded(apply(PICTURE, [step(StepKind.DEINTERLACE, field=field)])[0])
        assert (made[field::2] == pixels[field::2]).all()
        mean = (pixels[2 + field].astype(int) + pixels[4 + field] + 1) // 2
        assert (made[3 + field] == mean).all()


def test_quarter_turns_and_mirrors_lose_nothing() -> None:
    steps = [step(StepKind.ROTATE, degrees=90)] * 4 + [step(StepKind.MIRROR)] * 2
    assert (decoded(apply(PICTURE, steps)[0]) == decoded(PICTURE)).all()
    assert (decoded(apply(PICTURE, [step(StepKind.ROTATE, degrees=-180)])[0]) == np.rot90(decoded(PICTURE), 2)).all()


def test_an_odd_number_of_lines_is_deinterlaced_too() -> None:
    odd = cv2.imencode(".png", decoded(PICTURE)[:63])[1].tobytes()
    for field in (0, 1):
        assert apply(odd, [step(StepKind.DEINTERLACE, field=field)])[2] == 63


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [step(StepKind.MIRROR)] * 21,
        [step(StepKind.GAMMA, gamma=9)],
        [step(StepKind.GAMMA)],
        [step(StepKind.GAMMA, gamma=1, radius=2)],
        [step(StepKind.GAMMA, gamma=float("nan"))],
        [step(StepKind.CROP, x=90, y=0, width=60, height=40)],
        [step(StepKind.CROP, x=0, y=0, width=8, height=8)],
    ],
)
def test_what_is_not_on_the_list_is_refused(wrong: list[EnhancementStep]) -> None:
    with pytest.raises(InvalidRequest):
        apply(PICTURE, wrong)


def test_the_original_is_searched_beside_the_copy_and_both_places_are_kept(unit: Unit) -> None:
    case = unit.assessed()
    probe = case.probes[0]
    steps = [step(StepKind.GAMMA, gamma=0.8)]
    case = unit.desk.probes.enhance(
        ANNA, case.request_id, case.version, probe_id=probe.probe_id, steps=steps, reason="Dark."
    )
    made = case.probes[0].enhancements[0]
    case = unit.desk.searching(
        ANNA,
        case.request_id,
        case.version,
        probe_id=probe.probe_id,
        enhancement_id=made.enhancement_id,
        reason="First.",
    )
    assert [record.image_sha256 for record in case.searches] == [probe.original.sha256, made.sha256]
    assert case.probes[0].original == probe.original
    assert [len(candidate.appearances) for candidate in case.candidates] == [2, 2, 2]
    again, _, _ = apply(png(), made.steps)
    shown = unit.desk.pictures.probe(ANNA, case.request_id, probe.probe_id, made.enhancement_id)
    assert shown.content[:3] == b"\xff\xd8\xff"
    assert len({made.sha256, probe.original.sha256}) == 2
    assert decoded(again).shape == (120, 160, 3)
