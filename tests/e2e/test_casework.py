"""The main job over the whole running platform, with real models and real faces."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.casework import enrol, post_enrolment, post_search
from tests.support.faces import DevelopmentFaces, shared_data
from tests.support.platform import Platform

WATCHLISTS = ("custody", "sex_offenders", "op_liberal")


@pytest.fixture(scope="module")
def enrolled(platform: Platform, faces: DevelopmentFaces) -> dict[str, tuple[str, Path]]:
    """A mated subject in each watchlist: watchlist -> (subject_id, a probe that shows the same person)."""
    pairs = faces.mated_pairs()
    found = {}
    for number, watchlist in enumerate(WATCHLISTS):
        reference, probe = pairs[number * 40]
        subject_id = f"E2E-{reference.identity}"
        enrol(platform, reference.path, subject_id, watchlist)
        found[watchlist] = (subject_id, probe.path)
    return found


@pytest.fixture
def operator(platform: Platform) -> Iterator[httpx.Client]:
    with platform.client("search", "operator") as client:
        yield client


@pytest.mark.parametrize("watchlist", WATCHLISTS)
def test_an_enrolled_person_is_first_and_the_search_can_be_seen_later(
    operator: httpx.Client, enrolled: dict[str, tuple[str, Path]], watchlist: str
) -> None:
    subject_id, probe = enrolled[watchlist]
    answer = post_search(operator, probe.read_bytes(), WATCHLISTS)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    first = body["candidates"][0]
    assert (first["rank"], first["subject_id"], first["watchlist"]) == (1, subject_id, watchlist)
    assert body["searchable"] >= len(WATCHLISTS)
    assert set(body["timings_ms"]) == {"gate", "detect", "template", "gallery", "audit", "total"}
    later = operator.get(f"/v1/searches/{body['search_id']}")
    assert later.status_code == 200
    assert later.json()["candidates"] == body["candidates"]


def test_a_search_compares_only_what_was_asked_for(
    operator: httpx.Client, enrolled: dict[str, tuple[str, Path]]
) -> None:
    subject_id, probe = enrolled["sex_offenders"]
    body = post_search(operator, probe.read_bytes(), ["custody"]).json()
    assert subject_id not in {candidate["subject_id"] for candidate in body["candidates"]}
    assert {candidate["watchlist"] for candidate in body["candidates"]} == {"custody"}


def test_a_watchlist_that_the_token_does_not_permit_is_refused(
    platform: Platform, enrolled: dict[str, tuple[str, Path]]
) -> None:
    _, probe = enrolled["sex_offenders"]
    with platform.client("search", "operator", watchlists=["custody"]) as client:
        answer = post_search(client, probe.read_bytes(), ["sex_offenders"])
    assert answer.status_code == 403
    assert answer.json()["code"] == "forbidden"


def test_several_faces_ask_for_a_choice_and_a_choice_is_searched(
    operator: httpx.Client, enrolled: dict[str, tuple[str, Path]]
) -> None:
    group = shared_data() / "faces" / "deepface" / "group" / "selfie-many-people.jpg"
    asked = post_search(operator, group.read_bytes())
    assert asked.status_code == 409
    problem = asked.json()
    assert problem["code"] == "face_choice_needed"
    assert len(problem["faces"]) > 1
    chosen = post_search(operator, group.read_bytes(), face=1)
    assert chosen.status_code == 200, chosen.text
    assert chosen.json()["face"] == 1


INCOMPLETE: list[tuple[str, dict[str, Any], str]] = [
    ("no case", {"case_reference": ""}, "case_reference"),
    ("no purpose", {"purpose": ""}, "purpose"),
    ("no offence", {"offence": ""}, "offence"),
    ("unknown watchlist", {"watchlists": ["everybody"]}, "watchlist"),
    ("too short a list", {"max_candidates": 1}, "max_candidates"),
    ("too long a list", {"max_candidates": 51}, "max_candidates"),
]


@pytest.mark.parametrize(("fields", "named"), [case[1:] for case in INCOMPLETE], ids=[case[0] for case in INCOMPLETE])
def test_an_incomplete_request_is_refused_with_what_is_missing(
    operator: httpx.Client, enrolled: dict[str, tuple[str, Path]], fields: dict[str, Any], named: str
) -> None:
    _, probe = enrolled["custody"]
    answer = post_search(operator, probe.read_bytes(), **fields)
    problem = answer.json()
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert named in problem["detail"]
    assert problem["advice"]


@pytest.mark.parametrize("service", ["search", "ingest"])
def test_no_token_no_answer(platform: Platform, service: str) -> None:
    path = {"search": "/v1/searches", "ingest": "/v1/enrolments"}[service]
    answer = httpx.post(platform.url(service, path), data={"case_reference": "x"}, timeout=60, trust_env=False)
    assert answer.status_code == 401


@pytest.mark.parametrize("service", ["search", "ingest", "audit"])
def test_the_api_describes_itself(platform: Platform, service: str) -> None:
    assert httpx.get(platform.url(service, "/docs"), timeout=60, trust_env=False).status_code == 200
    described = httpx.get(platform.url(service, "/openapi.json"), timeout=60, trust_env=False).json()
    assert any(path.startswith("/v1/") for path in described["paths"])


def test_an_operator_cannot_enrol_and_a_custodian_cannot_search(
    platform: Platform, operator: httpx.Client, enrolled: dict[str, tuple[str, Path]]
) -> None:
    _, probe = enrolled["custody"]
    with platform.client("ingest", "operator") as client:
        assert post_enrolment(client, probe.read_bytes(), "E2E-none").status_code == 403
    with platform.client("search", "custodian") as client:
        assert post_search(client, probe.read_bytes()).status_code == 403


def test_the_audit_log_holds_it_all_and_verifies(
    platform: Platform, operator: httpx.Client, enrolled: dict[str, tuple[str, Path]]
) -> None:
    _, probe = enrolled["custody"]
    search_id = post_search(operator, probe.read_bytes()).json()["search_id"]
    with platform.client("audit", "auditor") as auditor:
        answer = auditor.get("/v1/audit/entries", params={"activity_id": search_id, "reason": "test"})
    assert answer.status_code == 200, answer.text
    phases = {entry["entry"]["phase"] for entry in answer.json()["entries"]}
    assert phases == {"INTENT", "DONE"}
    verified = subprocess.run(
        [sys.executable, "-m", "services.cli", "audit", "verify", str(platform.data.root)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
