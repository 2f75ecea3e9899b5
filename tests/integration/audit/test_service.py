"""The audit service as a real process: gRPC for services, REST for auditors, the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typer.testing import CliRunner, Result

from services.audit import verification
from services.audit.cli import audit_app
from services.audit.proofs import check_consistency, check_inclusion
from services.audit.verification import VerificationFailed, leaf_hash, parse_checkpoint
from services.audit.verifying import verify
from services.local.disclosure.cli import disclosure_app
from services.rpc.clients import open_channel
from services.rpc.v1 import audit_pb2, audit_pb2_grpc
from services.shared.errors import Conflict, InvalidRequest
from services.shared.ids import new_id
from tests.integration.audit.service import AuditProcess, record_search, recorder_to


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditProcess]:
    process = AuditProcess(tmp_path_factory.mktemp("audit")).start()
    recorder = recorder_to(process.address)
    for number in range(30):
        record_search(recorder, number)
        record_search(recorder, number, audit_pb2.DONE, recipients=["person:operator-17"])
    yield process
    process.stop()


_DOCUMENT = Path(__file__).parents[3] / "docs" / "audit.md"


def _likeness_audit(*arguments: str | Path) -> Result:
    return CliRunner().invoke(audit_app, list(map(str, arguments)), env={"COLUMNS": "200"})


def _stub(audit: AuditProcess) -> audit_pb2_grpc.AuditStub:
    return audit_pb2_grpc.AuditStub(open_channel(audit.address))


def test_appends_over_grpc_and_says_where(audit: AuditProcess) -> None:
    recorder = recorder_to(audit.address)
    entry_id = new_id()
    first = record_search(recorder, 900, entry_id=entry_id)
    assert record_search(recorder, 900, entry_id=entry_id) == first
    assert record_search(recorder, 901).sequence == first.sequence + 1
    with pytest.raises(Conflict):
        record_search(recorder, 902, entry_id=entry_id)
    with pytest.raises(InvalidRequest, match="objects"):
        record_search(recorder, 903, objects=["custody"])


def test_proves_over_grpc(audit: AuditProcess) -> None:
    stub = _stub(audit)
    old = stub.GetCheckpoint(audit_pb2.GetCheckpointRequest(fresh=True))
    appended = record_search(recorder_to(audit.address), 910)
    new = stub.GetCheckpoint(audit_pb2.GetCheckpointRequest(fresh=True))
    assert new.tree_size > appended.sequence >= old.tree_size
    proof = stub.ProveInclusion(audit_pb2.ProveInclusionRequest(sequence=appended.sequence, tree_size=new.tree_size))
    assert proof.leaf_hash == appended.leaf_hash
    check_inclusion(appended.leaf_hash, appended.sequence, new.tree_size, proof.path, new.root_hash)
    request = audit_pb2.ProveConsistencyRequest(first_size=old.tree_size, second_size=new.tree_size)
    path = stub.ProveConsistency(request).path
    check_consistency(old.tree_size, new.tree_size, old.root_hash, new.root_hash, path)
    with pytest.raises(grpc.RpcError) as refused:
        stub.ProveInclusion(audit_pb2.ProveInclusionRequest(sequence=10**9))
    assert cast("grpc.Call", refused.value).code() is grpc.StatusCode.NOT_FOUND


def test_health_is_that_of_the_log(audit: AuditProcess) -> None:
    stub = health_pb2_grpc.HealthStub(open_channel(audit.address))
    answer = stub.Check(health_pb2.HealthCheckRequest(service="likeness.v1.Audit"), timeout=60)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert "/v1/audit/entries/{sequence}" in audit.get("/openapi.json").json()["paths"]
    metrics = audit.get("/metrics").text
    assert "likeness_audit_append_seconds_bucket" in metrics
    assert 'likeness_audit_entries_total{operation="consultation",phase="done"}' in metrics
    assert "likeness_audit_witness_timestamp_seconds" in metrics


def test_auditors_page_through_the_log(audit: AuditProcess) -> None:
    seen: list[int] = []
    before: int | None = 60
    while before is not None:
        page = audit.get("/v1/audit/entries", "auditor", before=before, limit=25, reason="inspection").json()
        seen += [entry["sequence"] for entry in page["entries"]]
        before = page["next_before"]
    assert seen == list(range(59, -1, -1))
    wanted = audit.get("/v1/audit/entries", "auditor", case_reference="NS/2026/000007").json()["entries"]
    assert {entry["entry"]["phase"] for entry in wanted} == {"INTENT", "DONE"}
    assert {entry["entry"]["activity_id"] for entry in wanted} == {"search-7"}
    assert wanted[0]["entry"]["details"]["note"] == 'Zoë said "no"\n'
    nobody = audit.get("/v1/audit/entries", "auditor", recorded_before="2001-01-01T00:00:00Z").json()
    assert nobody["entries"] == []


def test_one_entry_comes_with_a_proof_that_leads_to_a_signed_root(audit: AuditProcess) -> None:
    keys = audit.get("/v1/audit/keys", "auditor").json()["keys"]
    trusted = {key["key_id"]: verification.read_public_key(key["public_key"].encode()) for key in keys}
    newest = record_search(recorder_to(audit.address), 920).sequence
    for sequence in (0, 17, newest):
        answer = audit.get(f"/v1/audit/entries/{sequence}", "auditor").json()
        head = parse_checkpoint(json.dumps(answer["checkpoint"]))
        verification.check_signature(head, head.log_id, trusted)
        leaf = leaf_hash(answer["canonical"].encode())
        path = [bytes.fromhex(part) for part in answer["proof"]["path"]]
        check_inclusion(leaf, sequence, head.tree_size, path, head.root_hash)
        assert json.loads(answer["canonical"]) == answer["entry"]
    assert audit.get("/v1/audit/entries/99999999", "auditor").status_code == 404


def test_reading_is_recorded_before_and_after(audit: AuditProcess) -> None:
    audit.get("/v1/audit/entries/3", "auditor", reason="complaint 12")
    newest = audit.get("/v1/audit/entries", "auditor", activity="audit_entry", limit=2).json()["entries"]
    done, intent = (entry["entry"] for entry in newest)
    assert (intent["phase"], done["phase"]) == ("INTENT", "DONE")
    assert intent["activity_id"] == done["activity_id"]
    assert intent["operation"] == "CONSULTATION"
    assert intent["actor"] == {"force": "northshire", "person_id": "auditor-1", "roles": ["auditor"]}
    assert (intent["details"], intent["objects"]) == ({"reason": "complaint 12"}, ["audit_entry:3"])
    assert done["recipients"] == ["person:auditor-1"]


@pytest.mark.parametrize(
    "path", ["entries", "entries/0", "checkpoint", "consistency?first_size=0&second_size=1", "keys", "export"]
)
def test_only_auditors_read_and_refusals_are_recorded(audit: AuditProcess, path: str) -> None:
    assert audit.get(f"/v1/audit/{path}").status_code == 401
    assert audit.get(f"/v1/audit/{path}", "operator", "custodian", "administrator").status_code == 403
    newest = audit.get("/v1/audit/entries", "auditor", person_id="operator-1", limit=1).json()["entries"][0]["entry"]
    assert (newest["phase"], newest["operation"]) == ("REFUSED", "CONSULTATION")
    assert newest["details"] == {"problem": "forbidden"}


def test_an_inspector_sees_random_searches_and_nothing_else(audit: AuditProcess) -> None:
    sample = audit.get("/v1/audit/sample", "inspector", seed="3 dice: 2 5 6", count=5, reason="inspection").json()
    assert len(sample["searches"]) == 5
    head = parse_checkpoint(json.dumps(sample["checkpoint"]))
    ids = set()
    for entries in sample["searches"]:
        assert entries[0]["entry"]["phase"] == "INTENT"
        ids.add(entries[0]["entry"]["activity_id"])
        for entry in entries:
            path = [bytes.fromhex(part) for part in entry["proof"]["path"]]
            check_inclusion(
                leaf_hash(entry["canonical"].encode()), entry["sequence"], head.tree_size, path, head.root_hash
            )
    assert len(ids) == 5
    again = audit.get("/v1/audit/sample", "auditor", seed="another seed", count=5).json()
    assert {entries[0]["entry"]["activity_id"] for entries in again["searches"]} != ids
    for route in ("entries", "entries/0", "export"):
        assert audit.get(f"/v1/audit/{route}", "inspector").status_code == 403
    for route in ("keys", "checkpoint"):
        assert audit.get(f"/v1/audit/{route}", "inspector").status_code == 200
    assert audit.get("/v1/audit/sample", "operator", seed="3 dice: 2 5 6").status_code == 403
    newest = audit.get("/v1/audit/entries", "auditor", activity="audit_sample", limit=3).json()["entries"]
    assert newest[0]["entry"]["phase"] == "REFUSED"


def test_wrong_requests_are_answered_with_advice(audit: AuditProcess) -> None:
    for path in ("entries?limit=0", "entries?recorded_from=yesterday", "entries?case=1&limit=5000", "entries/-1"):
        answer = audit.get(f"/v1/audit/{path}", "auditor")
        assert answer.status_code == 422
        assert answer.json()["code"] == "invalid_request"


def test_an_export_over_rest_verifies_offline(audit: AuditProcess, tmp_path: Path) -> None:
    token = tmp_path / "auditor.token"
    token.write_text(audit.tokens.headers("auditor")["Authorization"].removeprefix("Bearer "))
    out = tmp_path / "export.jsonl"
    where = ("--url", audit.url, "--token-file", token, "--reason", "disclosure")
    approval = audit.approve_export("The commissioner")
    made = _likeness_audit("export", *where, "--approval", approval, out)
    assert made.exit_code == 0, made.output
    checked = _likeness_audit("verify", out, "--witness", audit.witness_path)
    assert checked.exit_code == 0, checked.output
    for number in range(1, 10):
        assert f"{number}. {verification.CHECKS[number]}: passed" in checked.output
    assert "does not prove" in checked.output
    assert f"Disclosed to The commissioner alone, approval {approval}." in checked.output
    assert "Approved by supervisor-1." in checked.output
    again = _likeness_audit("export", "--url", audit.url, "--token-file", token, out)
    assert again.exit_code == 2
    token.write_text("nonsense")
    refused = _likeness_audit("export", "--url", audit.url, "--token-file", token, tmp_path / "second.jsonl")
    assert refused.exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["auditor.token", "export.jsonl"]
    phases = audit.get("/v1/audit/entries", "auditor", activity="audit_export", limit=2).json()["entries"]
    assert [entry["entry"]["phase"] for entry in phases] == ["DONE", "INTENT"]


def test_an_export_leaves_once_for_one_recipient_whom_somebody_else_approved(audit: AuditProcess) -> None:
    def export(approval: str) -> httpx.Response:
        return audit.get("/v1/audit/export", "auditor", approval=approval, reason="inspection")

    for none in ("", "nonsense", new_id()):
        assert (export(none).status_code, export(none).json()["code"]) == (409, "approval_needed")
    own = audit.approve_export("The commissioner", role="auditor")
    assert (export(own).status_code, export(own).json()["code"]) == (403, "own_approval")
    approval = audit.approve_export("The commissioner")
    with ThreadPoolExecutor(4) as callers:
        answers = list(callers.map(export, [approval] * 4))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"approval_used"}
    found = audit.get("/v1/audit/entries", "auditor", activity="audit_export", limit=5).json()["entries"]
    outcomes = {one["entry"]["phase"]: one["entry"] for one in found}
    assert set(outcomes) == {"INTENT", "DONE", "REFUSED"}
    assert outcomes["DONE"]["operation"] == "DISCLOSURE"
    assert outcomes["DONE"]["recipients"] == ["person:auditor-1", "recipient:The commissioner"]
    assert outcomes["INTENT"]["details"]["approval"] == approval


def test_only_an_auditor_or_a_supervisor_approves_an_export(audit: AuditProcess) -> None:
    for role in ("inspector", "operator", "administrator", "custodian", "requester"):
        assert audit.post("/v1/audit/export-approvals", role, recipient="A court", reason="Why.").status_code == 403
    for wanted in (
        {"recipient": "  ", "reason": "Why."},
        {"recipient": "A court"},
        {"recipient": "a\nb", "reason": "W."},
    ):
        assert audit.post("/v1/audit/export-approvals", "supervisor", **wanted).status_code == 422


def test_a_copy_under_another_name_is_found(audit: AuditProcess, tmp_path: Path) -> None:
    export = tmp_path / "export.jsonl"
    whole = audit.export("The commissioner")
    for changed in (
        whole.replace(b"The commissioner", b"A newspaper", 2),
        whole.replace(b'"recipient":"The commissioner"', b'"recipient":"A newspaper"', 1),
        whole.replace(b'"disclosed":{', b'"disclosed":{"more":"x",', 1),
        whole.replace(b'"disclosed":{', b'"disclosed":{"more":1,', 1),
    ):
        export.write_bytes(changed)
        with pytest.raises(VerificationFailed) as failed:
            verify(export)
        assert failed.value.check == 1


def test_figures_for_those_who_oversee(audit: AuditProcess) -> None:
    answer = audit.get("/v1/audit/statistics", "inspector", reason="visit")
    figures = answer.json()
    assert answer.status_code == 200
    assert figures["force"] is None
    assert figures["searches"] == sum(one["count"] for one in figures["searches_by"]["purpose"]) >= 30
    assert audit.get("/v1/audit/statistics", "supervisor").json()["force"] == "northshire"
    assert audit.get("/v1/audit/statistics", "operator").status_code == 403
    assert audit.get("/v1/audit/statistics", "auditor", month="2026-13").status_code == 422


def test_the_store_of_the_running_service_verifies(audit: AuditProcess) -> None:
    report = verify(audit.store_path, witness=audit.witness_path)
    assert report.entries >= 60
    assert report.witnessed >= 1


def test_the_verifier_is_one_file_that_needs_nothing_of_likeness(audit: AuditProcess, tmp_path: Path) -> None:
    export = tmp_path / "export.jsonl"
    export.write_bytes(audit.export())
    alone = tmp_path / "verification.py"
    alone.write_bytes(Path(str(verification.__file__)).read_bytes())
    command = [sys.executable, "-S", "-c", _RUN_ALONE, str(alone), str(export), "--witness", str(audit.witness_path)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    content = export.read_bytes()
    export.write_bytes(content.replace(b'"search-12"', b'"search-13"', 1))
    spoilt = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, cwd=tmp_path)
    assert spoilt.returncode == 1
    assert "first bad sequence number: 24" in spoilt.stdout


# Only the standard library and `cryptography` (and what that itself needs) can be imported.
_RUN_ALONE = f"""
import runpy, sys
sys.path.extend({[path for path in sys.path if path.endswith("site-packages")]!r})
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("cryptography", "_cffi_backend", "cffi"):
            raise ImportError(f"{{name}} is not there")
