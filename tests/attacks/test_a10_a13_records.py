"""A10 to A13: nobody edits the log, becomes somebody else by saying so, gets a link to an image, or names a file."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.audit.cli import audit_app
from services.rpc.v1 import audit_pb2
from tests.attacks.scene import OTHER_FORCE, REQUEST, Scene, as_bearer, open_client, picture
from tests.support.casework import post_enrolment, post_search
from tests.support.exporting import approve_export
from tests.support.platform import Platform

SERVICES_WITH_ROUTES = ("search", "ingest", "audit", "review")


def test_a10_no_route_and_no_call_changes_an_entry(platform: Platform, scene: Scene) -> None:
    with open_client(platform, "audit", **as_bearer(scene.token("administrator"))) as client:
        listed = client.get("/openapi.json").json()["paths"]
        assert {method for item in listed.values() for method in item} <= {"get", "post"}
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            for path in ("/entries/0", "/entries", "/export", "/checkpoint", "/keys"):
                answer = client.request(method, f"/v1/audit{path}", json={"entry": {}})
                assert answer.status_code in {404, 405}, (method, path)
    [service] = audit_pb2.DESCRIPTOR.services_by_name.values()
    changing = ("Update", "Delete", "Remove", "Set", "Edit", "Truncate", "Restore")
    assert not [method.name for method in service.methods if method.name.startswith(changing)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET canonical = x'00' WHERE sequence = 0",
        "DELETE FROM entry WHERE sequence = 0",
        "DELETE FROM entry",
        "INSERT OR REPLACE INTO entry SELECT * FROM entry WHERE sequence = 0",
        "UPDATE checkpoint SET tree_size = 0",
        "DELETE FROM checkpoint",
        "DELETE FROM signing_key",
    ],
)
def test_a10_the_database_itself_refuses(platform: Platform, scene: Scene, statement: str) -> None:
    """Whoever drops the triggers first is found by the proofs: tests/faults/test_f20_audit_tampered.py."""
    path = platform.data.root / "audit" / "audit.sqlite"
    connection = sqlite3.connect(path, timeout=30)
    try:
        with pytest.raises(sqlite3.DatabaseError):
            connection.execute(statement)
    finally:
        connection.rollback()
        connection.close()


def test_a10_no_command_changes_an_entry() -> None:
    """Rotating the key makes an entry; everything else reads."""
    commands = {command.name for command in audit_app.registered_commands}
    assert commands == {"verify", "export", "approve", "rotate-key"}
    assert not audit_app.registered_groups


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-User": "local-operator"},
        {"X-Remote-User": "local-operator", "X-Role": "operator", "X-Force": "northshire"},
        {"X-Force": "northshire", "Force": "northshire", "Roles": "operator"},
        {"X-Original-URL": "/v1/audit/entries", "X-Rewrite-URL": "/healthz"},
        {"X-HTTP-Method-Override": "GET", "Forwarded": "for=127.0.0.1;by=local-operator"},
    ],
    ids=str,
)
def test_a11_headers_make_nobody_somebody_else(platform: Platform, scene: Scene, headers: dict[str, str]) -> None:
    search = f"/v1/searches/{scene.ids['search']}"
    other = as_bearer(scene.token("operator", OTHER_FORCE))
    auditor = as_bearer(scene.token("auditor"))
    with open_client(platform, "search") as client:
        assert client.get(search, headers=headers).status_code == 401
        assert client.get(search, headers={**headers, **other}).status_code == 404
        assert client.get(search, headers={**headers, **auditor}).status_code == 403


@pytest.mark.parametrize("field", ["role", "roles", "force", "person_id", "sub", "actor", "token", "principal"])
def test_a11_fields_make_nobody_somebody_else(platform: Platform, scene: Scene, field: str) -> None:
    with open_client(platform, "search", **as_bearer(scene.token("auditor"))) as client:
        assert post_search(client, picture(4), **{field: "operator"}).status_code in {403, 422}
    with open_client(platform, "search", **as_bearer(scene.token("operator"))) as client:
        before = _searches(scene, f"attacker-operator-{OTHER_FORCE}")
        answer = post_search(client, picture(4), **{field: OTHER_FORCE})
        assert answer.status_code == 422, answer.text
        assert field in answer.text
        query = client.get(f"/v1/searches/{scene.ids['search']}", params={field: OTHER_FORCE})
        assert query.status_code == 200
        assert _searches(scene, f"attacker-operator-{OTHER_FORCE}") == before


@pytest.mark.parametrize("field", ["force", "requested_by", "person_id", "state", "watchlist_permissions", "due_at"])
def test_a11_a_request_is_its_senders_whatever_it_says(platform: Platform, scene: Scene, field: str) -> None:
    with open_client(platform, "review", **as_bearer(scene.token("requester"))) as client:
        image = {"images": ("p.png", picture(89), "image/png")}
        answer = client.post("/v1/requests", data={**REQUEST, field: OTHER_FORCE}, files=image)
    assert answer.status_code == 422, answer.text
    assert [one["field"] for one in answer.json()["fields"]] == [field]


def _searches(scene: Scene, person_id: str) -> int:
    """How many entries of searches stand under a person's name."""
    return len([entry for entry in scene.audit_entries(person_id=person_id) if entry["activity"] == "search"])


def test_a11_a_custodian_enrols_for_no_other_force(platform: Platform, scene: Scene) -> None:
    with open_client(platform, "ingest", **as_bearer(scene.token("custodian", OTHER_FORCE))) as client:
        answer = post_enrolment(client, picture(5), "A11-1", owner="northshire")
    assert answer.status_code == 403, answer.text


