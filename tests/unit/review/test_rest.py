"""The REST API over the use cases: forms in, states and problems out, pictures and documents inert."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from prometheus_client import CollectorRegistry

from services.review.casework_api import create_casework_router
from services.review.http_api import create_request_router
from services.review.supervision_api import create_supervision_router
from services.review.uploads import FilmSettings
from services.shared.errors import Unauthenticated
from services.shared.http import create_app
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal, TokenVerifier
from tests.unit.review.people import ANNA, BERT, FORM, OFFICER, SUE, Unit, person, png

STRANGER = person("stranger", "operator", "requester", "supervisor", force="eastmoor")
PEOPLE = {who.person_id: who.principal for who in (ANNA, BERT, SUE, OFFICER, STRANGER)}
FIELDS = {name: list(values) for name, values in FORM.items()}


class Names:
    """Takes a person's id for their token."""

    def verify(self, token: str) -> Principal:
        if token not in PEOPLE:
            raise Unauthenticated("No.")
        return PEOPLE[token]


class Api:
    def __init__(self, unit: Unit) -> None:
        app = create_app("review", Metrics(CollectorRegistry()), dict)
        verifier = cast("TokenVerifier", Names())
        app.include_router(create_request_router(unit.desk, verifier, FilmSettings()))
        for create in (create_casework_router, create_supervision_router):
            app.include_router(create(unit.desk, verifier))
        self._client = TestClient(app)

    def call(self, who: str, method: str, path: str, **content: Any) -> Response:
        return cast(
            "Response", self._client.request(method, path, headers={"Authorization": f"Bearer {who}"}, **content)
        )

    def ok(self, who: str, method: str, path: str, **content: Any) -> Any:
        answer = self.call(who, method, path, **content)
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    def do(self, who: str, base: str, what: str, **body: Any) -> Any:
        version = self.ok(who, "GET", base)["case"]["version"]
        return self.ok(who, "POST", f"{base}/{what}", json={"version": version, **body})


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return Api(Unit.open(tmp_path, min_view_s=0))


def requested(api: Api) -> str:
    sent = api.ok("officer", "POST", "/v1/requests", data=FIELDS, files=[("images", ("a", png()))])
    return str(sent["request_id"])


def searched(api: Api, base: str) -> None:
    api.do("anna", base, "acceptance", reason="Lawful and needed.")
    probe_id = api.ok("anna", "GET", base)["case"]["probes"][0]["probe_id"]
    api.do("anna", base, "assessment", probe_id=probe_id, face=0, grade="suitable")
    steps = [{"kind": "crop", "amounts": {"x": 0, "y": 0, "width": 80, "height": 80}}]
    made = api.do("anna", base, "enhancements", probe_id=probe_id, steps=steps, reason="One face.")
    found = api.do("anna", base, "searches", probe_id=probe_id, enhancement_id=made["enhancement_id"], reason="First.")
    assert (found["state"], found["candidates"]) == ("searched", 3)
    for variant in ("original", made["enhancement_id"]):
        picture = api.call("anna", "GET", f"{base}/probes/{probe_id}/{variant}")
        _assert_inert(picture, "image/jpeg")


def judged(api: Api, who: str, base: str) -> Any:
    comparison = api.do(who, base, "examination")
    for candidate in comparison["candidates"]:
        place = f"{base}/candidates/{candidate['candidate_id']}"
        opened = api.ok(who, "POST", f"{place}/opening")
        _assert_inert(api.call(who, "GET", f"{place}/references/{opened['reference_ids'][0]}"), "image/jpeg")
        body = {"version": api.ok(who, "GET", f"{base}/examination")["version"], "remarks": "Other ears."}
        comparison = api.ok(who, "PUT", f"{place}/finding", json={**body, "finding": "no_support"})
    return api.ok(who, "POST", f"{base}/signature", json={"version": comparison["version"]})


