"""A case from a force system's request to its outcome, over the whole running platform, with real faces."""

from __future__ import annotations

import hashlib
import json
import signal
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from services.local.disclosure.cli import disclosure_app
from services.local.disclosure.verify import CHECKS
from tests.e2e.test_gallery_life import files_with, keyed
from tests.support.casework import enrol
from tests.support.faces import development_faces
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

FIELDS: dict[str, Any] = {
    "case_reference": "NS/2026/00777",
    "offence": "burglary",
    "purpose": "prevention_and_detection",
    "necessity": "The only line of enquiry that is left.",
    "case_type": "suspect",
    "urgency": "urgent",
    "source": "cctv",
    "nature": "video_frame",
    "face_chosen_by": "PC 1234 from the shop's camera",
    "watchlists": ["custody", "op_liberal"],
}
MATCH = [{"feature": name, "observation": "similar", "remark": "alike"} for name in ("ears", "nose", "eyebrows")]
ENROLLED = 6
Person = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    development_faces()
    settings = {
        "LIKENESS_REVIEW__MIN_VIEW_S": "0",
        "LIKENESS_REVIEW__UNSOLVED__EVERY_S": "1",
        "LIKENESS_REVIEW__UNSOLVED__CASE_EVERY_H": "0",
    }
    with Platform(tmp_path_factory.mktemp("casework"), settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def probe(platform: Platform) -> tuple[str, Path]:
    """A subject enrolled in custody among others, and another picture of the same person."""
    pairs = development_faces().mated_pairs()
    chosen = [pairs[number * 17] for number in range(ENROLLED)]
    for reference, _ in chosen:
        enrol(platform, reference.path, f"REV-{reference.identity}", "custody")
    reference, picture = chosen[2]
    return f"REV-{reference.identity}", picture.path


@pytest.fixture(scope="module")
def person(platform: Platform) -> Iterator[Person]:
    opened: list[httpx.Client] = []

    def client(person_id: str, role: str, force: str = "northshire") -> httpx.Client:
        token = platform.token(role, force=force, person_id=person_id)
        opened.append(
            httpx.Client(
                base_url=platform.url("review"),
                headers={"Authorization": f"Bearer {token}"},
                timeout=60.0,
                trust_env=False,
            )
        )
        return opened[-1]

    yield client
    for each in opened:
        each.close()


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code in {200, 201}, answer.text
    return answer.json()


class Desk:
    """One person's hands on one case."""

    def __init__(self, client: httpx.Client, request_id: str) -> None:
        self.client = client
        self.base = f"/v1/casework/{request_id}"

    def see(self) -> Any:
        return ok(self.client.get(self.base))

    def do(self, what: str, **body: Any) -> Any:
        return ok(self.client.post(f"{self.base}/{what}", json={"version": self.see()["case"]["version"], **body}))

    def judge_all(self, matches: set[str]) -> Any:
        """Begin, look at every candidate's pictures, judge, and sign."""
        comparison = self.do("examination")
        for candidate in comparison["candidates"]:
            comparison = self._judge(candidate["candidate_id"], matches)
        return ok(self.client.post(f"{self.base}/signature", json={"version": comparison["version"]}))

    def _judge(self, candidate_id: str, matches: set[str]) -> Any:
        place = f"{self.base}/candidates/{candidate_id}"
        opened = ok(self.client.post(f"{place}/opening"))
        assert opened["candidate"]["revealed"] is None
        picture = self.client.get(f"{place}/references/{opened['reference_ids'][0]}")
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/jpeg")
        assert picture.content[:3] == b"\xff\xd8\xff"
        is_match = opened["reference_ids"][0] in matches
        body = {
            "version": ok(self.client.get(f"{self.base}/examination"))["version"],
            "finding": "possible_match" if is_match else "no_support",
            "features": MATCH if is_match else [],
            "remarks": "Compared feature by feature.",
        }
        return ok(self.client.put(f"{place}/finding", json=body))


def _in_days(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).date().isoformat()


def requested(officer: httpx.Client, picture: Path) -> str:
    files = [("images", ("probe", picture.read_bytes()))]
    request_id: str = ok(officer.post("/v1/requests", data=FIELDS, files=files))["request_id"]
    return request_id


def searched(operator: httpx.Client, request_id: str) -> Desk:
    """Accepted, assessed, enhanced and searched by an operator."""
    desk = Desk(operator, request_id)
    desk.do("acceptance", reason="Lawful, needed, in proportion.")
    probe_id = desk.see()["case"]["probes"][0]["probe_id"]
    desk.do("assessment", probe_id=probe_id, face=0, grade="suitable", remarks="Clear enough.")
    steps = [{"kind": "gamma", "amounts": {"gamma": 0.8}}]
    made = desk.do("enhancements", probe_id=probe_id, steps=steps, reason="A little dark.")
    desk.do("searches", probe_id=probe_id, enhancement_id=made["enhancement_id"], reason="First search.")
    for variant in ("original", made["enhancement_id"]):
        assert operator.get(f"{desk.base}/probes/{probe_id}/{variant}").headers["content-type"] == "image/jpeg"
    return desk


def reference_of(platform: Platform, subject_id: str) -> str:
    with platform.client("ingest", "custodian") as custodian:
        listed = custodian.get("/v1/enrolments", params={"watchlist": "custody"}).json()["enrolments"]
    return next(str(one["reference_id"]) for one in listed if one["subject_id"] == subject_id)


def test_from_request_to_outcome(platform: Platform, person: Person, probe: tuple[str, Path], tmp_path: Path) -> None:
    subject_id, picture = probe
    officer, anna, bert = person("pc-1234", "requester"), person("anna", "operator"), person("bert", "operator")
    request_id = requested(officer, picture)
    first = searched(anna, request_id)
    right = {reference_of(platform, subject_id)}
    assert first.judge_all(right)["state"] == "awaiting_second_review"
    again = anna.post(f"{first.base}/examination", json={"version": first.see()["case"]["version"]})
    assert (again.status_code, again.json()["reasons"]) == (403, ["already_examined"])
    second = Desk(bert, request_id)
    assert second.see()["case"]["candidates"] == []
    assert second.judge_all(right)["state"] == "decided"
    assert officer.get(f"/v1/requests/{request_id}/result").status_code == 404
    assert second.do("release", retain_until=_in_days(180))["state"] == "released"

    result = ok(officer.get(f"/v1/requests/{request_id}/result"))
    assert [name["subject_id"] for name in result["potential_names"]] == [subject_id]
    assert result["statements"][0].startswith("FOR INTELLIGENCE PURPOSES ONLY")
    wanted = {"recipient": "Crown Court", "reason": "CPIA."}
    approval = person("sue", "supervisor").post(f"{second.base}/disclosure-approvals", json=wanted).json()["approval"]
    pack = f"{second.base}/disclosure.pdf?approval={approval}"
    for path, client in ((f"/v1/requests/{request_id}/result.pdf", officer), (pack, bert)):
        document = client.get(path)
        assert (document.status_code, document.headers["content-type"]) == (200, "application/pdf"), document.text
        assert document.content.startswith(b"%PDF-1.7")
        assert b"/MarkInfo" in document.content  # tagged
    stranger = person("pc-9", "requester", force="eastmoor")
    for path in ("", "/result", "/result.pdf"):
        assert stranger.get(f"/v1/requests/{request_id}{path}").status_code == 404
    version = ok(officer.get(f"/v1/requests/{request_id}"))["version"]
    reported = officer.post(f"/v1/requests/{request_id}/outcome", json={"version": version, "kind": "charged"})
    assert ok(reported)["state"] == "closed"
    _check_log(platform, result["audit"], request_id)
    _check_bundle(platform, second.see()["case"]["searches"][0]["search_id"], tmp_path)
    figures = ok(person("sue", "supervisor").get("/v1/supervision/figures"))
    assert figures["with_name"]["count"] >= 1


def _check_bundle(platform: Platform, search_id: str, folder: Path) -> None:
    """With the commands: approved by a supervisor, exported with what was signed in casework, checked offline."""
    tokens = {role: folder / f"{role}.token" for role in ("operator", "supervisor")}
    for role, path in tokens.items():
        path.write_text(platform.token(role, person_id=f"disclosing-{role}"))
    bundle = folder / "disclosure.json"
    search, review = platform.url("search"), platform.url("review")

    def likeness(*arguments: object) -> str:
        done = CliRunner().invoke(disclosure_app, list(map(str, arguments)), env={"COLUMNS": "250"})
        assert done.exit_code == 0, f"{done.output} {done.exception}"
        return done.output

    why = ("--reason", "CPIA, case 12/26")
    approved = likeness(
        "approve", search_id, "--recipient", "A court", *why, "--token", tokens["supervisor"], "--url", search
    )
    approval = approved.split("--approval ")[1].split()[0]
    to, where = ("--token", tokens["operator"], "--url", search), ("--review-url", review)
    likeness("export", search_id, bundle, "--approval", approval, *why, *to, *where)
    signed = json.loads(bundle.read_bytes())["judgements"]
    assert len(signed) == 2
    witness = ("--witness", platform.data.root / "audit-witness", "--ledger", platform.data.root)
    told = likeness("verify", bundle, *witness)
    assert "FAILED" not in told
    assert f"13. {CHECKS[13]}: passed" in told
    changed = bundle.read_text("utf-8").replace("Compared feature by feature.", "Compared at a glance.", 1)
    bundle.write_text(changed, "utf-8")
    refused = CliRunner().invoke(disclosure_app, ["verify", str(bundle), *map(str, witness)], env={"COLUMNS": "250"})
    assert refused.exit_code == 1
    assert f"13. {CHECKS[13]}: FAILED" in refused.output


def _check_log(platform: Platform, position: dict[str, Any], request_id: str) -> None:
    """The position on the result is the entry of its release, and every activity has one outcome."""
    with platform.client("audit", "auditor") as auditor:
        found = ok(auditor.get(f"/v1/audit/entries/{position['sequence']}", params={"reason": "test"}))
        page = ok(auditor.get("/v1/audit/entries", params={"limit": 500, "reason": "test"}))
    assert found["leaf_hash"] == position["leaf_hash"]
    assert found["entry"]["entry_id"] == position["entry_id"]
    assert (found["entry"]["activity"], found["entry"]["operation"]) == ("release", "DISCLOSURE")
    mine = [
        entry["entry"]
        for entry in page["entries"]
        if entry["entry"]["service"] == "review" and f"request:{request_id}" in entry["entry"]["objects"]
    ]
    by_activity: dict[str, list[str]] = {}
    for entry in mine:
        by_activity.setdefault(entry["activity_id"], []).append(entry["phase"])
    assert len(by_activity) > 20
    for phases in by_activity.values():
        assert len([phase for phase in phases if phase != "INTENT"]) == 1, phases


def test_f22_two_operators_at_once_one_wins_and_the_other_sees_why(
    platform: Platform, person: Person, probe: tuple[str, Path]
) -> None:
    request_id = requested(person("pc-1234", "requester"), probe[1])
    desk = searched(person("anna", "operator"), request_id)
    version = desk.see()["case"]["version"]
    people = [person("anna", "operator"), person("bert", "operator")]
    start = Barrier(2)

    def begin(client: httpx.Client) -> httpx.Response:
        start.wait(60)
        return client.post(f"{desk.base}/examination", json={"version": version})

    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(begin, people))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    lost = next(answer.json() for answer in answers if answer.status_code == 409)
    assert lost["state"] == "in_first_review"
    with platform.client("audit", "auditor") as auditor:
        page = ok(auditor.get("/v1/audit/entries", params={"limit": 100, "reason": "test"}))
    phases = sorted(
        entry["entry"]["phase"]
        for entry in page["entries"]
        if entry["entry"]["activity"] == "begin_first"
        and f"request:{request_id}" in entry["entry"]["objects"]
        and entry["entry"]["phase"] != "INTENT"
    )
    assert phases == ["DONE", "REFUSED"]