sys.meta_path.insert(0, Only())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_an_entry_of_an_export_can_be_hashed_with_common_tools(audit: AuditProcess, tmp_path: Path) -> None:
    """The command line of docs/audit.md."""
    export = tmp_path / "audit-export.jsonl"
    export.write_bytes(audit.export())
    command = next(
        line for line in _DOCUMENT.read_text("utf-8").splitlines() if line.startswith("sed -n 3p audit-export")
    )
    hashed = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, cwd=tmp_path)
    third = json.loads(export.read_bytes().splitlines()[2])
    assert hashed.stdout.split()[0] == third["leaf_hash"]


def test_the_code_of_a_result_is_checked_against_an_export(audit: AuditProcess, tmp_path: Path) -> None:
    recorded = record_search(recorder_to(audit.address), 901)
    export = tmp_path / "export.jsonl"
    export.write_bytes(audit.export())

    def checked(code: str) -> Result:
        return CliRunner().invoke(disclosure_app, ["verify", code, "--log", str(export)], env={"COLUMNS": "200"})

    good = f"likeness:{recorded.sequence}:{recorded.leaf_hash.hex()}"
    told = checked(f" {good[:40]}\n{good[40:].upper()} ")  # as it is copied from paper
    assert told.exit_code == 0, told.output
    assert "activity: search" in told.output
    for bad, why in (
        (f"likeness:{recorded.sequence}:{'0' * 64}", "another one"),
        (f"likeness:{recorded.sequence + 1000}:{recorded.leaf_hash.hex()}", "ends before"),
        ("likeness:12", "no code"),
    ):
        refused = checked(bad)
        assert (refused.exit_code, why in refused.output) == (1, True), refused.output
    lines = export.read_bytes().splitlines(keepends=True)
    export.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert checked(good).exit_code == 1
    no_log = CliRunner().invoke(disclosure_app, ["verify", good])
    assert no_log.exit_code == 2