def _assert_inert(answer: Response, media_type: str) -> None:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_a_case_by_rest(api: Api) -> None:
    request_id = requested(api)
    base = f"/v1/casework/{request_id}"
    searched(api, base)
    assert judged(api, "anna", base)["state"] == "awaiting_second_review"
    assert judged(api, "bert", base)["state"] == "decided"
    assert api.call("officer", "GET", f"/v1/requests/{request_id}/result").status_code == 404
    assert api.do("bert", base, "release", retain_until="2026-12-01")["state"] == "released"
    result = api.ok("officer", "GET", f"/v1/requests/{request_id}/result")
    assert (result["potential_names"], result["audit"]["code"].split(":")[0]) == ([], "likeness")
    document = api.call("officer", "GET", f"/v1/requests/{request_id}/result.pdf")
    _assert_inert(document, "application/pdf")
    assert document.headers["content-disposition"].startswith("attachment")
    wanted = {"recipient": "Crown Court", "reason": "CPIA."}
    assert api.call("bert", "POST", f"{base}/disclosure-approvals", json=wanted).status_code == 403
    approved = api.call("sue", "POST", f"{base}/disclosure-approvals", json=wanted)
    assert approved.status_code == 201, approved.text
    pack = f"{base}/disclosure.pdf?approval={approved.json()['approval']}"
    assert api.call("sue", "GET", pack).status_code == 403
    _assert_inert(api.call("bert", "GET", pack), "application/pdf")
    assert api.call("anna", "GET", pack).json()["code"] == "approval_needed"
    kept = api.do("anna", base, "unsolved", reason="A series.", authority="DCI", expires_on="2027-01-01")
    assert kept["state"] == "unsolved"
    assert api.do("anna", base, "search-again", reason="New images.")["continuation"] is None
    early = api.call("anna", "POST", f"{base}/erasure", json={"version": kept["version"] + 1, "reason": "Over."})
    assert (early.status_code, early.json()["code"]) == (409, "retention_not_due")
    version = api.ok("officer", "GET", f"/v1/requests/{request_id}")["version"]
    report = {"version": version, "kind": "no_action"}
    assert api.ok("officer", "POST", f"/v1/requests/{request_id}/outcome", json=report)["state"] == "closed"
    assert api.ok("sue", "GET", "/v1/supervision/figures")["with_name"]["of"] == 1


def test_what_is_missing_is_named(api: Api) -> None:
    answer = api.call("officer", "POST", "/v1/requests", data={"offence": ["x"]}, files=[("images", ("a", png()))])
    assert answer.status_code == 422
    assert {field["field"] for field in answer.json()["fields"]} == FORM.keys() - {"offence"}


def test_a_stale_version_is_told_the_state_of_now(api: Api) -> None:
    base = f"/v1/casework/{requested(api)}"
    api.do("anna", base, "acceptance", reason="Lawful and needed.")
    late = api.call("bert", "POST", f"{base}/acceptance", json={"version": 1, "reason": "Lawful and needed."})
    assert late.status_code == 409
    assert {name: late.json()[name] for name in ("code", "state", "version")} == {
        "code": "changed_meanwhile",
        "state": "accepted",
        "version": 2,
    }


@pytest.mark.parametrize(("who", "status"), [("nobody", 401), ("stranger", 404)])
def test_others_find_nothing(api: Api, who: str, status: int) -> None:
    request_id = requested(api)
    for path in ("", "/result", "/result.pdf"):
        assert api.call(who, "GET", f"/v1/requests/{request_id}{path}").status_code == status
    for path in ("", "/examination", "/disclosure.pdf", "/disagreement"):
        assert api.call(who, "GET", f"/v1/casework/{request_id}{path}").status_code == status


def test_a_training_is_recorded_and_a_probe_planted(api: Api) -> None:
    training = {
        "course": "Facial comparison",
        "certificate": "1",
        "trained_on": "2026-01-05",
        "expires_on": "2028-01-05",
    }
    assert api.ok("sue", "PUT", "/v1/supervision/trainings/carl", json=training)["person_id"] == "carl"
    assert [row["is_current"] for row in api.ok("sue", "GET", "/v1/supervision/trainings")] == [True]
    fields: Mapping[str, Any] = {**FIELDS, "shown_requester": "PC 7", "subject_owner": "northshire", "subject_id": "S2"}
    sent = api.ok("sue", "POST", "/v1/supervision/known-answers", data=fields, files=[("images", ("a", png()))])
    assert sent["state"] == "received"
    assert [row["requested_by"] for row in api.ok("anna", "GET", "/v1/casework/queue")] == ["PC 7"]