def test_the_rights_of_search_are_the_operators_own(
    person: Person, platform: Platform, probe: tuple[str, Path]
) -> None:
    """A token without the watchlist is told so by search itself, through casework."""
    request_id = requested(person("pc-1234", "requester"), probe[1])
    desk = searched(person("anna", "operator"), request_id)
    token = platform.token("operator", person_id="carl", watchlists=["custody"])
    headers = {"Authorization": f"Bearer {token}"}
    seen = httpx.get(platform.url("review", desk.base), headers=headers, timeout=60, trust_env=False)
    assert seen.status_code == 404  # not all of the case's watchlists


def test_a_file_that_is_no_picture_is_refused_with_its_number(person: Person, probe: tuple[str, Path]) -> None:
    files = [("images", ("a", probe[1].read_bytes())), ("images", ("b", b"<svg onload=alert(1)>"))]
    answer = person("pc-1234", "requester").post("/v1/requests", data=FIELDS, files=files)
    assert answer.status_code == 422
    assert answer.json()["code"] == "image_format_not_allowed"
    assert "Picture 2" in answer.json()["detail"]


def test_a_kept_probe_finds_who_is_enrolled_later_and_its_own_people_alone_are_told(
    platform: Platform, person: Person, probe: tuple[str, Path]
) -> None:
    reference, picture = development_faces().mated_pairs()[ENROLLED * 17 + 5]
    officer, anna, bert = person("pc-77", "requester"), person("anna", "operator"), person("bert", "operator")
    request_id = requested(officer, picture.path)
    first, second = searched(anna, request_id), Desk(bert, request_id)
    first.judge_all(set())
    assert second.judge_all(set())["state"] == "decided"
    second.do("release", retain_until=_in_days(180))
    expires_on = _in_days(90)
    kept = second.do("unsolved", authority="DCI Holt", reason="One of a series.", expires_on=expires_on)
    assert kept["state"] == "unsolved"

    def look() -> Any:
        return ok(bert.get(f"{second.base}/unsolved"))

    # Until somebody is enrolled there is nothing to search.
    wait_until(lambda: look()["state"] in {"unchanged", "searched"}, 120.0, lambda: f"a first look: {look()}")
    assert [row["request_id"] for row in _queue(officer)] == [request_id]
    subject_id = f"LATE-{reference.identity}"
    enrol(platform, reference.path, subject_id, "custody")
    wait_until(lambda: len(_queue(officer)) == 2, 120.0, lambda: f"the new enrolment to be found: {look()}")
    [opened] = [row["request_id"] for row in _queue(officer) if row["request_id"] != request_id]
    assert opened in {row["request_id"] for row in _queue(bert)}
    for other in (anna, person("sue", "supervisor")):
        assert opened not in {row["request_id"] for row in _queue(other)}
        assert other.get(f"/v1/casework/{opened}").status_code == 404
    # Its keeper takes it up, and then it needs a second reviewer as any other.
    right = {reference_of(platform, subject_id)}
    assert Desk(bert, opened).judge_all(right)["state"] == "awaiting_second_review"
    assert Desk(anna, opened).judge_all(right)["state"] == "decided"
    # Nobody is found twice, however often it is looked.
    seen = look()["looked_at"]
    wait_until(lambda: look()["looked_at"] > seen, 120.0, "another look")
    assert len(_queue(officer)) == 2
    with platform.client("audit", "auditor") as auditor:
        wanted: dict[str, Any] = {"activity": "search", "limit": 100, "reason": "test"}
        entries = [one["entry"] for one in ok(auditor.get("/v1/audit/entries", params=wanted))["entries"]]
    mine = [entry for entry in entries if entry["details"].get("request") == request_id]
    assert {entry["actor"]["person_id"] for entry in mine} == {"service:review/bert"}
    assert {entry["details"]["acting_for"] for entry in mine} == {"person:bert"}


