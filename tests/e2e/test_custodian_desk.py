"""What custodians work with, over a running platform: flags, access packages, exports to other bodies."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from services.ingest.access.package import verify_package
from services.ingest.bulk.type10 import faces_of, read_transaction
from services.shared.errors import IntegrityError
from tests.support.casework import post_enrolment, post_search, wait_settled
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

# To the stub model the same pixels are the same face, and others are not alike.
POINTS = {
    "format": 1,
    "flag_points": [
        {
            "recogniser": "stub*",
            "same_person": 0.6,
            "strong": 0.8,
            "near_identical": 0.95,
            "duplicate": 0.95,
            "unlike": 0.4,
            "version": "stub-1",
            "evidence": {"reference": "a stand-in for the networks"},
        }
    ],
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    points = tmp_path_factory.mktemp("points") / "flag_points.json"
    points.write_text(json.dumps(POINTS), "utf-8")
    settings = {
        "LIKENESS_EMBED__MODEL__KIND": "stub",
        "LIKENESS_EMBED__GATE__WORKERS": "1",
        "LIKENESS_EMBED__INFERENCE__WORKERS": "1",
        "LIKENESS_SEARCH__FLAG_POINTS_PATH": str(points),
    }
    with Platform(tmp_path_factory.mktemp("desk"), settings=settings) as running:
        yield running


@pytest.fixture
def custodian(platform: Platform) -> Iterator[httpx.Client]:
    with platform.client("ingest", "custodian") as client:
        yield client


def picture(seed: int, form: str = "PNG") -> bytes:
    """The same pixels for the same seed, in a format without loss."""
    noise = np.random.default_rng(seed).integers(0, 255, (120, 120, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, form)
    return stream.getvalue()


def enrol(client: httpx.Client, image: bytes, subject_id: str, watchlist: str = "custody") -> str:
    answer = post_enrolment(client, image, subject_id, watchlist)
    assert answer.status_code in {200, 202}, answer.text
    enrolment_id: str = answer.json()["enrolment_id"]
    assert wait_settled(client, [enrolment_id])[enrolment_id] == "enrolled"
    return enrolment_id


def flags_of(client: httpx.Client, *subject_ids: str, state: str = "open") -> list[dict[str, Any]]:
    found = client.get("/v1/flags", params={"state": state}).json()["flags"]
    return [flag for flag in found if set(flag["subject_ids"]) == set(subject_ids)]


def wait_flag(client: httpx.Client, *subject_ids: str) -> dict[str, Any]:
    wait_until(lambda: bool(flags_of(client, *subject_ids)), 180, f"a flag about {subject_ids}")
    [flag] = flags_of(client, *subject_ids)
    return flag


class TestFlags:
    def test_one_picture_under_two_subjects(self, platform: Platform, custodian: httpx.Client) -> None:
        one, other = enrol(custodian, picture(1), "F-1"), enrol(custodian, picture(1, "BMP"), "F-2")
        flag = wait_flag(custodian, "F-1", "F-2")
        assert (flag["kind"], flag["band"], flag["points_version"]) == (
            "probable_same_person",
            "near_identical",
            "stub-1",
        )
        assert {each["enrolment_id"] for each in flag["references"]} == {one, other}
        assert "score" not in json.dumps(flag)
        for enrolment_id, subject_id in ((one, "F-1"), (other, "F-2")):
            view = custodian.get(f"/v1/enrolments/{enrolment_id}").json()
            assert (view["state"], view["subject_id"]) == ("enrolled", subject_id), "nothing is merged by machine"
        decision = {"decision": "dismissed", "reason": "twins"}
        decided = custodian.post(f"/v1/flags/{flag['flag_id']}/decision", json=decision)
        assert (decided.status_code, decided.json()["state"]) == (200, "dismissed")
        again = custodian.post(f"/v1/flags/{flag['flag_id']}/decision", json=decision)
        assert (again.status_code, again.json()["code"]) == (409, "flag_decided")

    def test_one_picture_twice_and_an_odd_one_under_one_subject(self, custodian: httpx.Client) -> None:
        enrol(custodian, picture(2), "F-3")
        enrol(custodian, picture(2, "BMP"), "F-3")
        assert wait_flag(custodian, "F-3")["kind"] == "probable_duplicate"
        odd = enrol(custodian, picture(3), "F-3")

        def found() -> list[dict[str, Any]]:
            return [flag for flag in flags_of(custodian, "F-3") if flag["kind"] == "wrong_subject_suspected"]

        wait_until(lambda: bool(found()), 180, "a flag about the odd image")
        assert [each["enrolment_id"] for each in found()[0]["references"]] == [odd]

    def test_other_owners_and_watchlists_are_never_compared(self, platform: Platform, custodian: httpx.Client) -> None:
        enrol(custodian, picture(4), "F-4")
        enrol(custodian, picture(4, "BMP"), "F-5", "sex_offenders")
        with platform.client("ingest", "custodian", force="eastmoor") as eastmoor:
            answer = post_enrolment(eastmoor, picture(4, "TIFF"), "F-6", owner="eastmoor")
            wait_settled(eastmoor, [answer.json()["enrolment_id"]])
            # The last of them was checked once this one is flagged.
            enrol(custodian, picture(5), "F-7")
            enrol(custodian, picture(5, "BMP"), "F-8")
            wait_flag(custodian, "F-7", "F-8")
            assert not eastmoor.get("/v1/flags").json()["flags"]
        assert not flags_of(custodian, "F-4", "F-5")
        assert not flags_of(custodian, "F-4", "F-6")

    def test_flags_die_with_an_erased_subject(self, custodian: httpx.Client) -> None:
        enrol(custodian, picture(6), "F-9")
        enrol(custodian, picture(6, "BMP"), "F-10")
        flag = wait_flag(custodian, "F-9", "F-10")
        order = {"subject_id": "F-9", "reason": "acquitted", "authority": "request 1"}
        erasure = custodian.post("/v1/erasures", json=order).json()["erasure_id"]
        wait_until(lambda: custodian.get(f"/v1/erasures/{erasure}").json()["state"] == "erased", 180, "the erasure")
        assert custodian.get(f"/v1/flags/{flag['flag_id']}").status_code == 404


ORDER: Mapping[str, str] = {"reason": "subject access request", "authority": "SAR 2026/7"}


@pytest.fixture(scope="module")
def package(platform: Platform) -> bytes:
    """Of a subject with two images who was a candidate once."""
    with platform.client("ingest", "custodian") as client:
        enrol(client, picture(10), "A-1")
        enrol(client, picture(11), "A-1")
        with platform.client("search", "operator") as operator:
            assert post_search(operator, picture(10, "BMP"), ["custody"]).status_code == 200
        answer = client.post("/v1/subjects/access", json={"subject_id": "A-1", **ORDER})
    assert answer.status_code == 200, answer.text
    return answer.content


class TestAccessPackage:
    def key(self, custodian: httpx.Client) -> bytes:
        return custodian.get("/v1/erasures/certificate-key").content

    def test_it_holds_what_is_held_and_nothing_of_others(self, package: bytes, custodian: httpx.Client) -> None:
        facts = verify_package(package, self.key(custodian))
        assert (facts["subject_id"], facts["authority"]) == ("A-1", "SAR 2026/7")
        with zipfile.ZipFile(io.BytesIO(package)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        images = {content for name, content in files.items() if name.startswith("images/")}
        assert images == {picture(10), picture(11)}
        assert [each["state"] for each in json.loads(files["enrolments.json"])] == ["enrolled", "enrolled"]
        searches = json.loads(files["searches.json"])
        assert {each["force"] for each in searches} == {"northshire"}
        assert set(searches[0]) == {"searched_at", "purpose", "force", "watchlist", "reference_id"}
        text = b"".join(content for name, content in files.items() if name.endswith((".json", ".txt")))
        assert b"NC/2026" not in text, "no case"
        assert b"score" not in text
        proofs = json.loads(files["audit.json"])["activities"]
        assert len(proofs) >= 2, "of each enrolment at least"
        assert all({entry["phase"] for entry in each["entries"]} >= {"INTENT", "DONE"} for each in proofs)

    def test_a_changed_byte_is_found(self, package: bytes, custodian: httpx.Client) -> None:
        place = package.index(b'"lawful_basis"') + 2
        with pytest.raises(IntegrityError):
            verify_package(package[:place] + b"X" + package[place + 1 :], self.key(custodian))

    def test_searches_may_be_withheld_without_a_word(self, custodian: httpx.Client, package: bytes) -> None:
        order = {"subject_id": "A-1", **ORDER, "withhold_searches": "operation under way"}
        answer = custodian.post("/v1/subjects/access", json=order)
        assert answer.status_code == 200, answer.text
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert not {"searches.json", "disclosures.json"} & set(archive.namelist())
        assert b"operation under way" not in answer.content

    def test_nobody_else_gets_it(self, platform: Platform, custodian: httpx.Client, package: bytes) -> None:
        order = {"subject_id": "A-1", **ORDER}
        with platform.client("ingest", "operator") as operator:
            assert operator.post("/v1/subjects/access", json=order).status_code == 403
        with platform.client("ingest", "custodian", force="eastmoor") as eastmoor:
            assert eastmoor.post("/v1/subjects/access", json=order).status_code == 404
        with platform.client("ingest", "custodian", watchlists=("sex_offenders",)) as narrow:
            assert narrow.post("/v1/subjects/access", json=order).status_code == 403
        assert custodian.post("/v1/subjects/access", json={**order, "subject_id": "NOBODY"}).status_code == 404


class TestExport:
    def test_four_eyes_then_a_transaction_that_comes_back(self, platform: Platform, custodian: httpx.Client) -> None:
        form = {"watchlist": "custody", "owner": "northshire", "subject_id": "E-1", "captured_on": "2026-03-01"}
        said = {"lawful_basis": "pace_1984_s64a", "pose": "left_profile", "custody_reference": "C/12"}
        answer = custodian.post("/v1/enrolments", data={**form, **said}, files={"image": ("image", picture(30))})
        wait_settled(custodian, [answer.json()["enrolment_id"]])
        order = {
            "watchlist": "custody",
            "subject_ids": ["E-1"],
            "recipient": "northshire",
            "purpose": "prevention_and_detection",
            "reason": "a new custody system",
        }
        export_id = custodian.post("/v1/exports/type-10", json=order).json()["export_id"]
        content = f"/v1/exports/{export_id}/content"
        assert custodian.get(content).json()["code"] == "not_approved"
        assert custodian.post(f"/v1/exports/{export_id}/approval").json()["code"] == "second_person_needed"
        with platform.client("ingest", "custodian") as second:
            second.headers["Authorization"] = f"Bearer {platform.token('custodian', person_id='second')}"
            assert second.post(f"/v1/exports/{export_id}/approval").json()["state"] == "approved"
        answer = custodian.get(content)
        assert (answer.status_code, answer.headers["x-likeness-records"]) == (200, "1")
        [face] = faces_of(read_transaction(answer.content))
        assert (face.image, face.captured_on, face.pose) == (picture(30), "2026-03-01", "left_profile")
        assert (face.descriptive[10], face.descriptive[11]) == ("E-1", "C/12")
        wrong = custodian.post(
            "/v1/enrolments", data={**form, **said, "pose": "upside_down"}, files={"image": ("image", picture(31))}
        )
        assert wrong.status_code == 422
        abroad = custodian.post("/v1/exports/type-10", json={**order, "recipient": "somebody"})
        assert (abroad.status_code, abroad.json()["code"]) == (403, "recipient_not_permitted")


class TestWithoutTheLog:
    def test_no_package_leaves(self, platform: Platform, custodian: httpx.Client) -> None:
        enrol(custodian, picture(20), "A-9")
        platform.kill("audit")
        try:
            order = {"subject_id": "A-9", "reason": "request", "authority": "SAR 8"}
            answer = custodian.post("/v1/subjects/access", json=order, timeout=30)
            assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")
        finally:
            platform.launch("audit")
            platform.wait_ready()
