"""Several picked faces of one probe: each is searched alone, and nobody's problem is another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import orjson
import pytest

from services.search.identification.acceptance import MAX_KEY_CHARS, part_key
from services.search.identification.several import MAX_FACES, SearchFaces
from services.shared.errors import AuditUnavailable, CallerError, Forbidden, InvalidRequest, LikenessError
from services.shared.multipart import Upload
from services.shared.tokens import Principal
from tests.unit.search.fakes import OPERATOR


@dataclass
class RecordedIdentify:
    """Answers with what it was asked; fails where it is told to."""

    fails: dict[str, LikenessError] = field(default_factory=dict)
    asked: list[tuple[tuple[str, ...], str | None]] = field(default_factory=list)

    rejected: list[str] = field(default_factory=list)
    # Searches whose permission has ended by the time that the last one is answered.
    ended: set[str] = field(default_factory=set)

    def require_still(self, principal: Principal, document: Mapping[str, Any]) -> None:
        if document["search_id"] in self.ended:
            raise Forbidden("Ended.", advice="Search again.", context={"reasons": ["permission_ended"]})

    def reject(self, principal: Principal, error: CallerError) -> NoReturn:
        self.rejected.append(error.code)
        raise error

    def __call__(self, principal: Principal, upload: Upload, idempotency_key: str | None = None) -> bytes:
        assert principal is OPERATOR
        assert upload.files == {"image": (b"probe",)}
        self.asked.append((upload.texts["face"], idempotency_key))
        if error := self.fails.get(upload.texts["face"][0]):
            raise error
        return orjson.dumps({"search_id": f"of {upload.texts['face'][0]}"})


def _upload(*faces: str) -> Upload:
    return Upload(texts={"case_reference": ("C-1",), "face": faces}, files={"image": (b"probe",)})


def test_each_face_is_a_search_of_its_own_with_a_key_of_its_own() -> None:
    identify = RecordedIdentify()
    answer = orjson.loads(SearchFaces(identify)(OPERATOR, _upload("2", "0", "2"), "key"))
    assert identify.asked == [(("2",), "key:face2"), (("0",), "key:face0")]
    assert [each["answer"]["search_id"] for each in answer["searches"]] == ["of 2", "of 0"]


def test_a_face_that_is_not_there_does_not_take_the_others_with_it() -> None:
    identify = RecordedIdentify({"7": InvalidRequest("There is no face 7.", advice="0 to 2.")})
    found = orjson.loads(SearchFaces(identify)(OPERATOR, _upload("0", "7"), None))["searches"]
    assert found[0]["problem"] is None
    assert (found[1]["face"], found[1]["answer"], found[1]["problem"]["code"]) == (7, None, "invalid_request")


def test_an_answer_that_waited_for_the_others_is_not_given_once_its_permission_has_ended() -> None:
    identify = RecordedIdentify(ended={"of 0"})
    found = orjson.loads(SearchFaces(identify)(OPERATOR, _upload("0", "1"), None))["searches"]
    assert (found[0]["answer"], found[0]["problem"]["reasons"]) == (None, ["permission_ended"])
    assert found[1]["answer"] == {"search_id": "of 1"}


def test_what_is_wrong_with_every_face_is_said_once() -> None:
    no = Forbidden("No.", advice="Ask.")
    with pytest.raises(Forbidden):
        SearchFaces(RecordedIdentify({"0": no, "1": no}))(OPERATOR, _upload("0", "1"), None)


def test_a_fault_of_the_platform_is_no_answer() -> None:
    fails: dict[str, LikenessError] = {"1": AuditUnavailable("Down.")}
    with pytest.raises(AuditUnavailable):
        SearchFaces(RecordedIdentify(fails))(OPERATOR, _upload("0", "1"), None)


@pytest.mark.parametrize("faces", [(), ("",), ("x",), ("-1",), tuple(str(face) for face in range(MAX_FACES + 1))])
def test_faces_have_to_be_named(faces: tuple[str, ...]) -> None:
    identify = RecordedIdentify()
    with pytest.raises(InvalidRequest):
        SearchFaces(identify)(OPERATOR, _upload(*faces), None)
    assert identify.rejected == ["invalid_request"], "a refusal is recorded, too"


def test_the_longest_key_that_is_taken_stands_for_several_faces_too() -> None:
    longest = ["k" * 200, "k" * 199 + "l"]
    made = [part_key(key, "face12") for key in longest]
    assert len(set(made)) == 2
    assert all(key is not None and len(key) <= MAX_KEY_CHARS for key in made)
    assert part_key("short", "face0") == "short:face0"
    assert part_key(None, "face0") is None
    too_long = part_key("k" * 201, "face0")
    assert too_long is not None
    assert len(too_long) > MAX_KEY_CHARS
