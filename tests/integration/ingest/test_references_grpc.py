"""Enrolled images for those who judge candidates: by the person's own token, and nothing to be learnt without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.rpc.casework import ReferenceClient
from services.shared.errors import NotFound, Unauthenticated
from tests.integration.ingest.service import IngestProcess
from tests.support.channels import ready_channel

pytestmark = pytest.mark.long

SUBJECT = ("custody", "northshire", "NS-000801")


@pytest.fixture(scope="module")
def client(ingest: IngestProcess) -> ReferenceClient:
    return ReferenceClient(ready_channel(f"127.0.0.1:{ingest.grpc_port}"))


@pytest.fixture(scope="module")
def enrolled(ingest: IngestProcess) -> dict[str, bytes]:
    """Two images of one subject: reference_id -> content, the older capture first."""
    custodian = ingest.custodian()
    found = {}
    for day, image in (("2025-02-01", b"one face, younger"), ("2026-02-01", b"one face, older")):
        enrolment = custodian.enrol(image, subject_id=SUBJECT[2], captured_on=day)
        found[str(custodian.settled(enrolment.json()["enrolment_id"])["reference_id"])] = image
    return found


def test_a_subjects_references_come_newest_first_with_their_images(
    client: ReferenceClient, ingest: IngestProcess, enrolled: dict[str, bytes]
) -> None:
    token = ingest.token("operator")
    listed = client.references_of(token, *SUBJECT)
    assert [one.reference_id for one in listed] == list(reversed(enrolled))
    assert [one.captured_on for one in listed] == ["2026-02-01", "2025-02-01"]
    for reference_id, content in enrolled.items():
        assert client.image(token, *SUBJECT, reference_id) == content


def test_without_the_watchlist_or_the_subject_there_is_nothing(
    client: ReferenceClient, ingest: IngestProcess, enrolled: dict[str, bytes]
) -> None:
    reference_id = next(iter(enrolled))
    other = ingest.token("operator", watchlists=["op_liberal"])
    mine = ingest.token("operator")
    asked: list[Callable[[], object]] = [
        lambda: client.references_of(other, *SUBJECT),
        lambda: client.image(other, *SUBJECT, reference_id),
        lambda: client.references_of(mine, "custody", "northshire", "NS-nobody"),
        lambda: client.references_of(mine, "custody", "eastmoor", SUBJECT[2]),
        lambda: client.image(mine, *SUBJECT, "00000000-0000-7000-8000-000000000000"),
    ]
    told = set()
    for ask in asked:
        with pytest.raises(NotFound) as refused:
            ask()
        told.add((refused.value.detail, refused.value.advice))
    assert len(told) == 1


@pytest.mark.parametrize("bearer", ["", "x.y.z"])
def test_no_token_no_image(client: ReferenceClient, enrolled: dict[str, bytes], bearer: str) -> None:
    with pytest.raises(Unauthenticated):
        client.references_of(bearer, *SUBJECT)


def test_a_withdrawn_reference_is_gone(
    client: ReferenceClient, ingest: IngestProcess, enrolled: dict[str, bytes]
) -> None:
    custodian = ingest.custodian()
    enrolment = custodian.enrol(b"one face, to go", subject_id="NS-000802").json()["enrolment_id"]
    reference_id = str(custodian.settled(enrolment)["reference_id"])
    token = ingest.token("operator")
    subject = ("custody", "northshire", "NS-000802")
    assert len(client.references_of(token, *subject)) == 1
    withdrawal = {"reason": "The subject asked, and was right."}
    custodian.http.post(f"/v1/enrolments/{enrolment}/withdrawal", json=withdrawal).raise_for_status()
    with pytest.raises(NotFound):
        client.image(token, *subject, reference_id)
