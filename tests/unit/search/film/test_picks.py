"""Several people of a film searched in one request: each answer waits for the last, and is looked at once more."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import orjson

from services.search.film.picks import SearchTracks
from services.search.film.ports import FilmStatus
from services.shared.clock import SystemClock
from services.shared.errors import Forbidden
from services.shared.multipart import Upload
from services.shared.tokens import Principal
from tests.unit.search.fakes import OPERATOR

STILL = SimpleNamespace(sha256="a" * 64, face=0, frame_number=1, pts=512, time_s=0.04)
FILM = SimpleNamespace(
    film_id="f", sha256="b" * 64, status=FilmStatus.DONE, texts={"case_reference": ("C-1",)}, principal=OPERATOR
)


class Films:
    """One film with two tracks; what was picked."""

    def __init__(self) -> None:
        self.picks: list[Any] = []

    def find(self, *_: object) -> Any:
        return FILM

    def contents(self, film_id: str) -> Any:
        return SimpleNamespace(tracks=[SimpleNamespace(track=number, stills=(STILL,)) for number in (0, 1)])

    def add_pick(self, film_id: str, pick: object) -> None:
        self.picks.append(pick)

    def get(self, sha256: str) -> bytes:
        return b"a still"


class Identify:
    """The first search's permission ends while the second one runs."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, principal: Principal, upload: Upload, key: str | None = None, evidence: object = None) -> bytes:
        self.asked += 1
        return orjson.dumps({"search_id": f"s-{self.asked}"})

    def require_still(self, principal: Principal, document: Mapping[str, Any]) -> None:
        if document["search_id"] == "s-1" and self.asked == 2:
            raise Forbidden("Ended.", advice="Search again.", context={"reasons": ["permission_ended"]})


def test_the_answer_of_a_track_is_not_given_once_its_permission_has_ended() -> None:
    films = Films()
    search = SearchTracks(cast(Any, films), cast(Any, films), cast(Any, Identify()), cast(Any, films), SystemClock())
    told = orjson.loads(search(OPERATOR, "f", [0, 1]))["searches"]
    assert [one["status"] for one in told] == ["refused", "done"]
    assert (told[0]["answer"], told[0]["problem"]["reasons"]) == (None, ["permission_ended"])
    assert told[1]["answer"] == {"search_id": "s-2"}
    assert len(films.picks) == 2, "both were searched, and that stays on record"
