"""The enrolment API of a real ingest process, over real sockets."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from services.rpc.v1 import audit_pb2
from services.shared.ids import new_id
from tests.integration.ingest.fakes import FakePeers
from tests.integration.ingest.service import FORM, Custodian, IngestProcess
from tests.support.waiting import wait_until


def image(prefix: bytes = b"portrait") -> bytes:
    """Bytes nobody has sent yet."""
    return prefix + new_id().encode()


@pytest.fixture
def custodian(ingest: IngestProcess) -> Custodian:
    return ingest.custodian()


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["detail"]
    assert body["advice"]
    return answer.status_code, body["code"]


def test_an_image_is_accepted_enrolled_and_announced(
    ingest: IngestProcess, peers: FakePeers, custodian: Custodian
) -> None:
    answer = custodian.enrol(image(), subject_id="NS-42")
    enrolment_id = answer.json()["enrolment_id"]
    assert (answer.status_code, answer.json()["state"]) == (202, "accepted")
    assert answer.headers["location"] == f"/v1/enrolments/{enrolment_id}"
    body = custodian.settled(enrolment_id)
    assert (body["state"], body["reason"], body["licence"]) == ("enrolled", "", "Apache-2.0")
    assert body["quality"]["unified"] == 80
    assert "template" not in body
    assert peers.gallery.references[body["reference_id"]][1:] == ("custody", "NS-42")
    assert enrolment_id in peers.audit.intents()
    [outcome] = peers.audit.terminal(enrolment_id)
    assert outcome.phase == audit_pb2.DONE
    wait_until(lambda: any(e.key == "northshire/NS-42" for e in ingest.events()), 60, "the event")


@pytest.mark.parametrize(
    ("prefix", "state", "reason"),
    [
        (b"noface", "refused", "no_face_found"),
        (b"twofaces", "refused", "several_faces"),
        (b"tiny", "refused", "quality_too_low"),
        (b"blurred", "refused", "quality_too_low"),
        (b"broken", "refused", "image_undecodable"),
        (b"crash", "quarantined", "crashes_analysis"),
        (b"bystander", "enrolled", ""),
    ],
)
def test_each_kind_of_image_gets_its_outcome(
    peers: FakePeers, custodian: Custodian, prefix: bytes, state: str, reason: str
) -> None:
    enrolment_id = custodian.enrol(image(prefix)).json()["enrolment_id"]
    body = custodian.settled(enrolment_id)
    assert (body["state"], body["reason"]) == (state, reason)
    assert bool(body["detail"]) == bool(reason)
    assert (body["reference_id"] in peers.gallery.references) == (state == "enrolled")
    assert len(peers.audit.terminal(enrolment_id)) == 1


def test_the_same_image_again_is_the_same_enrolment(custodian: Custodian) -> None:
    content = image()
    first, again = custodian.enrol(content), custodian.enrol(content)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["enrolment_id"] == again.json()["enrolment_id"]
    custodian.settled(first.json()["enrolment_id"])
    assert custodian.enrol(content).json()["state"] == "enrolled"


def test_the_same_image_on_another_watchlist_or_subject_is_another_enrolment(custodian: Custodian) -> None:
    content = image()
    answers = [
        custodian.enrol(content),
        custodian.enrol(content, watchlist="sex_offenders"),
        custodian.enrol(content, subject_id="NS-7777"),
    ]
    assert [answer.status_code for answer in answers] == [202, 202, 202]
    assert len({answer.json()["enrolment_id"] for answer in answers}) == 3


def test_twenty_clients_at_once_make_one_enrolment(
    ingest: IngestProcess, peers: FakePeers, custodian: Custodian
) -> None:
    content = image()
    known = peers.audit.intents()

    def enrolled(_number: int) -> httpx.Response:
        own = ingest.custodian()
        answers: list[httpx.Response] = []

        def is_answered() -> bool:
            answers.append(own.enrol(content))
            return answers[-1].status_code != 503  # a busy machine was late with the log: nothing was accepted

        wait_until(is_answered, 120, "an answer")
        return answers[-1]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(enrolled, range(20)))
    assert {answer.status_code for answer in answers} <= {200, 202}
    assert sum(answer.status_code == 202 for answer in answers) == 1
    [enrolment_id] = {answer.json()["enrolment_id"] for answer in answers}
    custodian.settled(enrolment_id)
    # Whoever lost the race has written an intent all the same, and each has its end.
    begun = peers.audit.intents() - known
    wait_until(lambda: all(peers.audit.outcomes_by_activity()[each] == 1 for each in begun), 180, "every intent's end")


def test_an_idempotency_key_stands_for_one_request(custodian: Custodian) -> None:
    content, key = image(), {"Idempotency-Key": new_id()}
    first, again = custodian.enrol(content, headers=key), custodian.enrol(content, headers=key)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["enrolment_id"] == again.json()["enrolment_id"]
    assert problem(custodian.enrol(image(), headers=key)) == (409, "idempotency_key_reused")
    assert problem(custodian.enrol(content, headers=key, subject_id="NS-1")) == (409, "idempotency_key_reused")


TOMORROW = (datetime.now(UTC) + timedelta(days=1, hours=2)).date().isoformat()


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"watchlist": "no_such"}, 422, "unknown_watchlist"),
        ({"watchlist": ""}, 422, "invalid_request"),
        ({"subject_id": ""}, 422, "invalid_request"),
        ({"lawful_basis": "soa_2003_part2"}, 422, "lawful_basis_not_allowed"),
        ({"captured_on": "01/03/2026"}, 422, "captured_on_malformed"),
        ({"captured_on": "2026-02-30"}, 422, "captured_on_malformed"),
        ({"captured_on": TOMORROW}, 422, "captured_on_in_future"),
        ({"owner": "eastmoor"}, 403, "forbidden"),
        ({"watchlist": "op_liberal", "agreement_reference": "OPL-OTHER"}, 422, "agreement_not_in_force"),
        ({"subject_id": "SYNTHETIC-000001"}, 422, "invalid_request"),
        ({"subject_id": "x" * 201}, 422, "invalid_request"),
        ({"subject_id": "a\x00b"}, 422, "invalid_request"),
        ({"roles": "administrator"}, 422, "invalid_request"),
        ({"source": "kafka"}, 422, "invalid_request"),
    ],
)
def test_what_is_wrong_is_named(custodian: Custodian, fields: dict[str, str], status: int, code: str) -> None:
    assert problem(custodian.enrol(image(), headers=None, **fields)) == (status, code)


def test_an_owner_without_an_agreement_in_force_is_refused(ingest: IngestProcess) -> None:
    westvale = ingest.custodian(force="westvale")
    answer = westvale.enrol(image(), owner="westvale", watchlist="op_liberal")
    assert problem(answer) == (422, "agreement_not_in_force")
    assert westvale.enrol(image(), owner="westvale").status_code == 202


def test_the_agreement_in_force_is_recorded(custodian: Custodian) -> None:
    answer = custodian.enrol(image(), watchlist="op_liberal")
    assert custodian.get(answer.json()["enrolment_id"])["agreement_reference"] == "OPL-2026-NORTHSHIRE"


def test_an_empty_and_a_missing_image_are_refused(custodian: Custodian) -> None:
    assert problem(custodian.enrol(b"")) == (422, "image_empty")
    answer = custodian.http.post("/v1/enrolments", data=FORM, files={"other": ("a", b"a")})
    assert problem(answer) == (422, "invalid_request")
    assert problem(custodian.http.post("/v1/enrolments", json=FORM)) == (422, "invalid_request")


def test_an_image_over_the_limit_is_refused(custodian: Custodian) -> None:
    assert problem(custodian.enrol(bytes(33 * 1024 * 1024))) == (413, "payload_too_large")


def test_only_custodians_with_the_watchlist_enrol(ingest: IngestProcess, peers: FakePeers) -> None:
    assert ingest.custodian(role="operator").enrol(image()).status_code == 403
    assert ingest.custodian(watchlists=["custody"]).enrol(image(), watchlist="sex_offenders").status_code == 403
    refusals = [e for e in peers.audit.entries if e.phase == audit_pb2.REFUSED and e.details["reason"] == "forbidden"]
    assert {e.actor.person_id for e in refusals} >= {"northshire-operator", "northshire-custodian"}


def test_no_token_is_told_nothing_and_its_body_is_not_read(ingest: IngestProcess) -> None:
    answer = httpx.post(f"{ingest.url}/v1/enrolments", content=b"no form at all", timeout=60)
    assert problem(answer) == (401, "unauthenticated")
    assert problem(Custodian(ingest.url, "x.y.z").enrol(image())) == (401, "unauthenticated")


def test_another_forces_enrolment_is_not_there(ingest: IngestProcess, custodian: Custodian) -> None:
    enrolment_id = custodian.enrol(image(), watchlist="sex_offenders").json()["enrolment_id"]
    strangers = [ingest.custodian(force="eastmoor"), ingest.custodian(watchlists=["custody"])]
    for stranger in strangers:
        for path in (enrolment_id, new_id(), "no-id"):
            assert problem(stranger.http.get(f"/v1/enrolments/{path}")) == (404, "not_found")
        withdrawal = stranger.http.post(f"/v1/enrolments/{enrolment_id}/withdrawal", json={"reason": "mine now"})
        assert problem(withdrawal) == (404, "not_found")
        assert stranger.outcomes([enrolment_id]) == {}
    assert ingest.custodian(role="operator").http.get(f"/v1/enrolments/{enrolment_id}").status_code == 403


def test_pages_hold_every_enrolment_once(ingest: IngestProcess) -> None:
    force = "pageshire"
    custodian = ingest.custodian(force=force)
    made = [custodian.enrol(image(), owner=force).json()["enrolment_id"] for _ in range(7)]
    made.append(custodian.enrol(image(b"noface"), owner=force).json()["enrolment_id"])
    for enrolment_id in made:
        custodian.settled(enrolment_id)
    found: list[str] = []
    after = ""
    while True:
        page = custodian.http.get("/v1/enrolments", params={"limit": 3, "after": after}).json()
        found += [item["enrolment_id"] for item in page["enrolments"]]
        after = page["next_after"]
        if not after:
            break
    assert found == sorted(made)
    assert page["counts"] == {"accepted": 0, "enrolled": 7, "refused": 1, "quarantined": 0, "withdrawn": 0}
    refused = custodian.http.get("/v1/enrolments", params={"state": "refused"}).json()["enrolments"]
    assert [item["reason"] for item in refused] == ["no_face_found"]


def batch(
    custodian: Custodian, images: list[bytes], items: list[dict[str, str]] | str, **fields: str
) -> httpx.Response:
    text = items if isinstance(items, str) else json.dumps(items)
    shared = {name: value for name, value in FORM.items() if name != "subject_id"}
    files = [("image", ("i.jpg", content)) for content in images]
    return custodian.http.post("/v1/enrolments/batch", data={**shared, **fields, "items": text}, files=files)


def test_a_batch_has_a_result_an_image_and_one_mistake_is_no_others_fault(custodian: Custodian) -> None:
    twice = image()
    contents = [image(), twice, b"", image(), image(), twice]
    items = [
        {"subject_id": "B-1"},
        {"subject_id": "B-2"},
        {"subject_id": "B-3"},
        {"subject_id": "B-4", "owner": "eastmoor"},
        {"subject_id": "B-5", "watchlist": "nowhere"},
        {"subject_id": "B-2"},
    ]
    results = batch(custodian, contents, items).json()["results"]
    assert [result["status"] for result in results] == [202, 202, 422, 403, 422, 200]
    codes = [result["problem"]["code"] for result in results if result["problem"]]
    assert codes == ["image_empty", "forbidden", "unknown_watchlist"]
    assert results[1]["enrolment_id"] == results[5]["enrolment_id"]
    for result in (results[0], results[1]):
        assert custodian.settled(result["enrolment_id"])["state"] == "enrolled"


@pytest.mark.parametrize("items", ["", "nonsense", "{}", '[{"subject_id": 7}]', '[{"no": "x"}]', "[]"])
def test_a_batch_with_wrong_items_is_refused_whole(custodian: Custodian, items: str) -> None:
    assert problem(batch(custodian, [image()], items)) == (422, "invalid_request")


def test_a_withdrawn_reference_leaves_the_gallery_and_stays_out(
    ingest: IngestProcess, peers: FakePeers, custodian: Custodian
) -> None:
    content = image()
    enrolment_id = custodian.enrol(content, subject_id="NS-W1").json()["enrolment_id"]
    reference_id = custodian.settled(enrolment_id)["reference_id"]
    path = f"/v1/enrolments/{enrolment_id}/withdrawal"
    assert problem(custodian.http.post(path, json={"reason": " "})) == (422, "invalid_request")
    answer = custodian.http.post(path, json={"reason": "no further action, review of 2026-11"})
    assert (answer.status_code, answer.json()["state"]) == (202, "withdrawn")
    wait_until(lambda: reference_id not in peers.gallery.references, 60, "the gallery to let go")
    assert peers.gallery.withdrawn[reference_id] > 0
    body = custodian.get(enrolment_id)
    assert (body["state"], body["reason"]) == ("withdrawn", "no further action, review of 2026-11")
    assert custodian.http.post(path, json={"reason": "again"}).status_code == 202
    assert custodian.enrol(content, subject_id="NS-W1").json() == {"enrolment_id": enrolment_id, "state": "withdrawn"}
    erasures = [e for e in peers.audit.entries if e.operation == audit_pb2.ERASURE and e.activity_id == enrolment_id]
    assert [e.phase for e in erasures] == [audit_pb2.INTENT, audit_pb2.DONE]
    assert reference_id not in {i for b in ingest.ledger().read_references("fake-model-1") for i in b.reference_ids}
    wait_until(lambda: any(e.topic == "likeness.reference-withdrawn.v1" for e in ingest.events()), 60, "the event")


def test_the_api_describes_itself(ingest: IngestProcess) -> None:
    document = httpx.get(f"{ingest.url}/openapi.json", timeout=60).json()
    form = document["paths"]["/v1/enrolments"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["required"]) == {"image", *FORM}
    assert httpx.get(f"{ingest.url}/docs", timeout=60).status_code == 200


def test_metrics_count_outcomes_by_reason(ingest: IngestProcess, custodian: Custodian) -> None:
    custodian.settled(custodian.enrol(image(b"noface")).json()["enrolment_id"])
    text = httpx.get(f"{ingest.url}/metrics", timeout=60).text
    assert 'likeness_ingest_enrolments_total{reason="no_face_found",state="refused",watchlist="all"}' in text
    assert 'watchlist="custody"' not in text
