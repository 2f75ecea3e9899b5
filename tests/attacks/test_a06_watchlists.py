"""A6: an operator without a watchlist tries to have it searched. What the gallery is asked for is looked at itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import pytest

from services.search.ports import GalleryAnswer, SearchScope
from services.shared.biometric import Vector
from tests.integration.search.peers import Peers
from tests.integration.search.process import FORM, SearchThread, problem

CUSTODY = (SearchScope("custody", frozenset({"northshire"})),)


class Watched:
    """A running search and the scopes of every query that its gallery has been asked."""

    def __init__(self, search: SearchThread) -> None:
        self.search = search
        self.asked: list[Sequence[SearchScope]] = []
        store = search._service.gallery._store
        inner = store.search

        def spy(probe: Vector, scopes: Sequence[SearchScope], limit: int) -> GalleryAnswer:
            self.asked.append(tuple(scopes))
            return inner(probe, scopes, limit)

        store.search = spy  # type: ignore[method-assign]

    def post(
        self, data: Mapping[str, Any], *, headers: Mapping[str, str] | None = None, path: str = ""
    ) -> httpx.Response:
        """A search by an operator whose token names custody alone."""
        self.asked.clear()
        client = self.search.operator(watchlists=["custody"]).http
        files = {"image": ("probe.jpg", b"face:ann", "image/jpeg")}
        return client.post(f"/v1/searches{path}", data=dict(data), files=files, headers=headers)


@pytest.fixture(scope="module")
def watched(peers: Peers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with SearchThread(tmp_path_factory.mktemp("search"), peers) as search:
        yield Watched(search)


@pytest.mark.parametrize(
    ("watchlists", "status", "code"),
    [
        (["sex_offenders"], 403, "forbidden"),
        (["custody", "sex_offenders"], 403, "forbidden"),
        (["op_liberal", "sex_offenders", "custody"], 403, "forbidden"),
        ([], 422, "invalid_request"),
        ([""], 422, "invalid_request"),
        (["all"], 422, "invalid_request"),
        (["*"], 422, "invalid_request"),
        (["custody", "*"], 422, "invalid_request"),
        (["custody,sex_offenders"], 422, "invalid_request"),
        (["custody' or watchlist == 'sex_offenders"], 422, "invalid_request"),
        (['custody"] or owner in ["eastmoor'], 422, "invalid_request"),
        (["custody\x00sex_offenders"], 422, "invalid_request"),
        (['{"$ne": "custody"}'], 422, "invalid_request"),
        (["SEX_OFFENDERS"], 422, "invalid_request"),
        (["sex\u200boffenders"], 422, "invalid_request"),
    ],
    ids=repr,
)
def test_what_is_not_permitted_is_refused_and_the_gallery_never_asked(
    watched: Watched, watchlists: list[str], status: int, code: str
) -> None:
    problem(watched.post({**FORM, "watchlists": watchlists}), status, code)
    assert watched.asked == []


@pytest.mark.parametrize(
    "fields",
    [
        {"watchlists[]": "sex_offenders"},
        {"watchlist": "sex_offenders"},
        {"filter": "watchlist == 'sex_offenders'"},
        {"owners": "eastmoor"},
        {"request": '{"watchlists": ["sex_offenders"], "watchlists": ["custody"]}'},
        {"force": "eastmoor"},
        {"roles": "administrator"},
    ],
    ids=str,
)
def test_other_fields_do_not_name_watchlists_owners_or_who_one_is(watched: Watched, fields: dict[str, str]) -> None:
    refused = problem(watched.post({**FORM, **fields}), 422, "invalid_request")
    assert [entry["field"] for entry in refused["fields"]] == list(fields)
    assert watched.asked == []


def test_json_in_place_of_the_form_is_not_read(watched: Watched) -> None:
    watched.asked.clear()
    client = watched.search.operator(watchlists=["custody"]).http
    body = b'{"watchlists": ["custody"], "watchlists": ["sex_offenders"], "image": "ZmFjZTphbm4="}'
    response = client.post("/v1/searches", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert watched.asked == []


@pytest.mark.parametrize(
    "way",
    [
        {"path": "?watchlists=sex_offenders"},
        {"headers": {"X-Watchlists": "sex_offenders", "X-Forwarded-User": "op-9", "X-Force": "eastmoor"}},
        {"headers": {"Cookie": "watchlists=sex_offenders"}},
    ],
    ids=str,
)
def test_query_and_headers_change_nothing_of_what_is_asked(watched: Watched, way: dict[str, Any]) -> None:
    answer = watched.post({**FORM, "watchlists": ["custody", "custody"]}, **way)
    assert answer.status_code == 200, answer.text
    assert set(watched.asked) == {CUSTODY}
    assert {candidate["watchlist"] for candidate in answer.json()["candidates"]} == {"custody"}


def test_an_idempotency_key_is_no_way_to_an_answer_that_is_no_longer_permitted(watched: Watched) -> None:
    key = {"Idempotency-Key": "a06"}
    full = watched.search.operator()
    assert full.search(b"face:ann", watchlists=["sex_offenders"], headers=key).status_code == 200
    problem(watched.post({**FORM, "watchlists": ["sex_offenders"]}, headers=key), 403, "forbidden")
    assert watched.asked == []


def test_the_same_person_on_two_watchlists_is_shown_from_those_one_may_see(watched: Watched) -> None:
    full = watched.search.operator().answer(b"face:ann", watchlists=["custody", "sex_offenders"])
    [first] = [candidate for candidate in full["candidates"] if candidate["subject_id"] == "ANN"]
    own = watched.post(FORM).json()
    [same] = [candidate for candidate in own["candidates"] if candidate["subject_id"] == "ANN"]
    assert (first["watchlist"], same["watchlist"], same["reference_id"]) == ("custody", "custody", "r-ann-1")
    assert "sex_offenders" not in str(own)