def test_goes_on_where_it_stopped_and_only_there(tmp_path: Path) -> None:
    audit = AuditProcess(tmp_path).start()
    recorder = recorder_to(audit.address)
    assert [record_search(recorder, number).sequence for number in range(5)] == [0, 1, 2, 3, 4]
    audit.stop()
    stopped = verify(audit.store_path, witness=audit.witness_path)
    assert (stopped.entries, stopped.unsigned_entries) == (5, 0)
    data = tmp_path / "data" / "audit"
    data.mkdir(parents=True)
    (data / "audit.sqlite").write_bytes(audit.store_path.read_bytes())
    shutil.copytree(audit.witness_path, tmp_path / "data" / "audit-witness")
    checked = _likeness_audit("verify", tmp_path / "data")
    assert checked.exit_code == 0
    assert "8. Every witnessed checkpoint's root is the root of the entries: passed" in checked.output
    made = _likeness_audit("export", "--data", tmp_path / "data", tmp_path / "export.jsonl")
    assert made.exit_code == 0, made.output
    assert verify(tmp_path / "export.jsonl", witness=audit.witness_path).entries == 5
    audit.start()
    assert record_search(recorder_to(audit.address), 5).sequence == 5
    audit.stop()
    # An older copy of the store, as a careless restore would bring it.
    for path in tmp_path.glob("audit.sqlite*"):
        path.unlink()
    (data / "audit.sqlite").rename(audit.store_path)
    assert audit.exit_code() == 1
    assert "its tail was cut" in audit.log_text
