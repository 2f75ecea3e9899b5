"""Searching on a person's behalf over gRPC: the person's token decides, the calling service has no rights itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.rpc.casework import IdentificationClient
from services.rpc.v1 import search_pb2
from services.shared.errors import Conflict, Forbidden, InvalidRequest, Unauthenticated
from tests.integration.search.peers import Peers
from tests.integration.search.process import SearchProcess
from tests.support.channels import ready_channel

pytestmark = pytest.mark.long


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
