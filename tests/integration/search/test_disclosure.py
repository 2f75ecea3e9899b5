"""A hundred searches disclosed, checked offline, and run again after the gallery was rebuilt; over a real log."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from services.local.disclosure.bundle import read_bundle
from services.local.disclosure.cli import disclosure_app
from services.local.disclosure.compare import Verdict, compare
from services.local.disclosure.verify import CHECKS, CheckFailed, verify_bundle
from services.rpc.auditing import AuditRecorder
from services.rpc.clients import AuditClient
from services.rpc.v1 import audit_pb2, ingest_pb2
from services.shared.canonical import canonical_bytes
from services.shared.clock import SystemClock
from tests.integration.audit.service import OPERATOR, AuditProcess
from tests.integration.search.conftest import CUSTODY, LIBERAL, OFFENDERS
from tests.integration.search.peers import Peers, Reference, batch_of, vector_like, vector_of
from tests.integration.search.process import Operator, SearchThread
from tests.support.channels import ready_channel

pytestmark = pytest.mark.long

SEARCHES = 100
REASON = {"reason": "CPIA disclosure 12/26"}
APPROVAL = {"recipient": "Northshire Crown Court", "reason": "CPIA, case 12/26"}


class Room:
    """A search service over fakes of embed and ingest, and a real audit service."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.audit = AuditProcess(root / "audit").start()
        self.peers = Peers()
        self.fill(*CUSTODY)
        self.peers.start("embed")
        self.peers.start("ingest")
        self.peers.ports["audit"] = self.audit.grpc_port
        self.search = SearchThread(root, self.peers)
        self.search.__enter__()

    def fill(self, *custody: Reference) -> None:
        ledger = self.peers.ledger
        groups = [list(custody), LIBERAL, OFFENDERS]
        ledger.batches = [batch_of(group) for group in groups]
        ledger.states = [
            ingest_pb2.ReferenceState(
                reference_id=reference.reference_id, state="enrolled", decided_at_ms=1, settled_at_ms=1
            )
            for group in groups
            for reference in group
        ]

    def rebuild(self) -> None:
        """The service starts again and fills its gallery from the ledger."""
        self.search.end()
        self.search.start()
        self.search.wait_ready()

    def close(self) -> None:
        self.search.end()
        for name in ("embed", "ingest"):
            self.peers.stop(name)
        self.audit.stop()

    @property
    def operator(self) -> Operator:
        return self.search.operator()

    @property
    def supervisor(self) -> httpx.Client:
        return self.search.operator(roles=["supervisor"], sub="sv-1").http

    def approve(self, search_id: str, client: httpx.Client | None = None) -> httpx.Response:
        place = f"/v1/searches/{search_id}/disclosure-approvals"
        return (client or self.supervisor).post(place, json=APPROVAL)

    def disclose(self, search_id: str) -> httpx.Response:
        approved = self.approve(search_id).json()["approval_id"]
        return self.export(search_id, approved)

    def export(self, search_id: str, approval: str, client: httpx.Client | None = None) -> httpx.Response:
        asked = {**REASON, "approval": approval}
        return (client or self.operator.http).get(f"/v1/searches/{search_id}/disclosure", params=asked)

    def replay(self, search_id: str) -> dict[str, Any]:
        answer = self.operator.http.post(f"/v1/searches/{search_id}/replay", params=REASON)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    opened = Room(tmp_path_factory.mktemp("disclosure"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def answers(room: Room) -> list[dict[str, Any]]:
    """Of a hundred searches in both modes; every third person stands in the gallery."""
    names = ["ann", "bob", *(f"stranger {i}" for i in range(SEARCHES - 2))]
    operator = room.operator
    return [
        operator.answer(
            f"face:{name}".encode(),
            max_candidates=2 + number % 40,
            mode="identification" if number % 4 == 3 else "investigation",
        )
        for number, name in enumerate(names)
    ]


@pytest.fixture(scope="module")
def bundle(room: Room, answers: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the first search, with two judgements and a view in the log."""
    search_id = answers[0]["search_id"]
    recorder = AuditRecorder(AuditClient(ready_channel(room.audit.address)), "review", SystemClock())
    for ordinal, finding in (("1", "possible_match"), ("2", "no_support")):
        recorder.record(
            audit_pb2.ALTERATION,
            audit_pb2.DONE,
            "judge_candidate",
            "request-1",
            OPERATOR,
            case_reference=answers[0]["request"]["case_reference"],
            objects=["request:request-1", f"search:{search_id}", "reference:r-ann-1"],
            details={"finding": finding, "ordinal": ordinal},
        )
    assert room.operator.see(search_id).status_code == 200
    answer = room.disclose(search_id)
    assert answer.status_code == 200, answer.text
    path = tmp_path_factory.mktemp("bundle") / "disclosure.json"
    path.write_bytes(answer.content)
    return path


def _run(*arguments: object) -> Any:
    return CliRunner().invoke(disclosure_app, list(map(str, arguments)), env={"COLUMNS": "200"})


def test_a_disclosure_is_checked_offline(room: Room, bundle: Path) -> None:
    report = verify_bundle(bundle, witness=room.audit.witness_path)
    assert list(report.outcomes) == list(CHECKS)
    assert all(report.outcomes[number].startswith("passed") for number in range(1, 11))
    assert report.outcomes[11] == "no ledger given"
    read = read_bundle(bundle)
    assert [one["details"]["finding"] for one in read.adjudications] == ["possible_match", "no_support"]
    assert {entry.facts["activity"] for entry in read.entries} == {
        "search",
        "search_view",
        "judge_candidate",
        "disclosure_approval",
        "search_disclosure",
    }
    shown = _run("verify", bundle)
    assert shown.exit_code == 0, shown.output
    assert "passed by the bundle's own key only" in shown.output
    assert "What this does not prove" in shown.output


def test_the_steps_from_the_original_are_disclosed(room: Room, answers: list[dict[str, Any]], tmp_path: Path) -> None:
    answer = answers[5]
    probe, steps = answer["probe"]["sha256"], [{"kind": "brightness", "amounts": {"by": 1.2}}]
    recorder = AuditRecorder(AuditClient(ready_channel(room.audit.address)), "review", SystemClock())
    recorder.record(
        audit_pb2.CONSULTATION,
        audit_pb2.DONE,
        "search",
        "act-5",
        OPERATOR,
        case_reference=answer["request"]["case_reference"],
        objects=["request:request-5", f"search:{answer['search_id']}", f"probe:{probe}"],
        details={f"enhancement:{probe}": json.dumps({"original_sha256": "5" * 64, "steps": steps})},
    )
    path = tmp_path / "enhanced.json"
    path.write_bytes(room.disclose(answer["search_id"]).content)
    report = verify_bundle(path)
    assert report.outcomes[3].startswith("passed: 1 steps")
    assert (report.bundle.original_sha256, report.bundle.enhancement) == ("5" * 64, steps)
    value = json.loads(path.read_bytes())
    value["enhancement"] = []
    path.write_text(json.dumps(value))
    with pytest.raises(CheckFailed, match="no step"):
        verify_bundle(path)


def test_remarks_are_those_that_were_signed(room: Room, answers: list[dict[str, Any]], tmp_path: Path) -> None:
    answer = answers[6]
    documents = [{"examiner": name, "adjudications": [{"remarks": "The left ear."}]} for name in ("anna", "bert")]
    recorder = AuditRecorder(AuditClient(ready_channel(room.audit.address)), "review", SystemClock())
    for ordinal, document in enumerate(documents, 1):
        recorder.record(
            audit_pb2.ALTERATION,
            audit_pb2.DONE,
            "sign",
            "act-6",
            OPERATOR,
            case_reference=answer["request"]["case_reference"],
            objects=["request:request-6", f"search:{answer['search_id']}"],
            details={
                "judgement_sha256": hashlib.sha256(canonical_bytes(document)).hexdigest(),
                "ordinal": str(ordinal),
            },
        )
    value = json.loads(room.disclose(answer["search_id"]).content)
    path = tmp_path / "judged.json"
    for judgements, outcome in (
        ([], "none given"),
        (documents, "passed: 2 signed"),
        (documents[:1], "is left out"),
        ([documents[0], {**documents[1], "examiner": "carl"}], "nobody signed"),
    ):
        path.write_text(json.dumps({**value, "judgements": judgements}))
        if judgements in ([], documents):
            assert verify_bundle(path).outcomes[13].startswith(outcome)
            continue
        with pytest.raises(CheckFailed, match=outcome) as failure:
            verify_bundle(path)
        assert failure.value.check == 13


def _answer_of(value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(value["answer"])
    return found


def _drop_candidate(value: dict[str, Any]) -> None:
    answer = _answer_of(value)
    del answer["candidates"][1]
    value["answer"] = json.dumps(answer)


def _raise_score(value: dict[str, Any]) -> None:
    answer = _answer_of(value)
    answer["candidates"][0]["score"] += 0.001
    value["answer"] = json.dumps(answer)


def _spoil(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def spoil(value: dict[str, Any]) -> None:
        *groups, last = name.split(".")
        place: Any = value
        for group in groups:
            place = place[int(group) if group.isdigit() else group]
        key = int(last) if last.isdigit() else last
        place[key] = change(place[key])

    return spoil


TAMPERS: dict[str, tuple[int, Callable[[dict[str, Any]], None]]] = {
    "another form": (1, _spoil("format", lambda _: "likeness.disclosure.v9")),
    "another picture": (2, _spoil("probe.content_base64", lambda _: "AAAA")),
    "another original": (3, _spoil("original_sha256", lambda _: "0" * 64)),
    "steps nobody recorded": (3, _spoil("enhancement", lambda _: [{"step": "brightness", "amount": "9"}])),
    "an entry changed": (4, _spoil("audit.entries.0.canonical", lambda text: text.replace("northshire", "eastmoor"))),
    "a proof changed": (4, _spoil("audit.entries.1.path.0", lambda _: "00" * 32)),
    "entries swapped": (4, _spoil("audit.entries", lambda entries: [entries[1], entries[0], *entries[2:]])),
    "a signature changed": (5, _spoil("audit.checkpoint.signature", lambda text: "00" * 64)),
    "the outcome left out": (6, _spoil("audit.entries", lambda entries: [entries[0], *entries[2:]])),
    "a candidate left out": (7, _drop_candidate),
    "a score raised": (7, _raise_score),
    "a judgement left out": (10, _spoil("adjudications", lambda found: found[:1])),
    "a judgement changed": (10, _spoil("adjudications.0.details.finding", lambda _: "no_support")),
    "another recipient": (12, _spoil("approval.recipient", lambda _: "The Northshire Gazette")),
    "made on another day": (12, _spoil("made_at", lambda text: "2025" + text[4:])),
    "made an hour later": (12, _spoil("made_at", lambda text: f"{text.removesuffix('Z')}-01:00")),
    "made at no time": (12, _spoil("made_at", lambda _: "yesterday")),
    "another watermark": (12, _spoil("watermark", lambda text: text.replace("Court", "Gazette"))),
    "approved by oneself": (12, _spoil("approval.approved_by", lambda _: "op-7")),
    "approved by nobody": (12, _spoil("approval.approved_by", lambda _: "sv-2")),
    "no recipient": (12, _spoil("approval", lambda _: {})),
    "half an approval": (12, _spoil("approval", lambda told: {n: told[n] for n in told if n != "approved_at"})),
    "another reason": (12, _spoil("reason", lambda _: "Something that nobody said")),
    "another force": (12, _spoil("made_by.force", lambda _: "eastmoor")),
    "more in the watermark": (12, _spoil("watermark", lambda text: f"{text} Also given to The Northshire Gazette.")),
    "approved by oneself, in capitals": (12, _spoil("approval.approved_by", lambda _: "OP-7")),
    "a watermark of another search": (12, _spoil("watermark", lambda text: text.replace("search ", "search 1"))),
    "a judgement made up": (10, _spoil("adjudications", lambda found: [*found, {**found[0], "sequence": 1}])),
}


@pytest.mark.parametrize("name", TAMPERS)
def test_a_changed_disclosure_is_found_by_the_check_that_is_meant_to(bundle: Path, tmp_path: Path, name: str) -> None:
    number, tamper = TAMPERS[name]
    value = deepcopy(json.loads(bundle.read_bytes()))
    tamper(value)
    spoilt = tmp_path / "spoilt.json"
    spoilt.write_text(json.dumps(value))
    with pytest.raises(CheckFailed) as failure:
        verify_bundle(spoilt)
    assert failure.value.check == number, failure.value.detail
    assert _run("verify", spoilt).exit_code == 1


def test_a_judgement_kept_back_with_its_entry_is_found_by_the_whole_log(
    room: Room, bundle: Path, tmp_path: Path
) -> None:
    store = room.audit.store_path
    assert verify_bundle(bundle, log=store).outcomes[14] == "passed: 2 adjudications in the whole log"
    value = json.loads(bundle.read_bytes())
    kept_back = value["adjudications"].pop()["sequence"]
    value["audit"]["entries"] = [one for one in value["audit"]["entries"] if one["sequence"] != kept_back]
    less = tmp_path / "less.json"
    less.write_text(json.dumps(value))
    assert verify_bundle(less).outcomes[14] == "no log given"
    with pytest.raises(CheckFailed, match=f"adjudication at {kept_back} is left out") as failure:
        verify_bundle(less, log=store)
    assert failure.value.check == 14
    refused = _run("verify", less, "--log", store)
    assert refused.exit_code == 1
    assert "No judgement is kept back: FAILED" in refused.output


def test_a_file_that_says_one_thing_twice_is_no_bundle(bundle: Path, tmp_path: Path) -> None:
    twice = tmp_path / "twice.json"
    twice.write_text(bundle.read_text().replace('"search_id":', '"reason": "for nobody",\n"search_id":', 1))
    with pytest.raises(CheckFailed, match="'reason' twice"):
        verify_bundle(twice)


def test_every_disclosure_of_a_hundred_verifies(room: Room, answers: list[dict[str, Any]], tmp_path: Path) -> None:
    for answer in answers[::10]:
        path = tmp_path / f"{answer['search_id']}.json"
        path.write_bytes(room.disclose(answer["search_id"]).content)
        verify_bundle(path)


def test_the_disclosure_is_recorded_before_and_after(room: Room, answers: list[dict[str, Any]]) -> None:
    room.disclose(answers[1]["search_id"])
    page = room.audit.get("/v1/audit/entries", "auditor", activity="search_disclosure", limit=2).json()["entries"]
    done, intent = (entry["entry"] for entry in page)
    assert (intent["phase"], done["phase"]) == ("INTENT", "DONE")
    assert (intent["operation"], done["recipients"]) == ("DISCLOSURE", ["person:op-7"])
    assert intent["details"]["recipient"] == APPROVAL["recipient"]
    assert (intent["details"]["reason"], intent["details"]["approved_by"]) == (REASON["reason"], "sv-1")
    assert intent["objects"] == [f"search:{answers[1]['search_id']}"]
    assert len(done["details"]["bundle_sha256"]) == 64


def test_who_may_not_see_a_search_does_not_get_its_disclosure(room: Room, answers: list[dict[str, Any]]) -> None:
    search_id = answers[0]["search_id"]
    for claims, status in (
        ({"force": "eastmoor"}, 404),
        ({"watchlists": ["op_liberal"]}, 404),
        ({"roles": ["custodian"]}, 403),
    ):
        http = room.search.operator(**claims).http
        assert http.get(f"/v1/searches/{search_id}/disclosure", params=REASON).status_code == status
        assert http.post(f"/v1/searches/{search_id}/replay", params=REASON).status_code == status
    assert room.operator.http.get(f"/v1/searches/{search_id}/disclosure").status_code == 422
    page = room.audit.get("/v1/audit/entries", "auditor", activity="search_replay", limit=1).json()["entries"]
    assert page[0]["entry"]["phase"] == "REFUSED"


def test_f14_a_probe_with_other_bytes_is_found_out_and_nothing_is_searched_with_it(room: Room) -> None:
    image = b"face:ann|tampered with"
    search_id = room.operator.answer(image)["search_id"]
    [stored] = (room.search.root / "probes").rglob(hashlib.sha256(image).hexdigest())
    stored.chmod(0o600)
    stored.write_bytes(b"face:bob|tampered with")
    for answer in (
        room.operator.http.post(f"/v1/searches/{search_id}/replay", params=REASON),
        room.disclose(search_id),
    ):
        assert (answer.status_code, answer.json()["code"]) == (502, "integrity"), answer.text
        assert "BOB" not in answer.text


def test_a_hundred_old_searches_after_a_rebuild_and_after_changes(
    room: Room, answers: list[dict[str, Any]], bundle: Path, tmp_path: Path
) -> None:
    room.rebuild()
    for answer in answers:
        replay = room.replay(answer["search_id"])
        assert compare(answer["candidates"], replay).verdict is Verdict.SAME
        assert replay["gallery_snapshot"]["snapshot_id"] == answer["gallery_snapshot"]["snapshot_id"]

    # Two were withdrawn since, a third expired, and there is somebody new who is very like Ann.
    withdrawn = {"r-ann-1", "r-bob-1"}
    newcomer = Reference("r-new-1", "NEW", vector_like("ann", 0.93), version=9)
    standing = [reference for reference in CUSTODY if reference.reference_id not in withdrawn]
    room.fill(*standing, newcomer)
    states = room.peers.ledger.states
    next(state for state in states if state.reference_id == "r-new-1").settled_at_ms = 2**42
    states += [
        ingest_pb2.ReferenceState(reference_id=name, state="withdrawn", withdrawn_at_ms=5, withdrawal_reason="NFA")
        for name in withdrawn
    ]
    room.rebuild()
    verdicts = {}
    for answer in answers[:30]:
        found = compare(answer["candidates"], room.replay(answer["search_id"]))
        assert found.verdict is not Verdict.DIFFERS, found.differences
        had = {one["reference_id"] for one in answer["candidates"]} & withdrawn
        assert (found.verdict is Verdict.EXPLAINED) is bool(had)
        assert len([line for line in found.explanations if "withdrawn (NFA)" in line]) == len(had)
        verdicts[answer["search_id"]] = found
    assert sum(found.verdict is Verdict.EXPLAINED for found in verdicts.values()) >= 2
    ann = room.replay(answers[0]["search_id"])
    assert ann["newcomers"] == 1
    assert "NEW" not in {one["subject_id"] for one in ann["candidates"]}
    assert ann["candidates"][0]["reference_id"] == "r-ann-2"

    token = tmp_path / "operator.token"
    token.write_text(room.operator.http.headers["Authorization"].removeprefix("Bearer "))
    arguments = ("--token", token, "--url", room.search.url, "--reason", "defence asks")
    shown = _run("replay", bundle, *arguments)
    assert shown.exit_code == 0, shown.output
    assert "withdrawn (NFA)" in shown.output
    assert "1 references enrolled since were left out" in shown.output
    again = tmp_path / "again.json"
    search_id = answers[0]["search_id"]
    supervising = tmp_path / "supervisor.token"
    supervising.write_text(room.supervisor.headers["Authorization"].removeprefix("Bearer "))
    asked = ("--token", supervising, "--url", room.search.url, "--reason", "defence asks", "--recipient", "The defence")
    approved = _run("approve", search_id, *asked)
    assert approved.exit_code == 0, approved.output
    approval = approved.output.split("--approval ")[1].strip()
    assert _run("export", search_id, again, *arguments, "--approval", approval).exit_code == 0
    assert verify_bundle(again).outcomes[12] == "passed: The defence, approved by sv-1"


def test_a19_nothing_is_disclosed_without_a_second_person_and_one_recipient(
    room: Room, answers: list[dict[str, Any]]
) -> None:
    search_id, other = answers[3]["search_id"], answers[4]["search_id"]
    assert room.export(search_id, "").json()["code"] == "approval_needed"
    assert room.approve(search_id, room.operator.http).status_code == 403
    stranger = room.search.operator(roles=["supervisor"], force="eastmoor", sub="sv-9").http
    assert room.approve(search_id, stranger).status_code == 404
    approval = room.approve(search_id).json()["approval_id"]
    both = room.search.operator(roles=["operator", "supervisor"], sub="sv-1").http
    for refused, expected in (
        (room.export(other, approval), (409, "approval_needed")),
        (room.export(search_id, "0" * 36), (409, "approval_needed")),
        (room.export(search_id, approval, room.supervisor), (403, "own_approval")),
        (room.export(search_id, approval, both), (403, "own_approval")),
    ):
        assert (refused.status_code, refused.json()["code"]) == expected, refused.text
    bundle = room.export(search_id, approval).json()
    assert bundle["watermark"].startswith("Disclosed to Northshire Crown Court alone")
    assert bundle["approval"]["approved_by"] == "sv-1" != bundle["made_by"]["person_id"]
    assert room.export(search_id, approval).status_code == 409, "it serves once"


def test_another_model_is_not_compared(room: Room, answers: list[dict[str, Any]]) -> None:
    spoilt = [{**one} for one in answers[2]["candidates"]]
    spoilt[0]["score"] += 1e-5
    assert compare(spoilt, room.replay(answers[2]["search_id"])).verdict is Verdict.DIFFERS
    room.peers.embed.model_id = "another-model"
    try:
        answer = room.operator.http.post(f"/v1/searches/{answers[2]['search_id']}/replay", params=REASON)
        assert (answer.status_code, answer.json()["code"]) == (409, "model_mismatch")
    finally:
        room.peers.embed.model_id = "yunet+sface-test+p1"
    assert vector_of("ann").shape == (128,)
