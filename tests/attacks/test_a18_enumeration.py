"""A18: mass enumeration, of ids and by searches, by one person and by many of one force."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from services.rpc.v1 import audit_pb2
from services.shared.ids import new_id
from tests.integration.search.peers import Peers
from tests.integration.search.process import SearchProcess, problem

pytestmark = pytest.mark.long

# A third of a minute's worth may come at once.
SEARCHES, REQUESTS = 6, 180


@pytest.fixture(scope="module")
def search(peers: Peers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchProcess]:
    limits = {
        "RATE_LIMITS__PERSON_PER_MINUTE": str(REQUESTS),
        "RATE_LIMITS__FORCE_PER_MINUTE": str(2 * REQUESTS),
        "SEARCH_RATE_LIMITS__PERSON_PER_MINUTE": str(SEARCHES),
        "SEARCH_RATE_LIMITS__FORCE_PER_MINUTE": str(2 * SEARCHES),
    }
    with SearchProcess(tmp_path_factory.mktemp("search"), peers, **limits) as process:
        yield process


def statuses(responses: list[httpx.Response]) -> dict[int, int]:
    counted: dict[int, int] = {}
    for response in responses:
        counted[response.status_code] = counted.get(response.status_code, 0) + 1
    return counted


def test_searches_of_one_person_are_refused_before_the_image_is_looked_at(search: SearchProcess, peers: Peers) -> None:
    operator = search.operator(sub="op-a", force="afield")
    before = peers.embed.calls
    answers = [operator.search(b"face:ann") for _ in range(60)]
    counted = statuses(answers)
    assert set(counted) == {200, 429}
    # Those that came at once, and one every ten seconds while it lasted.
    assert SEARCHES // 3 <= counted[200] < 50
    assert peers.embed.calls - before == counted[200]
    last = next(answer for answer in reversed(answers) if answer.status_code == 429)
    body = problem(last, 429, "too_many_requests")
    assert (body["scope"], int(last.headers["Retry-After"])) == ("person", body["retry_after_s"])
    entries = [e for e in peers.audit.entries if e.activity == "rate_limit" and e.actor.person_id == "op-a"]
    assert entries
    assert len(entries) <= 6
    assert all((e.phase, e.details["scope"]) == (audit_pb2.REFUSED, "person") for e in entries)


def test_many_tokens_of_one_force_share_its_limit(search: SearchProcess) -> None:
    operators = [search.operator(sub=f"op-{person}", force="bfield") for person in range(10)]
    answers = [operator.search(b"face:ann") for operator in operators]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert {problem(answer, 429, "too_many_requests")["scope"] for answer in refused} == {"force"}
    assert search.operator(sub="op-c", force="cfield").search(b"face:ann").status_code == 200


def test_a_thousand_ids(search: SearchProcess) -> None:
    prowler = search.operator(sub="op-d", force="dfield").http
    counted = statuses([prowler.get(f"/v1/searches/{new_id()}") for _ in range(1000)])
    assert set(counted) == {404, 429}
    assert counted[404] < 1000 - 100
    assert search.metric('likeness_http_rate_limited_total{scope="person"}') >= counted[429]
