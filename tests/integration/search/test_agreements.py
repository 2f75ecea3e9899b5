"""Agreements through a real search service: signed, dated, withdrawn; in force from the next search on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from services.cli import assemble
from services.rpc.clients import AgreementClient, open_channel
from services.rpc.v1 import audit_pb2
from services.shared.errors import AuditUnavailable
from tests.integration.search.conftest import filled_peers
from tests.integration.search.owners import TODAY, Owner, replaced, watchlist_file
from tests.integration.search.peers import Peers
from tests.integration.search.process import SearchProcess, problem
from tests.support.waiting import wait_until

Phase = audit_pb2.Phase
NORTH, EAST, WEST = Owner("northshire"), Owner("eastmoor"), Owner("westhaven")


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    with filled_peers() as running:
        yield running


@pytest.fixture(scope="module")
def search(peers: Peers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchProcess]:
    root = tmp_path_factory.mktemp("search")
    file = watchlist_file(root / "watchlists.toml", [NORTH, EAST, WEST])
    with SearchProcess(root, peers, WATCHLISTS_PATH=str(file)) as running:
        yield running


def administrator(search: SearchProcess, force: str = "northshire", **claims: Any) -> httpx.Client:
    return search.operator(roles=["administrator"], sub=f"ad-{force}", force=force, **claims).http


def register(client: httpx.Client, body: dict[str, Any]) -> httpx.Response:
    return client.post("/v1/agreements", json=body)


def withdraw(client: httpx.Client, reference: str, **body: Any) -> httpx.Response:
    return client.post(f"/v1/agreements/{reference}/withdrawal", json={"reason": "ended", **body})


def subjects(search: SearchProcess) -> set[str]:
    answer = search.operator().answer(b"face:ann", watchlists=["op_liberal"])
    return {candidate["subject_id"] for candidate in answer["candidates"]}


def test_a_grant_counts_from_the_next_search_and_a_withdrawal_too(search: SearchProcess, peers: Peers) -> None:
    assert subjects(search) == {"TRAVELLER"}
    registered = register(administrator(search), WEST.grant("OPL-WEST"))
    assert registered.status_code == 201, registered.text
    assert registered.json()["is_in_force"]
    assert subjects(search) == {"TRAVELLER", "WESTERNER"}
    assert register(administrator(search), WEST.grant("OPL-WEST")).status_code == 200

    withdrawn = withdraw(administrator(search, "westhaven"), "OPL-WEST")
    assert withdrawn.status_code == 200, withdrawn.text
    assert not withdrawn.json()["is_in_force"]
    assert [record["kind"] for record in withdrawn.json()["history"]] == ["grant", "withdrawal"]
    assert subjects(search) == {"TRAVELLER"}
    problem(withdraw(administrator(search, "westhaven"), "OPL-WEST"), 409, "conflict")
    problem(register(administrator(search), WEST.grant("OPL-WEST")), 409, "agreement_reference_used")

    entries = [e for e in peers.audit.entries if list(e.objects) == ["agreement:OPL-WEST"]]
    done = [(e.activity, e.actor.force) for e in entries if e.phase == audit_pb2.DONE]
    assert done == [("agreement_registration", "northshire"), ("agreement_withdrawal", "westhaven")]
    assert all(e.operation == audit_pb2.ALTERATION for e in entries)


def test_a_configured_agreement_is_withdrawn_by_its_owner_alone(search: SearchProcess) -> None:
    reference = "OPL-2026-EASTMOOR"
    assert subjects(search) == {"TRAVELLER"}
    problem(withdraw(administrator(search), reference), 403, "forbidden")
    forged = WEST.withdrawal(reference)
    problem(withdraw(administrator(search), reference, signature=forged), 422, "agreement_signature_invalid")
    assert subjects(search) == {"TRAVELLER"}
    ours = EAST.withdrawal(reference)
    assert withdraw(administrator(search), reference, signature=ours).status_code == 200
    assert subjects(search) == set()
    renewed = register(administrator(search, "eastmoor"), EAST.grant("OPL-2027-EASTMOOR"))
    assert renewed.status_code == 201
    assert subjects(search) == {"TRAVELLER"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({**WEST.grant("W-1"), "signature": EAST.grant("W-1")["signature"]}, 422, "agreement_signature_invalid"),
        (
            {**WEST.grant("W-1"), "document": WEST.grant("W-1", days=900)["document"]},
            422,
            "agreement_signature_invalid",
        ),
        (EAST.grant("W-1", owner="westhaven"), 422, "agreement_signature_invalid"),
        (WEST.grant("W-1", watchlist="no_such"), 422, "invalid_request"),
        (WEST.grant("W-1", expires_on=TODAY - timedelta(days=2)), 422, "invalid_request"),
        (NORTH.grant("OPL-2026-NORTHSHIRE"), 409, "agreement_reference_used"),
    ],
    ids=["another's signature", "changed", "owner changed", "watchlist", "dates", "reference of a configured one"],
)
def test_what_its_owner_did_not_sign_is_no_agreement(
    search: SearchProcess, body: dict[str, Any], status: int, code: str
) -> None:
    problem(register(administrator(search), body), status, code)


def test_an_agreement_of_the_future_or_the_past_permits_nothing(search: SearchProcess) -> None:
    later = WEST.grant("W-LATER", signed_on=TODAY + timedelta(days=2))
    over = WEST.grant("W-OVER", signed_on=TODAY - timedelta(days=9), expires_on=TODAY)
    for body in (later, over):
        answer = register(administrator(search), body)
        assert (answer.status_code, answer.json()["is_in_force"]) == (201, False)
    assert "WESTERNER" not in subjects(search)


def test_who_may_do_what(search: SearchProcess, peers: Peers) -> None:
    for roles in (["operator"], ["auditor"], ["custodian", "supervisor"]):
        client = search.operator(roles=roles).http
        problem(register(client, WEST.grant("W-2")), 403, "forbidden")
        problem(withdraw(client, "OPL-2026-NORTHSHIRE"), 403, "forbidden")
    problem(search.operator().http.get("/v1/agreements"), 403, "forbidden")
    listed = search.operator(roles=["auditor"]).http.get("/v1/agreements").json()["agreements"]
    assert "OPL-2026-NORTHSHIRE" in {agreement["reference"] for agreement in listed}
    stranger = administrator(search, "southport", watchlists=["custody"])
    assert stranger.get("/v1/agreements").json() == {"agreements": []}
    problem(withdraw(stranger, "OPL-2026-NORTHSHIRE"), 404, "not_found")
    assert [e for e in peers.audit.entries if e.activity.startswith("agreement") and e.phase == audit_pb2.REFUSED]


def test_ingest_is_told_what_is_in_force(search: SearchProcess) -> None:
    with open_channel(f"127.0.0.1:{search.grpc_port}") as channel:
        client = AgreementClient(channel)
        assert client.find("op_liberal", "northshire", TODAY) == "OPL-2026-NORTHSHIRE"
        assert client.find("op_liberal", "southport", TODAY) == ""


def test_a_grant_without_the_owners_key_in_the_configuration_is_worth_nothing(search: SearchProcess) -> None:
    south = Owner("southport")
    body = south.grant("S-1")
    problem(register(administrator(search), body), 422, "agreement_signature_invalid")
    watchlist_file(search.root / "watchlists.toml", [NORTH, EAST, WEST, south])
    assert register(administrator(search), body).json()["is_in_force"]
    watchlist_file(search.root / "watchlists.toml", [NORTH, EAST, WEST])
    listed = administrator(search).get("/v1/agreements").json()["agreements"]
    assert "S-1" not in {agreement["reference"] for agreement in listed}


def test_a_change_is_tried_on_the_requests_that_came(search: SearchProcess) -> None:
    operator = search.operator(force="westmarch", sub="op-w")
    for purpose in ("prevention_and_detection", "missing_person"):
        assert operator.search(b"face:ann", purpose=purpose).status_code == 200
    problem(operator.search(b"face:ann", watchlists=["op_liberal"]), 403, "forbidden")

    client = administrator(search, "westmarch")
    before = client.get("/v1/policy").json()
    stricter = before["text"] + (
        '@id("no_missing_persons") forbid (principal, action, resource) when { context.purpose == "missing_person" };'
    )
    outcome = client.post("/v1/policy/dry-runs", json={"policies": stricter}).json()
    assert (outcome["considered"], outcome["differing"], outcome["newly_denied"], outcome["drifted"]) == (3, 1, 1, 0)
    [difference] = outcome["differences"]
    assert difference["changed"]["denials"] == ["no_missing_persons"]
    assert outcome["digest_now"] == before["digest"] != outcome["digest_changed"]
    assert client.get("/v1/policy").json() == before

    west = Owner("westmarch")
    seed = f"""
