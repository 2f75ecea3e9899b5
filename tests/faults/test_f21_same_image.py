"""F21: one image enrolled by 20 clients at once; one person on two watchlists. Every service real."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import monotonic

import pytest

from tests.support.casework import post_enrolment, post_search, wait_settled
from tests.support.platform import Platform
from tests.support.portraits import portraits

pytestmark = pytest.mark.long

CLIENTS = 20
WATCHLISTS = ("custody", "sex_offenders", "op_liberal")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("platform")) as running:
        yield running


def test_one_record_each_watchlist_and_each_is_shown_to_whom_it_may_be(platform: Platform) -> None:
    image = portraits()[1]
    barrier, deadline = Barrier(CLIENTS), monotonic() + 180

    def enrol(number: int) -> str:
        watchlist = WATCHLISTS[number % len(WATCHLISTS)]
        with platform.client("ingest", "custodian", timeout_s=60) as client:
            barrier.wait(60)
            answer = post_enrolment(client, image, "F21-ANN", watchlist)
            while answer.status_code == 503:  # the log could not be written in time, and nothing was accepted
                assert monotonic() < deadline, answer.text
                answer = post_enrolment(client, image, "F21-ANN", watchlist)
        assert answer.status_code in {200, 202}, answer.text
        return f"{watchlist} {answer.json()['enrolment_id']}"

    with ThreadPoolExecutor(CLIENTS) as pool:
        told = set(pool.map(enrol, range(CLIENTS)))
    assert sorted(line.split()[0] for line in told) == sorted(WATCHLISTS)
    with platform.client("ingest", "custodian") as client:
        ids = {line.split()[0]: line.split()[1] for line in told}
        assert set(wait_settled(client, ids.values()).values()) == {"enrolled"}
        records = {name: client.get(f"/v1/enrolments/{enrolment_id}").json() for name, enrolment_id in ids.items()}
    assert {name: record["watchlist"] for name, record in records.items()} == {name: name for name in ids}
    assert records["custody"]["lawful_basis"] != records["sex_offenders"]["lawful_basis"]

    both = ("custody", "sex_offenders")
    assert seen(platform, image, both, ("custody",)) == {"custody"}
    assert seen(platform, image, both, ("sex_offenders",)) == {"sex_offenders"}
    assert len(seen(platform, image, both, both)) == 1  # one candidate a subject
    with platform.client("search", "operator", watchlists=["custody"]) as client:
        assert post_search(client, image, both).status_code == 403
        answer = post_search(client, image, ("custody",))
        assert "sex_offenders" not in answer.text


def test_a_withdrawn_agreement_ends_enrolment_and_search_at_once(platform: Platform) -> None:
    """Over the real doors: REST of search, gRPC from ingest to search with certificates."""
    image = portraits()[3]
    with platform.client("ingest", "custodian") as client:
        before = post_enrolment(client, image, "F21-BOB", "op_liberal")
        assert before.status_code in {200, 202}, before.text
    with platform.client("search", "administrator") as client:
        body = {"reason": "consent ended"}
        ended = client.post("/v1/agreements/OPL-2026-NORTHSHIRE/withdrawal", json=body)
        assert (ended.status_code, ended.json()["is_in_force"]) == (200, False), ended.text
    with platform.client("ingest", "custodian") as client:
        after = post_enrolment(client, image, "F21-CAT", "op_liberal")
        assert (after.status_code, after.json()["code"]) == (422, "agreement_not_in_force")
    with platform.client("search", "operator") as client:
        refused = post_search(client, image, ("op_liberal",))
        assert (refused.status_code, refused.json()["reasons"]) == (403, ["no_agreement_in_force"])


def seen(platform: Platform, image: bytes, permitted: tuple[str, ...], asked: tuple[str, ...]) -> set[str]:
    """The watchlists of the candidates that are this person."""
    with platform.client("search", "operator", watchlists=list(permitted)) as client:
        answer = post_search(client, image, asked)
    assert answer.status_code == 200, answer.text
    return {c["watchlist"] for c in answer.json()["candidates"] if c["subject_id"] == "F21-ANN"}