def test_when_the_authority_to_keep_a_probe_ends_no_store_has_its_picture(platform: Platform, person: Person) -> None:
    _, picture = development_faces().mated_pairs()[ENROLLED * 17 + 9]
    anna, bert = person("anna", "operator"), person("bert", "operator")
    request_id = requested(person("pc-78", "requester"), picture.path)
    first, second = searched(anna, request_id), Desk(bert, request_id)
    first.judge_all(set())
    assert second.judge_all(set())["state"] == "decided"
    second.do("release", retain_until=_in_days(180))
    second.do("unsolved", authority="DCI Holt", reason="One of a series.", expires_on=_in_days(90))
    root, content = platform.data.root, picture.path.read_bytes()
    copies = {each["image_sha256"] for each in second.see()["case"]["searches"]}
    own = hashlib.sha256(content).hexdigest()
    assert len(copies) == 2, "the original and the enhanced picture"
    assert copies <= keyed(root, "probe-keys")
    assert own in keyed(root, "request-keys")
    assert not files_with(root, content), "sealed in both stores"

    platform.kill("review", signal.SIGTERM)
    _end_authority(platform, request_id)
    platform.restart("review")

    # The pictures go after the copies, so where none is left nothing is.
    wait_until(lambda: own not in keyed(root, "request-keys"), 180.0, "the pictures to be erased", 1.0)
    assert not copies & keyed(root, "probe-keys")
    wait_until(lambda: second.see()["case"]["state"] == "closed", 60.0, "the case to be closed")


def _end_authority(platform: Platform, request_id: str) -> None:
    """As if the day had come, and had been seen to have come two days ago. Review does not run."""
    with closing(sqlite3.connect(platform.data.root / "review" / "review.sqlite", timeout=60)) as store, store:
        query = "SELECT document FROM review_cases WHERE request_id = ?"
        document = json.loads(store.execute(query, [request_id]).fetchone()[0])
        document["unsolved"]["expires_on"] = "2026-01-01"
        changed = [json.dumps(document).encode(), request_id]
        store.execute("UPDATE review_cases SET document = ? WHERE request_id = ?", changed)
        seen_at = datetime.now(UTC) - timedelta(days=2)
        seen = [request_id, seen_at.strftime("%Y-%m-%d %H:%M:%S.%f")]
        store.execute("DELETE FROM review_kept WHERE request_id = ?", [request_id])
        store.execute(
            "INSERT INTO review_kept (request_id, since_ms, snapshot, state, reason, looked_at) "
            "VALUES (?, 0, '', 'ended', '', ?)",
            seen,
        )


def _queue(client: httpx.Client) -> Any:
    return ok(client.get("/v1/casework/queue"))
