"""A person is erased everywhere: no byte of image or template is left in any store, and nothing brings it back."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from services.ingest.life.certificates import verify_certificate
from services.local.backup.taking import take_backup
from services.rpc.clients import EmbedClient
from services.rpc.probes import ProbeClient
from services.rpc.v1 import common_pb2, embed_pb2, events_pb2, probes_pb2
from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.adapters.sqlite_event_log import SqliteEventLog
from services.shared.clock import SystemClock
from services.shared.errors import IntegrityError
from services.shared.ids import new_id
from services.shared.ports.event_log import Event
from tests.support.casework import post_enrolment, post_search, wait_settled
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

STUB = {
    "LIKENESS_EMBED__MODEL__KIND": "stub",
    "LIKENESS_EMBED__GATE__WORKERS": "1",
    "LIKENESS_EMBED__INFERENCE__WORKERS": "1",
}
TOPIC = "likeness.custody-image-received.v1"
ORDER = {"reason": "acquitted; the person asked", "authority": "request 2026/17"}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("life"), settings=STUB) as running:
        yield running


@pytest.fixture
def custodian(platform: Platform) -> Iterator[httpx.Client]:
    with platform.client("ingest", "custodian") as client:
        yield client


def picture(seed: int) -> bytes:
    """A picture that no other test has, as a JPEG whose bytes do not compress."""
    noise = np.random.default_rng(seed).integers(0, 255, (240, 240, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def template_of(platform: Platform, image: bytes) -> bytes:
    with platform.channel("embed", "ingest") as channel:
        face = EmbedClient(channel).analyse(image, embed_pb2.AnalyseRequest.LARGEST).faces[0]
    assert face.template is not None
    return face.template.vector.astype("<f4").tobytes()


def enrol(client: httpx.Client, image: bytes, subject_id: str, watchlist: str = "custody") -> str:
    answer = post_enrolment(client, image, subject_id, watchlist)
    assert answer.status_code in {200, 202}, answer.text
    enrolment_id: str = answer.json()["enrolment_id"]
    assert wait_settled(client, [enrolment_id])[enrolment_id] == "enrolled"
    return enrolment_id


def publish(platform: Platform, *events: Event) -> None:
    log = SqliteEventLog(platform.data.root / "events.sqlite")
    log.publish(events)
    wait_until(lambda: log.lag([TOPIC], "likeness-ingest") == 0, 180, "the feed to be read")
    log.close()


def custody_event(image: bytes, subject_id: str, **changes: str) -> events_pb2.CustodyImageReceived:
    fields: dict[str, Any] = {
        "event_id": new_id(),
        "watchlist_id": "custody",
        "owner": "northshire",
        "subject_id": subject_id,
        "lawful_basis": "pace_1984_s64a",
        "captured_on": "2026-03-01",
        "image": image,
        **changes,
    }
    return events_pb2.CustodyImageReceived(**fields)


def files_with(root: Path, *needles: bytes) -> set[str]:
    """Every file below a folder that holds one of these, in the clear or in base64, whatever its place in a page."""
    parts: list[bytes] = []
    for needle in needles:
        own = 1500 if len(needle) > 5000 else 0  # a JPEG's first bytes are those of any other
        parts += [needle[start : start + 48] for start in range(own, len(needle) - 48, 997)]
        parts += [base64.b64encode(needle[start : start + 60])[4:-4] for start in range(own, own + 3)]
    found = set()
    for path in root.rglob("*"):
        # What is gone by the time that it is read holds nothing: services at work make files and take them away.
        with suppress(FileNotFoundError):
            content = path.read_bytes() if path.is_file() else b""
            if any(part in content for part in parts):
                found.add(str(path.relative_to(root)))
    return found


def erase(client: httpx.Client, subject_id: str, **changes: Any) -> str:
    answer = client.post("/v1/erasures", json={"subject_id": subject_id, **ORDER, **changes})
    assert answer.status_code == 202, answer.text
    erasure_id: str = answer.json()["erasure_id"]
    return erasure_id


def wait_state(client: httpx.Client, erasure_id: str, state: str) -> Mapping[str, Any]:
    found: dict[str, Any] = {}

    def is_there() -> bool:
        found.update(client.get(f"/v1/erasures/{erasure_id}").json())
        return bool(found["state"] == state)

    wait_until(is_there, 180, lambda: f"the erasure to be {state}, it is {found}")
    return found


def found_subjects(platform: Platform, image: bytes) -> set[str]:
    """Searched with a copy in another format: probes belong to their cases and are kept as long as those."""
    copy = io.BytesIO()
    Image.open(io.BytesIO(image)).save(copy, "PNG")
    with platform.client("search", "operator") as operator:
        answer = post_search(operator, copy.getvalue(), ["custody", "sex_offenders"])
    assert answer.status_code == 200, answer.text
    return {candidate["subject_id"] for candidate in answer.json()["candidates"]}


def test_an_erased_person_is_in_no_store_and_does_not_come_back(platform: Platform, custodian: httpx.Client) -> None:
    root = platform.data.root
    image, by_feed, kept = picture(1), picture(2), picture(3)
    first = enrol(custodian, image, "ERASE-1")
    enrol(custodian, image, "ERASE-1", "sex_offenders")
    enrol(custodian, kept, "STAYS-1")
    facts = "CUSTODY-RECORD-OF-ERASE-1-" * 3
    message = custody_event(by_feed, "ERASE-1", custody_reference=facts, capture_device=facts)
    poison = custody_event(by_feed, "ERASE-1", captured_on="yesterday")
    as_json = json.dumps({
        "event_id": new_id(), "watchlist_id": "custody", "owner": "northshire", "subject_id": "ERASE-1",
        "lawful_basis": "curiosity", "captured_on": "2026-03-01", "image": base64.b64encode(by_feed).decode(),
    })  # fmt: skip
    key = "northshire/ERASE-1"
    publish(
        platform,
        Event(TOPIC, key, message.SerializeToString()),
        Event(TOPIC, key, poison.SerializeToString()),
        Event(TOPIC, "some other key", as_json.encode()),
    )
    wait_until(
        lambda: len(custodian.get("/v1/enrolments", params={"state": "enrolled"}).json()["enrolments"]) >= 4,
        180,
        "the image of the feed",
    )
    templates = template_of(platform, image), template_of(platform, by_feed)
    # The test can fail: the events hold the image, and what is sealed would be found if it were not.
    assert "events.sqlite" in {name.removesuffix("-wal") for name in files_with(root, by_feed)}
    assert files_with(root, facts.encode())
    assert found_subjects(platform, image) >= {"ERASE-1"}
    backup = root.parent / "backup"
    shutil.copytree(root / "images", backup / "images")
    shutil.copytree(root / "ingest", backup / "ingest")
    take_backup(platform.data, backup / "record", backup / "keys", SystemClock(), lambda _: None)

    found = wait_state(custodian, erase(custodian, "ERASE-1"), "erased")

    assert files_with(root, image, by_feed, *templates) == set()
    assert files_with(backup, image, by_feed, *templates) == set()
    assert files_with(root, facts.encode()) == set()
    assert found["stores"]["images"] == 2
    assert found["stores"]["events"] >= 5, "three events and two dead letters"
    assert "ERASE-1" not in found_subjects(platform, image)
    assert "STAYS-1" in found_subjects(platform, kept)
    assert custodian.get(f"/v1/enrolments/{first}").json()["reason"] == "erased"

    again = post_enrolment(custodian, image, "ERASE-1")
    assert (again.status_code, again.json()["code"]) == (409, "erased")
    publish(platform, Event(TOPIC, key, message.SerializeToString()))
    assert "ERASE-1" not in found_subjects(platform, by_feed)
    before = post_enrolment(custodian, picture(4), "ERASE-1")
    assert (before.status_code, before.json()["code"]) == (409, "erased"), "another image, and from before the erasure"
    # The same picture may be somebody else's, and the same person may come again with a later one.
    enrol(custodian, image, "ANOTHER-1")
    later = post_enrolment(custodian, picture(4), "ERASE-1", captured_on=today())
    assert later.status_code == 202, later.text
    wait_settled(custodian, [later.json()["enrolment_id"]])


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def keyed(root: Path, store: str) -> set[str]:
    """The SHA-256 of every image that a key of that store still opens."""
    with closing(sqlite3.connect(root / store / "keys.sqlite", timeout=60)) as table:
        return {row[0] for row in table.execute("SELECT sha256 FROM image_keys WHERE wrapped != x''")}


def test_the_sealed_copies_of_a_probe_are_erased_when_review_says_that_its_case_is_over(platform: Platform) -> None:
    root, probe = platform.data.root, picture(71)
    sha256 = hashlib.sha256(probe).hexdigest()
    with platform.client("search", "operator") as operator:
        answer = post_search(operator, probe)
        assert answer.status_code == 200, answer.text
        replay = f"/v1/searches/{answer.json()['search_id']}/replay"
        assert files_with(root, probe) == set()
        assert sha256 in keyed(root, "probe-keys"), "the test can fail"
        assert operator.post(replay, params={"reason": "appeal"}).status_code == 200, "sealed, and opened again"
        master = (root / "probe-keys" / "master.key").read_bytes()
        backup = root.parent / "probes-before"
        shutil.copytree(root / "probes", backup / "probes")
        order = probes_pb2.EraseProbesRequest(
            request_id=new_id(),
            case_reference=answer.json()["request"]["case_reference"],
            actor=common_pb2.Actor(person_id="anna", force="northshire"),
            reason="its time is over",
            sha256s=[sha256],
        )
        with platform.channel("search", "review") as channel:
            assert list(ProbeClient(channel).erase(order)) == list(order.sha256s)
            assert list(ProbeClient(channel).erase(order)) == []
        assert sha256 not in keyed(root, "probe-keys")
        assert files_with(backup, probe) == set()
        refused = operator.post(replay, params={"reason": "appeal"})
        assert (refused.status_code, refused.json()["code"]) == (409, "probe_erased")
    key = root / "probe-keys" / "master.key"
    wait_until(lambda: key.read_bytes() != master, 120, "a new master key, so that older key tables open nothing")


def test_probes_from_before_there_were_keys_are_sealed_at_the_next_start(platform: Platform) -> None:
    root, probe = platform.data.root, picture(72)
    platform.kill("search")
    FolderImageStore(root / "probes").put(probe)
    assert files_with(root, probe), "the test can fail"
    platform.restart("search")
    wait_until(lambda: files_with(root, probe) == set(), 120, "the open probe to be sealed", 0.5)
    assert hashlib.sha256(probe).hexdigest() in keyed(root, "probe-keys")


def test_the_certificate_verifies_offline_and_no_change_to_it_does(platform: Platform, custodian: httpx.Client) -> None:
    enrol(custodian, picture(11), "CERT-1")
    erasure_id = erase(custodian, "CERT-1")
    wait_state(custodian, erasure_id, "erased")
    document = custodian.get(f"/v1/erasures/{erasure_id}/certificate").text
    public_key = custodian.get("/v1/erasures/certificate-key").content
    facts = verify_certificate(document, public_key)
    assert (facts["subject_id"], facts["authority"], len(facts["references"])) == ("CERT-1", ORDER["authority"], 1)
    for forged in (
        document.replace("CERT-1", "CERT-2"),
        document.replace('"images":1', '"images":2'),
        document + " x",
    ):
        with pytest.raises(IntegrityError):
            verify_certificate(forged, public_key)


def test_quarantine_comes_before_deletion_and_can_be_lifted(platform: Platform, custodian: httpx.Client) -> None:
    image = picture(21)
    enrolment_id = enrol(custodian, image, "QUARANTINE-1")
    erasure_id = erase(custodian, "QUARANTINE-1", quarantine_days=30)
    assert erase(custodian, "QUARANTINE-1", quarantine_days=30) == erasure_id, "the same again"
    wait_state(custodian, erasure_id, "quarantined")
    wait_until(lambda: "QUARANTINE-1" not in found_subjects(platform, image), 180, "it to be out of search")
    assert custodian.get(f"/v1/enrolments/{enrolment_id}").json()["state"] == "quarantined"
    assert custodian.get(f"/v1/erasures/{erasure_id}/certificate").status_code == 409

    # What comes late, and was captured before, is not enrolled beside it.
    refused = post_enrolment(custodian, picture(22), "QUARANTINE-1")
    assert (refused.status_code, refused.json()["code"]) == (409, "awaiting_erasure")
    late = custody_event(picture(23), "QUARANTINE-1").SerializeToString()
    publish(platform, Event(TOPIC, "northshire/QUARANTINE-1", late))

    def letters() -> list[str]:
        listed = custodian.get("/v1/dead-letters").json()["letters"]
        return [each["place"] for each in listed if each["reason"] == "awaiting_erasure"]

    wait_until(lambda: len(letters()) == 1, 180, "the late image as a dead letter")
    assert "QUARANTINE-1" not in found_subjects(platform, picture(23))

    lifted = custodian.post(f"/v1/erasures/{erasure_id}/lift")
    assert lifted.json() == {"put_back": 1}
    wait_until(lambda: "QUARANTINE-1" in found_subjects(platform, image), 180, "it to be back in search")
    assert custodian.post("/v1/dead-letters/replay", json={"places": letters()}).json() == {"replayed": 1}
    wait_until(lambda: "QUARANTINE-1" in found_subjects(platform, picture(23)), 180, "the late image in search")
    assert custodian.post(f"/v1/erasures/{erasure_id}/lift").status_code == 409


def test_a_ledger_restored_from_a_backup_is_erased_again(platform: Platform, custodian: httpx.Client) -> None:
    image = picture(31)
    enrol(custodian, image, "RESTORED-1")
    root = platform.data.root
    platform.kill("ingest")
    saved = root.parent / "ledger"
    shutil.copytree(root / "ingest", saved)
    platform.restart("ingest")
    wait_state(custodian, erase(custodian, "RESTORED-1"), "erased")

    platform.kill("ingest")
    shutil.rmtree(root / "ingest")
    shutil.copytree(saved, root / "ingest")
    platform.kill("search")
    platform.restart("ingest")
    platform.restart("search")

    def is_erased_again() -> bool:
        found = custodian.get("/v1/erasures").json()["erasures"]
        return any(each["subject_id"] == "RESTORED-1" and each["state"] == "erased" for each in found)

    wait_until(is_erased_again, 180, "the restored ledger to be erased again")
    assert "RESTORED-1" not in found_subjects(platform, image)


def run(platform: Platform, *arguments: str, expect: int = 0) -> str:
    """A command as an operator of the platform gives it."""
    token = platform.data.root / "custodian.token"
    token.write_text(platform.token("custodian"))
    options = ["--token", str(token), "--url", platform.url("ingest")]
    command = [str(Path(sys.executable).with_name("likeness")), *arguments, *options]
    environment = {**os.environ, "COLUMNS": "250"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


def test_the_command_line_does_the_same(platform: Platform, custodian: httpx.Client, tmp_path: Path) -> None:
    image = picture(61)
    enrol(custodian, image, "CLI-1")
    kept = enrol(custodian, picture(62), "CLI-2")
    assert "Nothing differed" in run(platform, "gallery", "reconcile", "--deep")
    assert " references in exact in-process" in run(platform, "gallery", "rebuild")
    assert "CLI-1" in found_subjects(platform, image)
    certificate = tmp_path / "certificate.json"
    order = ["--reason", "asked", "--authority", "request 9"]
    run(platform, "gallery", "erase", "CLI-1", *order, "--certificate", str(certificate))
    key = tmp_path / "key.pem"
    key.write_bytes(custodian.get("/v1/erasures/certificate-key").content)
    command = ["gallery", "verify-certificate", str(certificate), "--public-key", str(key)]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("likeness")), *command], capture_output=True, timeout=240, check=True
    )
    assert b"Valid" in done.stdout
    assert "CLI-1" in run(platform, "gallery", "erasures")
    assert "Kept until" in run(platform, "gallery", "review", kept, "--decision", "retain", "--reason", "needed")
    counted = tmp_path / "counted.csv"
    digests = [hashlib.sha256(picture(seed)).hexdigest() for seed in (62, 61, 63)]
    counted.write_text("subject_id,image_sha256\n" + "".join(f"any,{digest}\n" for digest in digests))
    told = run(platform, "gallery", "compare", str(counted), "--report", str(tmp_path / "report.csv"), expect=1)
    assert "never_received" in told
    assert "erased" in told
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 4
    assert "due" in run(platform, "gallery", "reviews")
    assert "place" in run(platform, "dlq", "list")


def test_only_a_custodian_of_the_force_erases(platform: Platform, custodian: httpx.Client) -> None:
    enrol(custodian, picture(41), "MINE-1", "sex_offenders")
    order = {"subject_id": "MINE-1", **ORDER}
    with platform.client("ingest", "operator") as operator:
        assert operator.post("/v1/erasures", json=order).status_code == 403
    with platform.client("ingest", "custodian", force="eastmoor") as stranger:
        assert stranger.post("/v1/erasures", json=order).status_code == 404
    with platform.client("ingest", "custodian", watchlists=["custody"]) as partly:
        assert partly.post("/v1/erasures", json=order).status_code == 403
    assert custodian.post("/v1/erasures", json={**order, "reason": " "}).status_code == 422


def test_due_reviews_are_listed_and_decided_by_a_person(platform: Platform, custodian: httpx.Client) -> None:
    facts = {"disposal": "acquitted", "disposal_on": "2026-03-20"}
    for seed, subject_id in ((51, "REVIEW-1"), (52, "REVIEW-2")):
        message = custody_event(
            picture(seed), subject_id, occurred_at="2026-03-20T10:00:00Z", custody_reference=subject_id, **facts
        )
        publish(platform, Event(TOPIC, f"northshire/{subject_id}", message.SerializeToString()))

    def due() -> dict[str, Any]:
        answer = custodian.get("/v1/reviews")
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["is_clock_trusted"]
        return {each["subject_id"]: each for each in found["reviews"]}

    wait_until(lambda: {"REVIEW-1", "REVIEW-2"} <= due().keys(), 180, lambda: f"two due reviews, have {due()}")
    first, second = due()["REVIEW-1"], due()["REVIEW-2"]
    assert (first["rule"], first["presume"], first["due_on"]) == ("custody-no-conviction", "erase", "2026-03-20")

    kept = {"decision": "retain", "reason": "appeal pending"}
    answer = custodian.post(f"/v1/reviews/{first['enrolment_id']}", json=kept)
    assert answer.status_code == 200, answer.text
    gone = {"decision": "erase", "reason": "acquitted", "quarantine_days": 0}
    erasure_id = custodian.post(f"/v1/reviews/{second['enrolment_id']}", json=gone).json()["erasure_id"]
    wait_state(custodian, erasure_id, "erased")
    assert due().keys().isdisjoint({"REVIEW-1", "REVIEW-2"})
    assert custodian.post(f"/v1/reviews/{second['enrolment_id']}", json=kept).status_code == 409
