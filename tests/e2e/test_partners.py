"""Two forces' platforms, each with its own services: galleries stay at home, answers come back attributed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.e2e.test_review_casework import FIELDS as REQUEST
from tests.e2e.test_review_casework import Desk, ok
from tests.support.casework import post_enrolment, wait_settled
from tests.support.faces import DevelopmentFaces
from tests.support.partners import Side, introduce, make_side
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

HOME, PARTNER = "northshire", "eastmoor"
FORM = {
    "case_reference": "NC/2026/0042",
    "purpose": "prevention_and_detection",
    "offence": "burglary",
    "source": "cctv",
    "case_type": "suspect",
    "watchlists": ["op_liberal"],
    "partners": [PARTNER],
    "authority": "OPL-2026 s.4, DI 1234",
}


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Side, Side]:
    root = tmp_path_factory.mktemp("partners")
    north, east = make_side(root / "north", HOME), make_side(root / "east", PARTNER)
    introduce(north, east, timeout_s=20.0)
    introduce(east, north, timeout_s=20.0)
    return north, east


@pytest.fixture(scope="module")
def platforms(
    tmp_path_factory: pytest.TempPathFactory, sides: tuple[Side, Side]
) -> Iterator[tuple[Platform, Platform]]:
    north, east = sides
    services = ("search", "ingest", "audit", "embed")
    with (
        Platform(
            tmp_path_factory.mktemp("home"),
            services=(*services, "review"),
            settings={**north.settings(), "LIKENESS_REVIEW__MIN_VIEW_S": "0"},
        ) as home,
        Platform(tmp_path_factory.mktemp("partner"), services=services, settings=east.settings()) as partner,
    ):
        yield home, partner


def _ask(client: httpx.Client, probe: bytes, key: str | None = None, **fields: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post(
        "/v1/consortium-searches", data={**FORM, **fields}, files={"image": ("probe", probe)}, headers=headers
    )


def _entries(platform: Platform, activity: str) -> list[Mapping[str, Any]]:
    with platform.client("audit", "auditor") as auditor:
        answer = auditor.get("/v1/audit/entries", params={"activity": activity, "limit": 100, "reason": "test"})
        assert answer.status_code == 200, answer.text
        return [found["entry"] for found in answer.json()["entries"]]


def _enrol(platform: Platform, image: bytes, subject: str, force: str) -> None:
    with platform.client("ingest", "custodian", force=force) as custodian:
        answer = post_enrolment(custodian, image, subject, "op_liberal", force)
        assert answer.status_code in {200, 202}, answer.text
        enrolment_id = answer.json()["enrolment_id"]
        assert wait_settled(custodian, [enrolment_id]) == {enrolment_id: "enrolled"}


@pytest.mark.timeout(900)
def test_a_consortium_search(
    platforms: tuple[Platform, Platform], sides: tuple[Side, Side], faces: DevelopmentFaces
) -> None:
    home, partner = platforms
    (wanted, probe_still), (other, _) = faces.mated_pairs()[:2]
    probe = probe_still.path.read_bytes()
    _enrol(home, other.path.read_bytes(), "NS-1", HOME)
    _enrol(partner, wanted.path.read_bytes(), "EM-1", PARTNER)

    with home.client("search", "operator", timeout_s=120.0) as operator:
        first = _ask(operator, probe, "key-1")
        assert first.status_code == 200, first.text
        answer = first.json()
        assert (answer["status"], answer["missing"]) == ("complete", [])
        # One model at one operating point: one order, with whose each candidate is; the wanted one is the partner's.
        [merged] = answer["lists"]
        assert merged["sources"] == [HOME, PARTNER]
        assert merged["candidates"][0]["source"] == PARTNER
        assert merged["candidates"][0]["subject_id"] == "EM-1"
        assert {one["source"] for one in merged["candidates"]} == {HOME, PARTNER}
        # Galleries stay at home: its own list is of its own reference alone.
        assert [one["subject_id"] for one in answer["home"]["candidates"]] == ["NS-1"]
        [told] = answer["partners"]
        assert told["status"] == "answered"
        assert told["answer"]["searched"][0]["agreements"] == ["OPL-2026-NORTHSHIRE", "OPL-2026-EASTMOOR"]
        assert told["sent"] == {"picture": "as_received", "sha256": answer["home"]["probe"]["sha256"]}
        # Given again and not asked again.
        assert _ask(operator, probe, "key-1").json() == answer
        assert operator.get(f"/v1/consortium-searches/{answer['consortium_id']}").json() == answer
        assert _ask(operator, probe, "key-1", authority="another").status_code == 409

    # Both logs have the disclosure, with the other platform's search and the same picture.
    sent, received = _entries(home, "partner_search"), _entries(partner, "partner_search_answered")
    for entries, recipient in ((sent, PARTNER), (received, HOME)):
        assert sorted(entry["phase"] for entry in entries) == ["DONE", "INTENT"]
        assert all(entry["recipients"] == [f"partner:{recipient}"] for entry in entries)
    assert {entry["details"]["picture_sha256"] for entry in (*sent, *received) if entry["phase"] == "INTENT"} == {
        answer["home"]["probe"]["sha256"]
    }
    [done] = [entry for entry in sent if entry["phase"] == "DONE"]
    assert f"partner-search:{told['answer']['search_id']}" in done["objects"]
    [theirs] = [entry for entry in received if entry["phase"] == "DONE"]
    assert f"search:{told['answer']['search_id']}" in theirs["objects"]
    assert theirs["details"]["answer_sha256"] == done["details"]["answer_sha256"]

    # An operator whose token does not have the watchlist is refused at home, and nothing leaves.
    with home.client("search", "operator", watchlists=["custody"], timeout_s=120.0) as narrow:
        assert _ask(narrow, probe).status_code == 403
    assert len(_entries(home, "partner_search")) == 2

    # The partner withdraws its consent: the next question has nothing of it.
    file = partner.data.watchlists
    written = file.read_text("utf-8")
    for reference in ("OPL-2026-NORTHSHIRE", "OPL-2026-EASTMOOR"):
        assert reference in written
    withdrawn = written.replace(
        'reference = "OPL-2026-EASTMOOR"', 'reference = "OPL-2026-EASTMOOR"\nwithdrawn_on = 2026-03-01'
    )
    file.write_text(withdrawn, "utf-8")
    with home.client("search", "operator", timeout_s=120.0) as operator:
        without = _ask(operator, probe).json()
        assert {one["subject_id"] for group in without["lists"] for one in group["candidates"]} == {"NS-1"}
        file.write_text(written, "utf-8")
        assert _ask(operator, probe).json()["status"] == "complete"

        # Asking for what is not configured is told so; nobody can name an address.
        unknown = _ask(operator, probe, partners=["https://127.0.0.1:1"])
        assert (unknown.status_code, unknown.json()["code"]) == (422, "invalid_request")

        # Its policy says no to a purpose or its platform is down: a named part of an answer, never a failure.
        partner.kill("audit")
        failed = _ask(operator, probe).json()
        assert (failed["status"], failed["missing"]) == ("partial", [PARTNER])
        assert failed["partners"][0]["status"] == "failed"
        partner.kill("search")
        down = _ask(operator, probe)
        assert down.status_code == 200
        assert down.json()["partners"][0]["status"] == "unreachable"
        assert down.json()["home"]["candidates"][0]["subject_id"] == "NS-1"
        assert down.json()["lists"][0]["sources"] == [HOME]


def _person(home: Platform, opened: ExitStack, role: str, name: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {home.token(role, person_id=name)}"}
    client = httpx.Client(base_url=home.url("review"), headers=headers, timeout=120.0, trust_env=False)
    return opened.enter_context(client)


@pytest.mark.timeout(900)
def test_a_case_asks_a_partner(platforms: tuple[Platform, Platform], faces: DevelopmentFaces) -> None:
    """Away first, which is said and is no answer; then asked: its list is attributed, and none of it is a name."""
    home, partner = platforms
    picture = faces.mated_pairs()[0][1].path
    asked = {"partners": [PARTNER], "authority": "OPL-2026 s.4, DI 1234", "reason": "Seen on both sides."}
    with ExitStack() as opened:
        officer, anna, bert = (
            _person(home, opened, role, name)
            for name, role in (("pc-1234", "requester"), ("anna", "operator"), ("bert", "operator"))
        )
        files = [("images", ("probe", picture.read_bytes()))]
        form = {**REQUEST, "watchlists": ["op_liberal"]}
        request_id = ok(officer.post("/v1/requests", data=form, files=files))["request_id"]
        first, second = Desk(anna, request_id), Desk(bert, request_id)
        first.do("acceptance", reason="Lawful, needed, in proportion.")
        probe_id = first.see()["case"]["probes"][0]["probe_id"]
        first.do("assessment", probe_id=probe_id, face=0, grade="suitable", remarks="Clear enough.")
        refused = {**asked, "partners": ["southshire"], "probe_id": probe_id, "version": first.see()["case"]["version"]}
        answer = anna.post(f"{first.base}/searches", json=refused)
        assert (answer.status_code, answer.json()["reasons"]) == (403, ["partner_not_permitted"])

        if partner.process("search").is_running():
            partner.kill("search")
        told = first.do("searches", probe_id=probe_id, **asked)
        assert told["partners"] == [{"partner": PARTNER, "status": "unreachable"}]
        for service in ("audit", "search"):
            partner.restart(service)
        with home.client("search", "operator", timeout_s=120.0) as operator:
            wait_until(lambda: _ask(operator, picture.read_bytes()).json()["status"] == "complete", 180, "the partner")
        told = first.do("searches", probe_id=probe_id, **asked)
        assert told["partners"][-1] == {"partner": PARTNER, "status": "answered"}
        # Of the list nothing is seen before two judgements are signed.
        assert [one["candidates"] for one in first.see()["case"]["enquiries"]] == [[], []]
        assert first.judge_all(set())["state"] == "awaiting_second_review"
        assert second.judge_all(set())["state"] == "decided"
        [_, enquiry] = second.see()["case"]["enquiries"]
        assert {one["subject_id"] for one in enquiry["candidates"]} == {"EM-1"}
        assert enquiry["agreements"] == ["OPL-2026-NORTHSHIRE", "OPL-2026-EASTMOOR"]
        keep = (datetime.now(UTC) + timedelta(days=180)).date().isoformat()
        assert second.do("release", retain_until=keep)["state"] == "released"
        result = ok(officer.get(f"/v1/requests/{request_id}/result"))
        assert result["potential_names"] == []
        [said] = [text for text in result["statements"] if text.startswith("Partner")]
        assert f"Partner {PARTNER} was searched too under OPL-2026-NORTHSHIRE, OPL-2026-EASTMOOR" in said
        assert enquiry["their_search_id"] in said
        assert officer.get(f"/v1/requests/{request_id}/result.pdf").content.startswith(b"%PDF")
    # Its own log has the search that the result names.
    done = [entry for entry in _entries(partner, "partner_search_answered") if entry["phase"] == "DONE"]
    assert any(f"search:{enquiry['their_search_id']}" in entry["objects"] for entry in done)


@pytest.mark.timeout(600)
def test_home_log_down_means_nothing_leaves(platforms: tuple[Platform, Platform], faces: DevelopmentFaces) -> None:
    home, _ = platforms
    probe = faces.mated_pairs()[0][1].path.read_bytes()
    with home.client("search", "operator", timeout_s=120.0) as operator:
        home.kill("audit")
        answer = _ask(operator, probe)
        assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")
        home.restart("audit")
        wait_until(lambda: _ask(operator, probe).status_code == 200, 180, "searches to work again")
