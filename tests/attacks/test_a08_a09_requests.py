"""A8, A9: a search without its reasons is refused before its image is decoded; a role does its own work alone."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from services.local.issuer import DEVELOPMENT_FORCE
from services.shared.errors import IMAGE_REFUSALS
from tests.attacks.scene import OTHER_FORCE, REQUEST, Scene, as_bearer, open_client, picture
from tests.support.casework import post_search
from tests.support.platform import Platform

NO_IMAGE = b"\x89PNG\r\n\x1a\n" + b"not a picture" * 10  # the gate would refuse it, with a code of its own


def gate_runs(platform: Platform) -> float:
    text = httpx.get(platform.url("embed", "/metrics"), timeout=60, trust_env=False).text
    counts = [line for line in text.splitlines() if line.startswith("likeness_embed_stage_seconds_count")]
    refusals = [line for line in text.splitlines() if line.startswith("likeness_embed_refusals_total")]
    return sum(float(line.split()[-1]) for line in (*counts, *refusals))


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": ""},
        {"purpose": "   "},
        {"purpose": "curiosity"},
        {"purpose": ["prevention_and_detection", "prevention_and_detection"]},
        {"case_reference": ""},
        {"case_reference": "\t"},
        {"case_reference": "x" * 100_000},
        {"case_reference": "NC/1\r\nSet-Cookie: a=b"},
        {"case_reference": "NC/1\x00"},
        {"offence": ""},
        {"source": ""},
        {"watchlists": []},
        {"watchlists": ["custody' OR 1=1"]},
        {"max_candidates": "10000"},
        {"max_candidates": "-1"},
        {"mode": "automatic"},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a08_a_search_without_its_reasons(platform: Platform, scene: Scene, changes: dict[str, Any]) -> None:
    before = gate_runs(platform)
    with platform.client("search", "operator") as client:
        answer = post_search(client, NO_IMAGE, **changes)
    assert answer.status_code in {403, 422}, answer.text
    assert answer.json()["code"] not in IMAGE_REFUSALS
    assert gate_runs(platform) == before


def test_a08_the_image_is_looked_at_once_the_reasons_are_there(platform: Platform, scene: Scene) -> None:
    before = gate_runs(platform)
    with platform.client("search", "operator") as client:
        answer = post_search(client, NO_IMAGE)
    assert answer.status_code == 422
    assert answer.json()["code"] in IMAGE_REFUSALS
    assert gate_runs(platform) > before


def test_a08_a_case_that_is_over_or_another_forces_is_not_searched(platform: Platform, scene: Scene) -> None:
    """Through casework, which knows cases; to search itself a case is what its force calls it."""
    with open_client(platform, "review", **as_bearer(scene.token("requester"))) as officer:
        picked = {"images": ("p.png", picture(88), "image/png")}
        sent = officer.post("/v1/requests", data=REQUEST, files=picked)
        assert sent.status_code == 201, sent.text
        request_id = sent.json()["request_id"]
        before = gate_runs(platform)
        over = officer.post(f"/v1/requests/{request_id}/withdrawal", json={"version": 1})
        assert over.json()["state"] == "withdrawn", over.text
    asked = {"version": 2, "reason": "Because.", "probe_id": "x"}
    for force, status, code in ((DEVELOPMENT_FORCE, 409, "illegal_transition"), (OTHER_FORCE, 404, "not_found")):
        with open_client(platform, "review", **as_bearer(scene.token("operator", force))) as client:
            answer = client.post(f"/v1/casework/{request_id}/searches", json=asked)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert gate_runs(platform) == before


@pytest.mark.parametrize("role", ["auditor", "administrator", "custodian", "supervisor"])
def test_a09_only_operators_search_and_see_searches(platform: Platform, scene: Scene, role: str) -> None:
    before = gate_runs(platform)
    with open_client(platform, "search", **as_bearer(scene.token(role))) as client:
        searched = post_search(client, picture(4))
        seen = client.get(f"/v1/searches/{scene.ids['search']}")
    assert (searched.status_code, seen.status_code) == (403, 403)
    assert gate_runs(platform) == before


@pytest.mark.parametrize("role", ["operator", "custodian", "supervisor", "administrator"])
def test_a09_only_auditors_read_the_log(platform: Platform, scene: Scene, role: str) -> None:
    with open_client(platform, "audit", **as_bearer(scene.token(role))) as client:
        for path in ("/entries", "/entries/0", "/export", "/checkpoint", "/keys"):
            assert client.get(f"/v1/audit{path}").status_code == 403, path


def test_a09_every_refusal_is_in_the_log_with_actor_object_and_reason(platform: Platform, scene: Scene) -> None:
    stamp = str(time.time_ns())
    token = platform.token("auditor", force=OTHER_FORCE, person_id=f"refused-{stamp}")
    with open_client(platform, "search", **as_bearer(token)) as client:
        assert post_search(client, picture(4)).status_code == 403
        assert client.get(f"/v1/searches/{scene.ids['search']}").status_code == 403
    with open_client(platform, "ingest", **as_bearer(token)) as client:
        assert client.get("/v1/enrolments").status_code == 403
    entries = scene.audit_entries(person_id=f"refused-{stamp}")
    assert [entry["phase"] for entry in entries] == ["REFUSED"] * 3
    for entry in entries:
        assert entry["actor"]["force"] == OTHER_FORCE
        assert {"problem", "reason", "code"} & entry["details"].keys(), entry
