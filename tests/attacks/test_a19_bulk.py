"""A19: the whole gallery by one long list, or page by page."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.search.process import SearchThread, problem


@pytest.mark.parametrize("wanted", ["51", "10000", "-1", "0", "1", "99999999999999999999", "5e1", "50.5", "²", "50 50"])
def test_a_list_is_at_most_fifty_long(search: SearchThread, wanted: str) -> None:
    refused = problem(search.operator().search(b"face:ann", max_candidates=wanted), 422, "invalid_request")
    assert [entry["field"] for entry in refused["fields"]] == ["max_candidates"]


@pytest.mark.parametrize("mode", ["investigation", "identification"])
def test_fifty_asked_for_are_fifty_at_most(search: SearchThread, mode: str) -> None:
    answer = search.operator().search(b"face:ann", max_candidates="50", mode=mode)
    assert answer.status_code in {200, 422}  # no threshold may be set for a model of the test
    if answer.status_code == 200:
        assert len(answer.json()["candidates"]) <= 50


@pytest.mark.parametrize("field", ["page", "offset", "cursor", "after", "limit", "top_k", "min_score", "exclude"])
def test_there_is_no_next_page(search: SearchThread, field: str) -> None:
    asked: dict[str, Any] = {field: "2"}
    refused = problem(search.operator().search(b"face:ann", **asked), 422, "invalid_request")
    assert [entry["field"] for entry in refused["fields"]] == [field]


def test_a_query_does_not_turn_pages_either(search: SearchThread) -> None:
    operator = search.operator()
    first = operator.answer(b"face:ann", max_candidates="50")["candidates"]
    search_id = operator.answer(b"face:ann")["search_id"]
    for query in ("offset=50", "page=2", "max_candidates=10000", "limit=10000"):
        again = operator.http.get(f"/v1/searches/{search_id}?{query}").json()["candidates"]
        assert again == first[:20]


@pytest.mark.parametrize(
    "path",
    ["/v1/searches", "/v1/searches/", "/v1/references", "/v1/gallery", "/v1/subjects", "/v1/export", "/v1/candidates"],
)
def test_nothing_lists_searches_references_or_people(search: SearchThread, path: str) -> None:
    for roles in (["operator"], ["administrator"], ["auditor"], ["supervisor"]):
        assert search.operator(roles=roles).http.get(path).status_code in {404, 405, 307}
