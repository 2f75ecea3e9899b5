"""Drift between ledger, gallery and images is found by id and content; what can be put right is."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.integration.ingest.fakes import FakePeers, unit_vector
from tests.integration.ingest.service import Custodian, IngestProcess


def test_a_gallery_that_drifted_is_found_out_and_put_right(ingest: IngestProcess, peers: FakePeers) -> None:
    custodian = ingest.custodian()
    images = [f"reconciled {number}".encode() for number in range(6)]
    accepted = [custodian.enrol(image, subject_id=f"RC-{n}").json()["enrolment_id"] for n, image in enumerate(images)]
    names = [custodian.settled(each)["reference_id"] for each in accepted]
    gallery = peers.gallery

    def reconcile(**body: Any) -> dict[str, Any]:
        answer = custodian.http.post("/v1/gallery/reconciliation", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    assert reconcile()["is_clean"]
    good = dict(gallery.vectors)
    lost, changed, moved = names[0], names[1], names[2]
    del gallery.references[lost]
    gallery.vectors[changed] = unit_vector(b"somebody else").tobytes()
    version, _, subject = gallery.references[moved]
    gallery.references[moved] = (version, "sex_offenders", subject)
    gallery.references["surplus"] = (1, "custody", "nobody the ledger knows")
    gallery.vectors["surplus"] = unit_vector(b"nobody").tobytes()

    found = reconcile()
    assert (found["missing_in_gallery"]["ids"], found["surplus_in_gallery"]["ids"]) == ([lost], ["surplus"])
    assert set(found["other_in_gallery"]["ids"]) == {changed, moved}
    assert {name: gallery.vectors[name] for name in names} == {name: good[name] for name in names}
    assert gallery.references[moved][1] == "custody"
    assert "surplus" not in gallery.references
    again = reconcile()
    assert again["is_clean"]
    assert again == custodian.http.get("/v1/gallery/reconciliation").json()


def test_images_that_are_lost_or_damaged_are_named(ingest: IngestProcess, peers: FakePeers) -> None:
    custodian = ingest.custodian()
    digests = []
    for number in range(2):
        image = f"image to be harmed {number}".encode()
        custodian.settled(custodian.enrol(image, subject_id=f"HARM-{number}").json()["enrolment_id"])
        digests.append(hashlib.sha256(image).hexdigest())
    files = [next((ingest.root / "images").rglob(digest)) for digest in digests]
    files[0].unlink()
    files[1].chmod(0o640)
    files[1].write_bytes(b"other bytes")
    body = custodian.http.post("/v1/gallery/reconciliation", json={"is_deep": True}).json()
    assert body["missing_images"]["ids"] == [digests[0]]
    assert body["damaged_images"]["ids"] == [digests[1]]
    assert not body["is_clean"]
    assert ingest.custodian(role="operator").http.post("/v1/gallery/reconciliation", json={}).status_code == 403


def test_a_custodian_sees_what_is_their_own_forces_and_nothing_of_anothers(
    ingest: IngestProcess, peers: FakePeers
) -> None:
    """Counts, ids and even that something differed: another force's are for whoever runs the platform."""
    ours, theirs = ingest.custodian(), ingest.custodian(force="eastmoor")
    names: dict[str, str] = {}
    shared = b"both forces have this picture"
    for who, owner, count in ((ours, "northshire", 2), (theirs, "eastmoor", 3)):
        for number in range(count):
            image = shared if number == 0 else f"scope {owner} {number}".encode()
            subject_id = f"SCOPE-{owner}-{number}"
            accepted = who.enrol(image, subject_id=subject_id, owner=owner).json()["enrolment_id"]
            names[subject_id] = who.settled(accepted)["reference_id"]

    def seen(who: Custodian) -> dict[str, Any]:
        answer = who.http.get("/v1/gallery/reconciliation")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    assert theirs.http.post("/v1/gallery/reconciliation", json={}).status_code == 200
    before = {who: seen(who) for who in (ours, theirs)}
    administrator = ingest.custodian(role="administrator")
    whole = seen(administrator)
    assert {before[who]["scope"] for who in before} == {"own"}
    assert whole["scope"] == "platform"
    assert sum(before[who]["compared"] for who in before) == whole["compared"]
    assert before[theirs]["images"] == 3
    assert sum(before[who]["images"] for who in before) == whole["images"] + 1, "one picture is in both"

    lost = names["SCOPE-eastmoor-1"]
    del peers.gallery.references[lost]
    assert ours.http.post("/v1/gallery/reconciliation", json={}).json() | _TIMES == before[ours] | _TIMES
    assert (seen(theirs)["missing_in_gallery"]["ids"], seen(theirs)["is_clean"]) == ([lost], False)
    assert lost not in json.dumps(seen(ours))
    one_list = ingest.custodian(force="eastmoor", watchlists=["op_liberal"])
    assert (seen(one_list)["compared"], seen(one_list)["is_clean"]) == (0, True)

    swept = ours.http.post("/v1/gallery/image-sweep", json={}).json()
    assert (swept["scope"], swept["images"]) == ("own", 0)
    assert administrator.http.get("/v1/gallery/image-sweep").json()["images"] > 0
    assert theirs.http.post("/v1/gallery/rebuild").json()["searchable"] == {"custody": 3}
    assert one_list.http.post("/v1/gallery/rebuild").json()["searchable"] == {}


_TIMES = dict.fromkeys(("reconciliation_id", "started_at", "finished_at"), "")