def test_a12_no_answer_holds_a_link(platform: Platform, scene: Scene) -> None:
    """Images are never given out by address: no presigned URL exists to be shared, changed or used late."""
    with platform.client("search", "operator") as client:
        found = client.get(f"/v1/searches/{scene.ids['search']}").json()
    with platform.client("ingest", "custodian") as client:
        enrolled = client.get(f"/v1/enrolments/{scene.ids['enrolment']}").json()
    for text in _texts([found, enrolled]):
        assert "://" not in text, text
    for service in SERVICES_WITH_ROUTES:
        with open_client(platform, service) as client:
            document = client.get("/openapi.json").json()
        assert not [name for name in _keys(document) if "url" in name.lower() or name == "presigned"], service


def test_a12_who_looks_at_a_picture_is_in_the_log_before_it_is_shown(platform: Platform, scene: Scene) -> None:
    request_id = scene.kept["request"]
    person_id = f"a12-{request_id}"
    token = platform.token("operator", person_id=person_id)
    with open_client(platform, "review", **as_bearer(token)) as client:
        [probe] = client.get(f"/v1/casework/{request_id}").json()["case"]["probes"]
        path = f"/v1/casework/{request_id}/probes/{probe['probe_id']}/original"
        shown = client.get(path)
        assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg"), shown.text
        assert shown.headers["cache-control"] == "no-store"
        for method in ("PUT", "DELETE", "POST"):
            assert client.request(method, path).status_code == 405
    with open_client(platform, "review", **as_bearer(scene.token("operator", OTHER_FORCE))) as client:
        assert client.get(path).status_code == 404
    with open_client(platform, "review") as client:
        assert client.get(path).status_code == 401
    [seen] = [entry for entry in scene.audit_entries(person_id=person_id) if entry["activity"] == "see_probe"]
    assert (seen["operation"], seen["phase"], seen["recipients"]) == ("CONSULTATION", "DONE", [f"person:{person_id}"])
    assert any(one.startswith("picture:") for one in seen["objects"])


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def _keys(document: dict[str, Any]) -> set[str]:
    """Names of properties and parameters of an OpenAPI document."""
    names: set[str] = set()
    stack: list[Any] = [document]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            names.update(value.get("properties", {}).keys() if isinstance(value.get("properties"), dict) else ())
            if {"name", "in"} <= value.keys():
                names.add(str(value["name"]))
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
    return names


ODD_NAMES = [
    "../../../../tmp/likeness-a13-escaped",
    "/tmp/likeness-a13-escaped",  # noqa: S108 - where the attack aims
    "..\\..\\likeness-a13-escaped",
    "a\x00b.png",
    "%2e%2e%2flikeness-a13-escaped",
    "probe.png;rm -rf .",
    "con.png\r\nX-Injected: yes",
    "\u202egnp.exe",
    "x" * 5000,
    "$(touch likeness-a13-escaped).png",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: repr(name)[:30])
def test_a13_names_of_uploads_lead_nowhere(platform: Platform, scene: Scene, name: str) -> None:
    form = {"case_reference": "NC/A13", "purpose": "prevention_and_detection", "offence": "burglary"}
    form |= {"source": "cctv", "watchlists": "custody"}
    with platform.client("search", "operator", timeout_s=60) as client:
        answer = client.post("/v1/searches", data=form, files={"image": (name, picture(6), "image/png")})
    assert answer.status_code in {200, 422}, answer.text
    assert "x-injected" not in answer.headers
    assert not Path("/tmp/likeness-a13-escaped").exists()  # noqa: S108 - where the attack aims
    written = [path for path in platform.data.root.rglob("*") if "escaped" in path.name or "rm -rf" in path.name]
    assert written == []


@pytest.mark.parametrize(
    "subject", ["../../etc/passwd", "..", "/etc/passwd", "a/b", "SUBJECT\x00", "' OR '1'='1", "x" * 10_000]
)
def test_a13_identifiers_are_inert(platform: Platform, scene: Scene, subject: str) -> None:
    with platform.client("ingest", "custodian", timeout_s=60) as client:
        answer = post_enrolment(client, picture(7), subject)
        assert answer.status_code in {200, 202, 422}, answer.text
        if answer.status_code != 422:
            found = client.get(f"/v1/enrolments/{answer.json()['enrolment_id']}").json()
            assert found["subject_id"] == subject
    assert [path.name for path in platform.data.root.rglob("*passwd*")] == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/searches/..%2f..%2fetc%2fpasswd",
        "/v1/searches/%2e%2e/%2e%2e/etc/passwd",
        "/v1/searches/%00",
        "/v1/searches/..;/..;/metrics",
        "/docs/../../../../etc/passwd",
        "/docs/style.css/../../../settings.py",
        "//etc/passwd",
    ],
)
def test_a13_paths_of_requests_lead_nowhere(platform: Platform, scene: Scene, path: str) -> None:
    with open_client(platform, "search", **as_bearer(scene.token("operator"))) as client:
        answer = client.send(httpx.Request("GET", platform.url("search") + path, headers=client.headers))
    assert answer.status_code in {400, 404, 405}, answer.text
    assert "root:" not in answer.text


def test_a13_the_export_has_a_name_of_ours(platform: Platform, scene: Scene) -> None:
    asked = {"reason": 'a"; filename="../x\r\nX-Injected: yes', "approval": approve_export(platform, "A court", "A13")}
    with platform.client("audit", "auditor", timeout_s=60) as client:
        answer = client.get("/v1/audit/export", params=asked)
        assert answer.status_code in {200, 422}
        if answer.status_code == 200:
            assert answer.headers["content-disposition"] == 'attachment; filename="audit-export.jsonl"'
            assert "x-injected" not in answer.headers
            assert all(json.loads(line) for line in answer.text.splitlines())
