"""Probes as operators meet them: several faces, animations, pictures of pictures; and none is ever enrolled."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image

from tests.accuracy.signals import screen
from tests.support.casework import enrol, post_search
from tests.support.platform import Platform
from tests.support.portraits import portraits


@pytest.fixture(scope="module")
def enrolled(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    picture = tmp_path_factory.mktemp("probes") / "reference.jpg"
    picture.write_bytes(portraits()[1])
    enrol(platform, picture, "PROBES-1")
    return "PROBES-1"


def _jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=93)
    return stream.getvalue()


def _portrait(place: int, side: int = 500) -> Image.Image:
    picture = Image.open(io.BytesIO(portraits()[place])).convert("RGB")
    picture.thumbnail((side, side))
    return picture


def _three_people() -> bytes:
    canvas = Image.new("RGB", (1600, 600), "grey")
    for column, place in enumerate((0, 1, 3)):
        canvas.paste(_portrait(place), (30 + 530 * column, 50))
    return _jpeg(canvas)


def _search(platform: Platform, image: bytes, **fields: Any) -> httpx.Response:
    with platform.client("search", "operator") as client:
        return post_search(client, image, case_reference="NC/2026/PROBES", **fields)


def test_several_faces_come_as_chips_and_those_picked_are_searched_one_by_one(
    platform: Platform, enrolled: str
) -> None:
    crowd = _three_people()
    choice = _search(platform, crowd)
    assert (choice.status_code, choice.json()["code"]) == (409, "face_choice_needed")
    faces = choice.json()["faces"]
    assert [face["index"] for face in faces] == [0, 1, 2]
    right = next(face["index"] for face in faces if face["box"]["x"] > 1090)
    middle = next(face["index"] for face in faces if 560 < face["box"]["x"] < 1090)
    for face in faces:
        chip = cv2.imdecode(np.frombuffer(base64.b64decode(face["chip_jpeg_base64"]), np.uint8), cv2.IMREAD_COLOR)
        assert chip is not None
        assert max(chip.shape[:2]) == 160
        assert face["assessment"]["grade"] in {"suitable", "with_caution", "unsuitable"}

    form = {
        "case_reference": "NC/2026/PROBES",
        "purpose": "prevention_and_detection",
        "offence": "burglary",
        "source": "cctv",
        "watchlists": ["custody"],
        "face": [str(middle), str(right)],
        "face_chosen_by": "PC 4711, who arrested him",
    }
    with platform.client("search", "operator") as client:
        answer = client.post("/v1/searches/faces", data=form, files={"image": ("probe", crowd)})
    assert answer.status_code == 200, answer.text
    searches = answer.json()["searches"]
    assert [each["face"] for each in searches] == [middle, right]
    assert len({each["answer"]["search_id"] for each in searches}) == 2
    for each in searches:
        assert each["answer"]["face"] == each["face"]
        assert each["answer"]["probe"]["face_chosen_by"] == "PC 4711, who arrested him"
    assert searches[0]["answer"]["candidates"][0]["subject_id"] == enrolled


def test_an_ordinary_probe_is_graded_with_the_error_rate_measured_at_its_quality(
    platform: Platform, enrolled: str
) -> None:
    answer = _search(platform, portraits()[2]).json()
    probe, face = answer["probe"], answer["faces"][answer["face"]]
    assert (probe["grade"], probe["flags"], probe["needs_supervisor"]) == (face["assessment"]["grade"], [], False)
    assert probe["face_chosen_by"] == "test-operator"
    rate = face["assessment"]["false_non_match"]
    assert 0 <= rate["low"] <= rate["misses"] / rate["searches"] <= rate["high"] <= 1
    assert any("mated searches missed (a share of" in statement for statement in answer["statements"])


def test_of_a_moving_picture_the_first_frame_is_searched_and_that_is_said(platform: Platform, enrolled: str) -> None:
    stream = io.BytesIO()
    frames = [_portrait(place).resize((420, 480)) for place in (1, 0)]
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:], duration=200, quality=95)
    answer = _search(platform, stream.getvalue()).json()
    assert (answer["probe"]["frames"], answer["probe"]["frame_searched"]) == (2, "first")
    assert answer["candidates"][0]["subject_id"] == enrolled


def test_a_photograph_of_a_screen_needs_a_supervisor(platform: Platform, enrolled: str) -> None:
    shown = screen(np.ascontiguousarray(np.asarray(_portrait(1, 320))[:, :, ::-1]))
    _done, encoded = cv2.imencode(".png", shown)
    answer = _search(platform, encoded.tobytes())
    assert answer.status_code == 200, answer.text
    probe = answer.json()["probe"]
    assert probe["needs_supervisor"] is True
    assert "periodic_pattern" in {flag["code"] for flag in probe["flags"]}
    assert any("a supervisor decides" in statement for statement in answer.json()["statements"])


def test_a_probe_is_never_enrolled(platform: Platform, enrolled: str) -> None:
    """Its bytes are sealed among the probes, and nothing of it is among images, ledger and gallery."""

    def searchable() -> int:
        return int(_search(platform, portraits()[2]).json()["searchable"])

    before = searchable()
    probe = _jpeg(_portrait(3))
    answer = _search(platform, probe)
    assert answer.status_code == 200
    digest = hashlib.sha256(probe).hexdigest()
    assert answer.json()["probe"]["sha256"] == digest
    assert searchable() == before
    images = [path for path in Path(platform.data.root, "images").rglob("*") if digest in str(path)]
    assert images == []
    # Nor does any image field of enrolment take a search's id in place of an image.
    with platform.client("ingest", "custodian") as client:
        form = {"watchlist": "custody", "owner": "northshire", "subject_id": "X", "captured_on": "2026-03-01"}
        form |= {"lawful_basis": "pace_1984_s64a", "search_id": answer.json()["search_id"]}
        refused = client.post("/v1/enrolments", data=form)
    assert 400 <= refused.status_code < 500
