"""Searching on a person's behalf over gRPC: the person's token decides, the calling service has no rights itself."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event
from typing import Any

import grpc
import pytest

from services.rpc.callers import on_behalf_of
from services.rpc.casework import IdentificationClient
from services.rpc.v1 import search_pb2, search_pb2_grpc
from services.shared.errors import (
    Conflict,
    DependencyUnavailable,
    Forbidden,
    InvalidRequest,
    Overloaded,
    Unauthenticated,
)
from tests.integration.search.peers import Peers
from tests.integration.search.process import SearchProcess
from tests.support.channels import ready_channel
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long
GIVEN_UP_S = 120.0


def request(**changes: Any) -> search_pb2.IdentifyRequest:
    fields: dict[str, Any] = {
        "image": b"face:ann",
        "case_reference": "NS/2026/1",
        "purpose": "prevention_and_detection",
        "offence": "burglary",
        "source": "cctv",
        "watchlists": ["custody"],
        "case_type": "suspect",
        "max_candidates": 5,
        **changes,
    }
    return search_pb2.IdentifyRequest(**fields)


@pytest.fixture(scope="module")
def client(shared_search: SearchProcess) -> IdentificationClient:
    return IdentificationClient(ready_channel(f"127.0.0.1:{shared_search.grpc_port}"))


def test_the_answer_is_that_of_rest_and_is_recorded_under_the_person(
    client: IdentificationClient, shared_search: SearchProcess, shared_peers: Peers
) -> None:
    answer = json.loads(client.identify(shared_search.issuer.token(sub="anna"), request()))
    assert [one["subject_id"] for one in answer["candidates"]][:2] == ["ANN", "CAT"]
    assert len(answer["candidates"]) == 5
    entries = shared_peers.audit.of(answer["search_id"])
    assert {entry.actor.person_id for entry in entries} == {"anna"}
    seen = shared_search.operator(sub="anna").see(answer["search_id"]).json()
    assert seen["candidates"] == answer["candidates"]


@pytest.mark.parametrize("bearer", ["", "x.y.z"])
def test_no_token_no_search(client: IdentificationClient, bearer: str) -> None:
    with pytest.raises(Unauthenticated):
        client.identify(bearer, request())


def test_the_persons_rights_count(client: IdentificationClient, shared_search: SearchProcess) -> None:
    issuer = shared_search.issuer
    for claims in ({"roles": ["custodian"]}, {"watchlists": ["op_liberal"]}, {"trained_until": None}):
        with pytest.raises(Forbidden):
            client.identify(issuer.token(**claims), request())


def test_an_incomplete_request_is_refused_with_its_fields(
    client: IdentificationClient, shared_search: SearchProcess
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        client.identify(shared_search.issuer.token(), request(case_reference="", watchlists=[]))
    assert {field["field"] for field in refused.value.context["fields"]} == {"case_reference", "watchlists"}


def test_the_same_key_is_answered_once_and_for_another_request_refused(
    client: IdentificationClient, shared_search: SearchProcess
) -> None:
    token = shared_search.issuer.token()
    first = json.loads(client.identify(token, request(idempotency_key="k-1")))
    again = json.loads(client.identify(token, request(idempotency_key="k-1")))
    assert again["search_id"] == first["search_id"]
    with pytest.raises(Conflict):
        client.identify(token, request(idempotency_key="k-1", offence="theft"))


def test_calls_that_are_given_up_leave_no_intent_open_and_no_place_taken(
    client: IdentificationClient, shared_search: SearchProcess, shared_peers: Peers
) -> None:
    """Some have no time left when they come, the others are cancelled while embed has them: three times as many as
    are worked on at once. Every intent gets its outcome, and afterwards as many are answered at once as before."""
    token, released = shared_search.issuer.token(), Event()
    stub = search_pb2_grpc.IdentificationStub(ready_channel(f"127.0.0.1:{shared_search.grpc_port}"))
    begun, before = shared_peers.embed.calls, set(shared_peers.audit.searches())
    shared_peers.embed.before = lambda _image: released.wait(GIVEN_UP_S)
    try:
        calls = [
            stub.Identify.future(
                # Of cases of their own: many like one another in one case are another thing.
                request(case_reference=f"NS/2026/G{number}"),
                timeout=0.0 if number % 4 == 0 else GIVEN_UP_S,
                metadata=on_behalf_of(token),
            )
            for number in range(48)
        ]
        wait_until(lambda: shared_peers.embed.calls > begun, GIVEN_UP_S, "a search that is under way")
        for call in calls:
            call.cancel()  # type: ignore[no-untyped-call]
        codes = {call.code() for call in calls}
    finally:
        released.set()
        shared_peers.embed.before = lambda _image: None
    assert codes <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}

    def unended() -> list[str]:
        given_up = set(shared_peers.audit.searches()) - before
        return [one for one in given_up if sum(phase != "INTENT" for phase in shared_peers.audit.phases(one)) != 1]

    wait_until(lambda: not unended(), GIVEN_UP_S, lambda: f"the outcomes of {unended()}")

    answers: list[bytes] = []

    def is_answered(number: int) -> bool:
        # Calls that were cancelled before they were begun may still stand in front of it.
        with suppress(Overloaded, DependencyUnavailable):
            answers.append(client.identify(token, request(case_reference=f"NS/2026/H{number}")))
            return True
        return False

    def answer(number: int) -> None:
        wait_until(lambda: is_answered(number), GIVEN_UP_S, "an answer as before")

    with ThreadPoolExecutor(8) as people:
        list(people.map(answer, range(24)))
    assert all(json.loads(answer)["candidates"] for answer in answers)
    wait_until(lambda: not unended(), GIVEN_UP_S, lambda: f"the outcomes of {unended()}")
