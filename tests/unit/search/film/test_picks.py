"""Several people of a film searched in one request: each answer waits for the last, and is looked at once more; what a
busy platform refuses is tried again for a while."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from services.search.film.picks import SearchTracks
from services.search.film.ports import FilmStatus
from services.shared.clock import SystemClock
from services.shared.errors import AuditUnavailable, Forbidden, LikenessError, ModelMismatch, Overloaded
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


BUSY = Overloaded("Too many searches at once.", advice="Try again.")
NO_LOG = AuditUnavailable("The log cannot be written.", advice="Try again.")


class Faulty:
    """Fails as the list says, one entry a call; answers where it says None and after its end."""

    def __init__(self, faults: Sequence[LikenessError | None]) -> None:
        self.faults = list(faults)
        self.asked: list[str | None] = []

    def __call__(self, principal: Principal, upload: Upload, key: str | None = None, evidence: object = None) -> bytes:
        self.asked.append(key)
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        return orjson.dumps({"search_id": f"s-{len(self.asked)}"})

    def require_still(self, principal: Principal, document: Mapping[str, Any]) -> None:
        """Nothing has ended."""


class Paused:
    """A clock that only pauses move."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self, seconds: float) -> None:
        self.s += seconds

    def monotonic_s(self) -> float:
        return self.s

    def now(self) -> Any:
        return SystemClock().now()


def searched(identify: Faulty, clock: Paused) -> list[dict[str, Any]]:
    films = Films()
    search = SearchTracks(
        cast(Any, films), cast(Any, films), cast(Any, identify), cast(Any, films), cast(Any, clock), pause=clock
    )
    told: list[dict[str, Any]] = orjson.loads(search(OPERATOR, "f", [0, 1], "k"))["searches"]
    assert len(films.picks) == sum(one["status"] == "done" for one in told)
    return told


def test_what_a_busy_platform_refuses_is_tried_again_under_its_key() -> None:
    identify, clock = Faulty([BUSY, BUSY]), Paused()
    assert [one["status"] for one in searched(identify, clock)] == ["done", "done"]
    assert identify.asked == ["k:0", "k:0", "k:0", "k:1"]
    assert clock.s == 1.5


def test_a_track_without_an_answer_takes_no_other_answer_away() -> None:
    identify, clock = Faulty([None, *[BUSY] * 5]), Paused()
    told = searched(identify, clock)
    assert [one["status"] for one in told] == ["done", "unavailable"]
    assert (told[1]["answer"], told[1]["problem"]["code"]) == (None, "overloaded")
    assert told[0]["answer"] == {"search_id": "s-1"}


def test_where_no_track_was_searched_the_fault_is_the_answer() -> None:
    clock = Paused()
    with pytest.raises(Overloaded):
        searched(Faulty([BUSY] * 10), clock)
    assert clock.s <= 30.0


def test_a_fault_that_time_does_not_mend_ends_the_request() -> None:
    clock = Paused()
    with pytest.raises(ModelMismatch):
        searched(Faulty([None, ModelMismatch("Another model.", advice="Run the gallery's.")]), clock)
    assert clock.s == 0.0


def test_the_log_is_never_waited_for_and_without_it_nothing_more_is_searched() -> None:
    identify, clock = Faulty([NO_LOG]), Paused()
    with pytest.raises(AuditUnavailable):
        searched(identify, clock)
    assert identify.asked == ["k:0"], "the second track would only have waited for the log anew"
    assert clock.s == 0.0


def test_what_was_recorded_before_the_log_went_away_is_given() -> None:
    told = searched(Faulty([None, NO_LOG]), Paused())
    assert [(one["status"], (one["problem"] or {}).get("code")) for one in told] == [
        ("done", None),
        ("unavailable", "audit_unavailable"),
    ]