[[agreement]]
reference = "W"
watchlist = "op_liberal"
owner = "{west.name}"
signed_on = 2020-01-01
expires_on = 2999-01-01
"""
    wider = watchlist_file(search.root / "wider.toml", [EAST], seed).read_text("utf-8")
    outcome = client.post("/v1/policy/dry-runs", json={"watchlists": wider}).json()
    assert (outcome["differing"], outcome["newly_permitted"]) == (1, 1)
    problem(client.post("/v1/policy/dry-runs", json={"policies": "permit (principal);"}), 422, "policy_invalid")
    problem(operator.http.post("/v1/policy/dry-runs", json={}), 403, "forbidden")
    problem(operator.http.get("/v1/policy"), 403, "forbidden")


def test_agreements_outlive_the_process(search: SearchProcess) -> None:
    body = WEST.grant("OPL-WEST-2")
    assert register(administrator(search), body).status_code == 201
    search.kill()
    search.start()
    search.wait_ready()
    assert "WESTERNER" in subjects(search)


@pytest.mark.long
@pytest.mark.parametrize("cut_at", [audit_pb2.INTENT, audit_pb2.DONE], ids=Phase.Name)
def test_a_registration_cut_short_gets_its_outcome_after_the_restart(
    search: SearchProcess, peers: Peers, cut_at: audit_pb2.Phase.ValueType
) -> None:
    """kill -9 behind the intent, and before the outcome was recorded: it had not, or it had, taken effect."""
    reference = f"OPL-CUT-{Phase.Name(cut_at)}"
    reached, gone = Event(), Event()

    def cut(entry: audit_pb2.AuditEntry) -> None:
        if list(entry.objects) == [f"agreement:{reference}"] and entry.phase == cut_at and not gone.is_set():
            reached.set()
            gone.wait(240)
            raise AuditUnavailable("It was killed meanwhile.")

    def ask() -> None:
        with suppress(httpx.HTTPError):
            register(administrator(search), WEST.grant(reference))

    where = "after" if cut_at == audit_pb2.INTENT else "before"
    setattr(peers.audit, where, cut)
    asking = Thread(target=ask)
    asking.start()
    try:
        assert reached.wait(120)
        search.kill()
    finally:
        gone.set()
        asking.join(120)
        setattr(peers.audit, where, lambda _entry: None)
    search.start()
    search.wait_ready()

    def phases() -> list[str]:
        own = [entry for entry in peers.audit.entries if list(entry.objects) == [f"agreement:{reference}"]]
        return [Phase.Name(entry.phase) for entry in own]

    expected = ["INTENT", "FAILED" if cut_at == audit_pb2.INTENT else "DONE"]
    wait_until(lambda: len(phases()) >= 2, 180.0, lambda: f"an outcome of {reference}, have {phases()}")
    assert phases() == expected
    listed = administrator(search, "westhaven").get("/v1/agreements").json()["agreements"]
    assert (reference in {agreement["reference"] for agreement in listed}) is (expected[1] == "DONE")


def test_the_commands_do_what_the_api_does(search: SearchProcess, tmp_path: Path) -> None:
    token, south = tmp_path / "token", Owner("southmere")
    token.write_text(search.issuer.token(roles=["administrator"], force="southmere", sub="ad-s"))
    where = ["--token", str(token), "--url", search.url]

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(assemble([arguments[0]]), list(arguments))

    key = tmp_path / "south.pem"
    made = run("agreements", "new-key", str(key), "--owner", "southmere", "--key-id", "south-1")
    assert (made.exit_code, key.stat().st_mode & 0o777) == (0, 0o600), made.output
    packaged = watchlist_file(search.root / "watchlists.toml", [NORTH, EAST, WEST, south])
    replaced(packaged, packaged.read_text("utf-8") + made.output)
    dates = ["--signed-on", "2026-01-01", "--expires-on", "2999-01-01"]
    what = ["--watchlist", "op_liberal", "--owner", "southmere", "--key", str(key), "--key-id", "south-1"]
    signed = tmp_path / "signed.json"
    signed.write_text(run("agreements", "sign", "OPL-SOUTH", *what, *dates).output)
    assert '"is_in_force": true' in run("agreements", "register", str(signed), *where).output
    assert "OPL-SOUTH" in run("agreements", "list", *where).output
    assert '"is_in_force": false' in run("agreements", "withdraw", "OPL-SOUTH", "--reason", "over", *where).output

    assert search.operator(force="southmere", sub="op-s").search(b"face:ann").status_code == 200
    change = tmp_path / "policies.cedar"
    change.write_text('@id("nobody") forbid (principal, action, resource);')
    outcome = run("policy", "dry-run", str(change), *where)
    assert outcome.exit_code == 2, outcome.output
    assert "1 requests, 1 would be decided otherwise: 0 newly permitted, 1 newly denied." in outcome.output
    assert "changed  deny nobody" in outcome.output
