"""The search API as a force system uses it: a real search process, real gRPC, fake contents."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest

from services.rpc.v1 import audit_pb2
from services.search.api_models import SearchAnswer
from services.shared.adapters.folder_image_store import FolderImageStore
from tests.integration.search.peers import Peers
from tests.integration.search.process import FORM, SearchProcess, SearchThread, problem
from tests.integration.search.test_faults import is_closed
from tests.support.waiting import wait_until


def test_a_probe_is_searched(search: SearchThread, peers: Peers) -> None:
    operator = search.operator()
    image = b"face:ann"
    answer = operator.answer(image)
    SearchAnswer.model_validate(answer)

    candidates = answer["candidates"]
    assert [(c["rank"], c["subject_id"], c["reference_id"], c["watchlist"], c["owner"]) for c in candidates[:2]] == [
        (1, "ANN", "r-ann-1", "custody", "northshire"),
        (2, "CAT", "r-cat-1", "custody", "northshire"),
    ]
    assert [c["score"] for c in candidates[:2]] == pytest.approx([1.0, 0.5], abs=1e-5)
    assert [c["rank"] for c in candidates] == list(range(1, 21))
    scores = [c["score"] for c in candidates]
    assert scores == sorted(scores, reverse=True)
    subjects = [(c["owner"], c["subject_id"]) for c in candidates]
    assert len(set(subjects)) == 20
    assert ("northshire", "OLD") not in subjects
    assert answer["probe"] == {
        "sha256": hashlib.sha256(image).hexdigest(),
        "width": 640,
        "height": 480,
        "format": "JPEG",
        "frames": 1,
        "frame_searched": "only",
        "grade": None,
        "flags": [],
        "needs_supervisor": False,
        "face_chosen_by": "op-7",
    }
    assert answer["face"] == 0
    assert answer["searchable"] == 105
    assert answer["threshold"]["value"] is None
    assert "no threshold" in answer["threshold"]["why"]
    assert any("FOR INTELLIGENCE PURPOSES ONLY" in said for said in answer["statements"])
    assert "%" not in str(answer)
    assert set(answer["timings_ms"]) == {"gate", "detect", "template", "gallery", "audit", "total"}
    assert answer["timings_ms"]["total"] >= answer["timings_ms"]["gallery"] > 0

    intent, done = peers.audit.of(answer["search_id"])
    assert (intent.phase, done.phase) == (audit_pb2.INTENT, audit_pb2.DONE)
    assert intent.actor.person_id == "op-7"
    assert (intent.purpose, intent.case_reference) == (FORM["purpose"], FORM["case_reference"])
    assert f"probe:{answer['probe']['sha256']}" in intent.objects
    assert "watchlist:custody" in intent.objects
    assert list(done.recipients) == ["person:op-7"]
    assert {f"reference:{c['reference_id']}" for c in candidates} < set(done.objects)

    assert FolderImageStore(search.root / "probes").get(answer["probe"]["sha256"]) == image
    assert search.metric('likeness_search_requests_total{outcome="done"}') == 1
    assert search.metric('likeness_search_stage_seconds_count{stage="total"}') == 1


def test_the_unsearchable_are_counted_in_the_background(shared_search: SearchProcess) -> None:
    operator = shared_search.operator()
    wait_until(lambda: operator.answer(b"face:ann")["unsearchable"] == 9, 120, "the ledger's counts")
    answer = operator.answer(b"face:ann", watchlists=["custody", "op_liberal"])
    assert answer["unsearchable"] == 12
    assert any("12 were not" in said for said in answer["statements"])


def test_a_search_is_seen_again_byte_for_byte_by_its_force_alone(search: SearchThread, peers: Peers) -> None:
    made = search.operator().search(b"face:ann")
    search_id = made.json()["search_id"]
    for _ in range(2):
        assert search.operator(sub="op-8").see(search_id).content == made.content
        wait_until(lambda: is_closed(search, search_id), 120, "the search to be closed in the store")
    views = [entry for entry in peers.audit.entries if entry.activity == "search_view"]
    assert [(view.actor.person_id, list(view.objects)) for view in views] == [("op-8", [f"search:{search_id}"])] * 2

    for stranger in (
        search.operator(force="eastmoor"),
        search.operator(watchlists=["op_liberal"]),
        search.operator(watchlists=[]),
    ):
        problem(stranger.see(search_id), 404, "not_found")
    absent = problem(search.operator().see("01a20576-dceb-7497-9876-c60afe8b4513"), 404, "not_found")
    hidden = problem(search.operator(force="eastmoor").see(search_id), 404, "not_found")
    assert absent == hidden
    for malformed in ("x", "..-etc-passwd", "1" * 300):
        problem(search.operator().see(malformed), 404, "not_found")
    problem(search.operator(roles=["auditor"]).see(search_id), 403, "forbidden")
    refused = [entry for entry in peers.audit.entries if entry.phase == audit_pb2.REFUSED]
    assert len(refused) == 9
    assert all(entry.activity == "search_view" for entry in refused)


def test_what_is_not_there_and_what_is_not_yours_take_the_same_time(shared_search: SearchProcess) -> None:
    search_id = shared_search.operator().answer(b"face:ann")["search_id"]
    stranger = shared_search.operator(force="eastmoor")

    absent = "01a20576-dceb-7497-9876-c60afe8b4513"
    times: dict[str, list[float]] = {search_id: [], absent: []}

    def difference_ms() -> float:
        return abs(median(times[search_id]) - median(times[absent]))

    for _ in range(10):  # a difference that is there stays, one that a busy machine made goes as more are asked for
        for _ in range(40):
            for wanted, taken in times.items():  # in turns, so that a busy machine slows both alike
                started = time.perf_counter()
                assert stranger.see(wanted).status_code == 404
                taken.append((time.perf_counter() - started) * 1000)
        if difference_ms() < 10:
            return
    raise AssertionError(f"they differ by {difference_ms():.1f} ms")


def test_what_is_declared_to_be_no_plain_photograph_needs_a_supervisor_or_is_not_searched(
    shared_search: SearchProcess, shared_peers: Peers
) -> None:
    operator = shared_search.operator()
    plain = operator.answer(b"face:ann", nature="photograph")
    assert (plain["request"]["nature"], plain["probe"]["needs_supervisor"]) == ("photograph", False)
    drawn = operator.answer(b"face:ann", nature="retouched")
    assert [flag["code"] for flag in drawn["probe"]["flags"]] == ["declared_retouched"]
    assert drawn["probe"]["needs_supervisor"]
    assert any("declared_retouched" in said for said in drawn["statements"])
    intent, done = shared_peers.audit.of(drawn["search_id"])
    assert (intent.details["nature"], done.details["flags"]) == ("retouched", "declared_retouched")
    unstated = operator.answer(b"face:ann")
    assert unstated["request"]["nature"] == "unstated"
    assert any("was not stated" in said for said in unstated["statements"])

    refused = problem(operator.search(b"face:ann", nature="composite"), 403, "forbidden")
    assert refused["reasons"] == ["nature_not_searchable"]
    last = [entry for entry in shared_peers.audit.entries if entry.phase == audit_pb2.REFUSED][-1]
    assert (last.details["reasons"], last.details["nature"]) == ("nature_not_searchable", "composite")


def test_only_signatories_in_force_are_searched(shared_search: SearchProcess) -> None:
    answer = shared_search.operator().answer(b"face:ann", watchlists=["op_liberal"])
    assert [c["subject_id"] for c in answer["candidates"]] == ["TRAVELLER"]  # westhaven has signed nothing
    assert answer["searchable"] == 1
    assert answer["searched"] == [
        {
            "watchlist": "op_liberal",
            "owners": ["eastmoor", "northshire"],
            "agreements": ["OPL-2026-NORTHSHIRE", "OPL-2026-EASTMOOR"],
        }
    ]
    problem(shared_search.operator(force="westhaven").search(b"face:ann", watchlists=["op_liberal"]), 403, "forbidden")


def test_several_watchlists_are_one_list(shared_search: SearchProcess) -> None:
    answer = shared_search.operator().answer(b"face:ann", watchlists=["sex_offenders", "op_liberal", "custody"])
    assert [(c["subject_id"], c["watchlist"]) for c in answer["candidates"][:3]] == [
        ("ANN", "custody"),
        ("TRAVELLER", "op_liberal"),
        ("CAT", "custody"),
    ]
    assert answer["searchable"] == 107


def test_identification_mode_lists_only_what_meets_the_threshold(shared_search: SearchProcess) -> None:
    answer = shared_search.operator().answer(b"face:ann", mode="identification")
    assert [c["subject_id"] for c in answer["candidates"]] == ["ANN", "CAT"]
    assert answer["threshold"]["value"] == 0.363
    assert answer["threshold"]["by_watchlist"][0]["is_evidenced"] is False
    assert "unevidenced default" in answer["threshold"]["why"]
    assert any("unevidenced default" in said for said in answer["statements"])
    nobody = shared_search.operator().answer(b"face:zoe", mode="identification")
    assert nobody["candidates"] == []


def test_a_threshold_with_evidence_goes_before_the_default(peers: Peers, tmp_path: Path) -> None:
    path = tmp_path / "points.json"
    path.write_text(
        '{"format": 1, "operating_points": [{"model_id": "yunet+sface-test+p1", "watchlist": "custody", '
        '"threshold": 0.6, "version": "custody-2026-11", "evidence": {"reference": "evaluation-7", "fpir": 0.01}}]}'
    )
    with SearchThread(tmp_path, peers, OPERATING_POINTS_PATH=str(path)) as search:
        answer = search.operator().answer(b"face:ann", mode="identification", watchlists=["custody", "op_liberal"])
        assert [c["subject_id"] for c in answer["candidates"]] == ["ANN", "TRAVELLER"]
        threshold = answer["threshold"]
        assert threshold["value"] is None
        assert [(point["watchlist"], point["value"], point["version"]) for point in threshold["by_watchlist"]] == [
            ("custody", 0.6, "custody-2026-11"),
            ("op_liberal", 0.363, "opencv-sface-published"),
        ]


def test_max_candidates(shared_search: SearchProcess) -> None:
    assert len(shared_search.operator().answer(b"face:ann", max_candidates=2)["candidates"]) == 2
    assert len(shared_search.operator().answer(b"face:ann", max_candidates=50)["candidates"]) == 50


def test_several_faces_have_to_be_chosen_from(shared_search: SearchProcess, shared_peers: Peers) -> None:
    operator = shared_search.operator()
    refused = problem(operator.search(b"faces:cat,ann,bob"), 409, "face_choice_needed")
    assert [face["index"] for face in refused["faces"]] == [0, 1, 2]
    assert refused["faces"][1]["box"]["x"] == 300
    assert "template" not in str(refused["faces"])
    answer = operator.answer(b"faces:cat,ann,bob", face=2)
    assert answer["face"] == 2
    assert len(answer["faces"]) == 3
    assert answer["candidates"][0]["subject_id"] == "BOB"
    wrong = problem(operator.search(b"faces:cat,ann,bob", face=3), 422, "invalid_request")
    assert "0 to 2" in wrong["advice"]
    refusals = shared_peers.audit.searches()[-3::2]
    assert [shared_peers.audit.phases(search_id) for search_id in refusals] == [["INTENT", "REFUSED"]] * 2


@pytest.mark.parametrize(
    ("image", "code"), [(b"noface", "no_face_found"), (b"broken", "image_undecodable"), (b"", "image_empty")]
)
def test_images_that_cannot_be_searched(
    shared_search: SearchProcess, shared_peers: Peers, image: bytes, code: str
) -> None:
    problem(shared_search.operator().search(image), 422, code)
    search_id = shared_peers.audit.searches()[-1]
    assert shared_peers.audit.phases(search_id)[-1] == "REFUSED"
    assert shared_peers.audit.of(search_id)[-1].details["reason"] == code
    assert shared_search.metric(f'likeness_search_refusals_total{{code="{code}"}}') == 1


@pytest.mark.parametrize(
    ("changes", "without", "field"),
    [
        ({}, ["case_reference"], "case_reference"),
        ({"case_reference": "  \t "}, [], "case_reference"),
        ({"case_reference": "x" * 201}, [], "case_reference"),
        ({"case_reference": "NS\n1"}, [], "case_reference"),
        ({"case_reference": ["a", "b"]}, [], "case_reference"),
        ({}, ["purpose"], "purpose"),
        ({"purpose": "curiosity"}, [], "purpose"),
        ({}, ["offence"], "offence"),
        ({}, ["source"], "source"),
        ({"source": "live_camera"}, [], "source"),
        ({}, ["watchlists"], "watchlists"),
        ({"watchlists": ["", " "]}, [], "watchlists"),
        ({"watchlists": ["custody", "all"]}, [], "watchlists"),
        ({"watchlists": ["custody,op_liberal"]}, [], "watchlists"),
        ({"watchlists": ["custody' or ''=='"]}, [], "watchlists"),
        ({"mode": "certain"}, [], "mode"),
        ({"max_candidates": "1"}, [], "max_candidates"),
        ({"max_candidates": "51"}, [], "max_candidates"),
        ({"max_candidates": "10000"}, [], "max_candidates"),
        ({"max_candidates": "+5"}, [], "max_candidates"),
        ({"face": "-1"}, [], "face"),
        ({"force": "eastmoor"}, [], "force"),
        ({"roles": "operator"}, [], "roles"),
    ],
    ids=str,
)
def test_a_request_that_is_not_complete_names_the_field(
    shared_search: SearchProcess, shared_peers: Peers, changes: Mapping[str, Any], without: list[str], field: str
) -> None:
    calls = shared_peers.embed.calls
    refused = problem(shared_search.operator().search(b"face:ann", without=without, **changes), 422, "invalid_request")
    assert [entry["field"] for entry in refused["fields"]] == [field]
    entry = shared_peers.audit.entries[-1]
    assert (entry.phase, entry.actor.person_id, entry.details["fields"]) == (audit_pb2.REFUSED, "op-7", field)
    assert shared_peers.embed.calls == calls


def test_everything_that_is_wrong_is_named_at_once(shared_search: SearchProcess) -> None:
    refused = problem(
        shared_search.operator().search(b"face:ann", without=["case_reference", "purpose"], source="x"),
        422,
        "invalid_request",
    )
    assert [entry["field"] for entry in refused["fields"]] == ["case_reference", "purpose", "source"]


def test_huge_texts_are_refused_before_the_image_is_looked_at(
    shared_search: SearchProcess, shared_peers: Peers
) -> None:
    calls = shared_peers.embed.calls
    for field in ("case_reference", "purpose", "offence", "watchlists"):
        form: dict[str, Any] = {field: "x" * 100_000}
        problem(shared_search.operator().search(b"face:ann", **form), 422, "invalid_request")
    assert shared_peers.embed.calls == calls


def test_no_image_two_images_and_no_form(shared_search: SearchProcess) -> None:
    operator = shared_search.operator()
    problem(operator.search(None), 422, "invalid_request")
    image = ("probe.jpg", b"face:ann")
    twice = operator.http.post("/v1/searches", data=FORM, files=[("image", image), ("image", image)])
    problem(twice, 422, "invalid_request")
    problem(operator.http.post("/v1/searches", json=dict(FORM)), 422, "invalid_request")
    problem(operator.http.post("/v1/searches"), 422, "invalid_request")


def test_an_image_over_the_limit_is_refused_while_it_arrives(shared_search: SearchProcess, shared_peers: Peers) -> None:
    calls = shared_peers.embed.calls
    problem(shared_search.operator().search(bytes(33 * 1024 * 1024)), 413, "payload_too_large")
    problem(shared_search.operator().search(bytes(40 * 1024 * 1024)), 413, "payload_too_large")
    assert shared_peers.embed.calls == calls
    assert shared_peers.audit.entries[-1].details["reason"] == "payload_too_large"


@pytest.mark.parametrize(
    ("claims", "fields", "reason"),
    [
        ({"roles": ["administrator"]}, {}, "role_missing"),
        ({"roles": ["auditor"]}, {}, "role_missing"),
        ({"roles": ["custodian", "supervisor"]}, {}, "role_missing"),
        ({"roles": []}, {}, "role_missing"),
        ({"watchlists": ["custody"]}, {"watchlists": ["sex_offenders"]}, "watchlist_not_permitted"),
        ({"watchlists": ["custody"]}, {"watchlists": ["custody", "sex_offenders"]}, "watchlist_not_permitted"),
        ({}, {"watchlists": ["op_liberal"], "purpose": "missing_person"}, "purpose_not_permitted"),
        ({"force": "westhaven"}, {"watchlists": ["op_liberal"]}, "no_agreement_in_force"),
    ],
    ids=str,
)
def test_what_is_not_permitted_is_refused_and_recorded(
    shared_search: SearchProcess,
    shared_peers: Peers,
    claims: dict[str, Any],
    fields: dict[str, Any],
    reason: str,
) -> None:
    calls = shared_peers.embed.calls
    refused = problem(shared_search.operator(**claims).search(b"face:ann", **fields), 403, "forbidden")
    assert refused["reasons"] == [reason]
    entry = shared_peers.audit.entries[-1]
    assert (entry.phase, entry.details["reasons"]) == (audit_pb2.REFUSED, reason)
    assert entry.case_reference == FORM["case_reference"]
    assert shared_peers.embed.calls == calls


def test_without_a_good_token_nothing_is_read_or_told(shared_search: SearchProcess) -> None:
    for headers in ({}, {"Authorization": "Bearer x.y.z"}, {"Authorization": "Basic b3A6b3A="}):
        posted = httpx.post(f"{shared_search.url}/v1/searches", headers=headers, content=b"x" * 100, timeout=60)
        seen = httpx.get(f"{shared_search.url}/v1/searches/x", headers=headers, timeout=60)
        assert problem(posted, 401, "unauthenticated") == problem(seen, 401, "unauthenticated")
        assert posted.headers["www-authenticate"] == "Bearer"


def test_identity_comes_from_the_token_alone(shared_search: SearchProcess, shared_peers: Peers) -> None:
    operator = shared_search.operator()
    answer = operator.search(
        b"face:ann", headers={"X-Forwarded-User": "chief", "X-Force": "eastmoor", "X-Roles": "administrator"}
    )
    assert answer.status_code == 200
    actor = shared_peers.audit.entries[-1].actor
    assert (actor.person_id, actor.force, list(actor.roles)) == ("op-7", "northshire", ["operator"])


def test_the_api_documents_itself(shared_search: SearchProcess) -> None:
    document = httpx.get(f"{shared_search.url}/openapi.json", timeout=60).json()
    post = document["paths"]["/v1/searches"]["post"]
    assert {"200", "401", "403", "409", "413", "422", "500", "503"} <= post["responses"].keys()
    assert "face_choice_needed" in post["responses"]["409"]["content"]["application/problem+json"]["examples"]
    form = post["requestBody"]["content"]["multipart/form-data"]
    assert set(FORM) <= set(form["schema"]["properties"]) >= {"image", "mode", "max_candidates", "face"}
    assert set(FORM) <= set(form["example"])
    assert "ValidationError" not in str(post)
    SearchAnswer.model_validate(post["responses"]["200"]["content"]["application/json"]["example"])
    assert post["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/SearchAnswer")
    page = httpx.get(f"{shared_search.url}/docs", timeout=60)
    assert page.status_code == 200
    assert "case_reference" in page.text
    assert "audit_unavailable" in page.text
