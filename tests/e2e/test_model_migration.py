"""A gallery moves to another model while searches go on: two embeds side by side, nobody waits, no search fails."""

from __future__ import annotations

import io
import json
import sqlite3
import statistics
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from services.ingest.migrating.cli import model_app
from services.rpc.clients import GalleryClient
from services.rpc.v1 import ingest_pb2
from services.shared.errors import ModelMismatch
from tests.support.candidate import CandidateEmbed, candidate_ports, knows_candidate
from tests.support.casework import post_enrolment, post_search, wait_settled
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

STUB = {
    "LIKENESS_EMBED__MODEL__KIND": "stub",
    "LIKENESS_EMBED__GATE__WORKERS": "1",
    "LIKENESS_EMBED__INFERENCE__WORKERS": "1",
}
CANDIDATE = {**STUB, "LIKENESS_EMBED__MODEL__STUB_NUMBER": "2"}
OLD, NEW = "stub-recognises-nobody", "stub-recognises-nobody-2"
ENROLLED = 40
MIN_SHADOWS = 5
WAIT_S = 300.0


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (160, 160, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@dataclass
class Searching:
    """One person who searches without a pause; every answer has to have the right person in the first place."""

    platform: Platform
    probes: Mapping[str, bytes]
    phase: str = "before"
    took_ms: dict[str, list[float]] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    searches: dict[str, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Searching:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(60)

    def count(self) -> int:
        return sum(len(each) for each in self.took_ms.values())

    def wait_for_more(self, count: int = 10) -> None:
        wanted = self.count() + count
        wait_until(lambda: self.count() >= wanted or self._has_ended(), WAIT_S, f"{count} more searches")
        assert not self.errors, self.errors
        assert self.count() >= wanted, "whoever searches has ended"

    def _has_ended(self) -> bool:
        return bool(self.errors) or self._thread is None or not self._thread.is_alive()

    def _run(self) -> None:
        with self.platform.client("search", "operator", timeout_s=60.0) as client:
            while not self._stop.is_set():
                for subject_id, probe in list(self.probes.items()):
                    if self._stop.is_set():
                        return
                    self._search(client, subject_id, probe)

    def _search(self, client: httpx.Client, subject_id: str, probe: bytes) -> None:
        phase, started_s = self.phase, monotonic()
        try:
            answer = post_search(client, probe)
        except httpx.HTTPError as error:
            self.errors.append(f"{phase}: {type(error).__name__}")
            return
        self.took_ms.setdefault(phase, []).append((monotonic() - started_s) * 1000)
        if answer.status_code != 200:
            self.errors.append(f"{phase}: {answer.status_code} {answer.text[:300]}")
            return
        document = answer.json()
        model_id = document["model"]["model_id"]
        self.models.add(model_id)
        self.searches[model_id] = document["search_id"]
        first = document["candidates"][0]
        if (first["subject_id"], round(first["score"], 4)) != (subject_id, 1.0):
            self.errors.append(f"{phase}: {subject_id} searched, {first} found with {model_id}")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, CandidateEmbed]]:
    ports = candidate_ports()
    settings = {
        **STUB,
        **knows_candidate(ports),
        "LIKENESS_INGEST__MIGRATION__MIN_SHADOW_SEARCHES": str(MIN_SHADOWS),
        "LIKENESS_INGEST__MIGRATION__IMAGES_PER_S": "100",
        "LIKENESS_SEARCH__SHADOW__AT_MOST_PER_S": "20",
    }
    with Platform(tmp_path_factory.mktemp("migration"), settings=settings) as running:
        yield running, CandidateEmbed(running, ports, CANDIDATE)


def person(platform: Platform, role: str, name: str) -> httpx.Client:
    token = platform.token(role, person_id=name)
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=platform.url("ingest"), headers=headers, timeout=60, trust_env=False)


def act(client: httpx.Client, path: str, body: Mapping[str, Any] | None = None, status: int = 200) -> dict[str, Any]:
    answer = client.post(f"/v1/model-migrations{path}", json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def report_of(client: httpx.Client, migration_id: str) -> dict[str, Any]:
    answer = client.get(f"/v1/model-migrations/{migration_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def evidence(model_id: str) -> str:
    return json.dumps({"format": 1, "model": {"model_id": model_id}, "summaries": []})


def enrol(client: httpx.Client, image: bytes, subject_id: str) -> str:
    answer = post_enrolment(client, image, subject_id)
    assert answer.status_code in {200, 202}, answer.text
    enrolment_id: str = answer.json()["enrolment_id"]
    assert wait_settled(client, [enrolment_id])[enrolment_id] == "enrolled"
    return enrolment_id


def first_of(platform: Platform, probe: bytes) -> tuple[str, str, float]:
    """Model, subject and score of the first candidate."""
    with platform.client("search", "operator") as client:
        answer = post_search(client, probe)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    candidate = found["candidates"][0]
    return found["model"]["model_id"], candidate["subject_id"], round(candidate["score"], 4)


def command(platform: Platform, folder: Path, *arguments: str, name: str = "boss") -> str:
    """What `likeness model migration …` prints for an administrator of that name."""
    token = folder / f"{name}.token"
    token.write_text(platform.token("administrator", person_id=name), "utf-8")
    given = ["migration", *arguments, "--token", str(token), "--url", platform.url("ingest")]
    found = CliRunner().invoke(model_app, given, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def _as_administrators_do(running: Platform, folder: Path) -> None:
    """The second time on the command line: look, agree twice, switch."""
    assert "0 lost" in command(running, folder, "status")
    assert OLD in command(running, folder, "report")
    assert NEW in command(running, folder, "report")
    assert "image_missing" not in command(running, folder, "losses")
    document = folder / "evaluation.json"
    document.write_text(evidence(NEW), "utf-8")
    agree = ("approve", "--evidence", str(document), "--accept-losses", "0")
    assert "shadowing" in command(running, folder, *agree, name="one")
    assert "approved" in command(running, folder, *agree, name="two")
    assert f"in service: {NEW}" in command(running, folder, "switch")


def replay(platform: Platform, search_id: str) -> httpx.Response:
    with platform.client("search", "operator") as operator:
        return operator.post(f"/v1/searches/{search_id}/replay", params={"reason": "the defence asked"})


def test_a_migration_under_search_load(
    platform: tuple[Platform, CandidateEmbed], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    running, candidate = platform
    probes = {f"S-{number}": picture(number) for number in range(ENROLLED)}
    with running.client("ingest", "custodian") as custodian:
        ids = {name: post_enrolment(custodian, image, name).json()["enrolment_id"] for name, image in probes.items()}
        assert set(wait_settled(custodian, ids.values()).values()) == {"enrolled"}
        with candidate, person(running, "administrator", "boss") as boss, Searching(running, probes) as load:
            load.wait_for_more()
            migration_id = _embed_and_shadow(running, boss, custodian, load)
            _approve_and_switch(running, boss, custodian, load, migration_id)
            _roll_back(running, boss, load, migration_id)
            _as_administrators_do(running, tmp_path)
            _finish(running, boss, custodian, load, migration_id)
        assert not load.errors, load.errors
        assert load.models == {OLD, NEW}
        _print_latencies(load, capsys)
        _nothing_comes_in_twice(custodian, probes, ids)
        _ledger_is_gallery(running)
    _templates_of_another_model_are_refused(running)


def _embed_and_shadow(running: Platform, boss: httpx.Client, custodian: httpx.Client, load: Searching) -> str:
    load.phase = "during"
    hidden = enrol_and_hide(running, custodian)
    started = act(boss, "", {"reason": "a better model"}, 201)
    assert (started["from_model_id"], started["to_model_id"]) == (OLD, NEW)
    migration_id: str = started["migration_id"]
    act(boss, "", {"reason": "another"}, 409)
    enrol(custodian, picture(1000), "NEW-1")
    _a_loss_is_told_and_mended(boss, migration_id, hidden)

    def shadowed() -> bool:
        report = report_of(boss, migration_id)
        made: int = report["shadow"].get("searches", 0)
        return report["migration"]["state"] == "shadowing" and made >= MIN_SHADOWS

    wait_until(shadowed, WAIT_S, lambda: f"shadow searches: {report_of(boss, migration_id)}")
    report = report_of(boss, migration_id)
    assert report["progress"] == {
        "enrolled": ENROLLED + 2,
        "embedded": ENROLLED + 2,
        "missing": 0,
        "lost": 0,
        "lost_by_reason": {},
        "not_in_gallery": 0,
    }
    assert metric(running, "ingest", 'migration_images_total{outcome="embedded"}') >= ENROLLED
    assert metric(running, "search", 'shadow_searches_total{outcome="compared"}') >= MIN_SHADOWS
    listed = metric(running, "search", 'shadow_candidates_total{lists="longer"}')
    assert listed >= metric(running, "search", 'shadow_candidates_total{lists="both"}') > 0
    direction = report["shadow"]["by_model_in_service"][OLD]
    # The very pictures that are enrolled are searched: either model finds them first.
    assert direction["rank_1_same"]["share"] == 1.0, direction
    assert set(direction["scores"]) == {OLD, NEW}
    assert "S-" not in json.dumps(report["shadow"])
    load.wait_for_more()
    assert load.models == {OLD}
    return migration_id


def metric(running: Platform, service: str, series: str) -> float:
    """A sample of a service's metrics now."""
    text = httpx.get(running.url(service, "/metrics"), timeout=60, trust_env=False).text
    name = f"likeness_{service}_{series} "
    return next(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))


def enrol_and_hide(running: Platform, custodian: httpx.Client) -> Path:
    """Enrol somebody whom nobody searches, and take the image out of the store, as a bad disk would; its new place."""

    def stored() -> set[Path]:
        return {path for path in (running.data.root / "images").rglob("*") if path.is_file()}

    before = stored()
    enrol(custodian, picture(900), "LOST-1")
    [image] = stored() - before
    return image.rename(image.with_suffix(".hidden"))


def _a_loss_is_told_and_mended(boss: httpx.Client, migration_id: str, hidden: Path) -> None:
    def embedded() -> bool:
        state: str = report_of(boss, migration_id)["migration"]["state"]
        return state == "shadowing"

    wait_until(embedded, WAIT_S, "every image to be looked at")
    assert report_of(boss, migration_id)["progress"]["lost_by_reason"] == {"image_missing": 1}
    [loss] = boss.get(f"/v1/model-migrations/{migration_id}/losses").json()["losses"]
    assert (loss["owner"], loss["watchlist_id"], loss["reason"]) == ("northshire", "custody", "image_missing")
    hidden.rename(hidden.with_suffix(""))
    assert act(boss, f"/{migration_id}/losses/retry") == {"retried": 1}

    def mended() -> bool:
        progress = report_of(boss, migration_id)["progress"]
        return not progress["lost"] and not progress["missing"] and not progress["not_in_gallery"]

    wait_until(mended, WAIT_S, "the image to be looked at again")


def _gone_under_both(running: Platform, custodian: httpx.Client) -> None:
    """Withdrawn and erased while two templates stand: neither model's is left."""
    withdrawn, erased = enrol(custodian, picture(2000), "GONE-1"), enrol(custodian, picture(2001), "GONE-2")
    assert templates_beside(running, withdrawn, erased) == 2
    assert custodian.post(f"/v1/enrolments/{withdrawn}/withdrawal", json={"reason": "no basis"}).is_success
    order = {"subject_id": "GONE-2", "reason": "acquitted", "authority": "request 1", "quarantine_days": 0}
    erasure = custodian.post("/v1/erasures", json=order)
    assert erasure.is_success, erasure.text
    path = f"/v1/erasures/{erasure.json()['erasure_id']}"
    wait_until(lambda: bool(custodian.get(path).json()["state"] == "erased"), WAIT_S, "the erasure")
    assert templates_beside(running, withdrawn, erased) == 0
    for seed, subject_id in ((2000, "GONE-1"), (2001, "GONE-2")):
        wait_until(lambda: first_of(running, picture(seed))[1] != subject_id, WAIT_S, "it to leave the gallery")  # noqa: B023


def templates_beside(running: Platform, *enrolment_ids: str) -> int:
    with closing(sqlite3.connect(running.data.root / "ingest" / "ingest.sqlite", timeout=30)) as ledger:
        marks = ",".join("?" * len(enrolment_ids))
        query = f"SELECT count(*) FROM model_templates WHERE template IS NOT NULL AND enrolment_id IN ({marks})"  # noqa: S608
        found: int = ledger.execute(query, enrolment_ids).fetchone()[0]
    return found


def _approve_and_switch(
    running: Platform, boss: httpx.Client, custodian: httpx.Client, load: Searching, migration_id: str
) -> None:
    act(boss, f"/{migration_id}/switch", status=409)
    body = {"evidence": evidence(NEW), "accepted_losses": 0}
    with person(running, "supervisor", "one") as one:
        act(one, f"/{migration_id}/approvals", {**body, "evidence": evidence(OLD)}, 422)
        act(one, f"/{migration_id}/approvals", {**body, "accepted_losses": 3}, 409)
        assert act(one, f"/{migration_id}/approvals", body)["state"] == "shadowing"
        act(one, f"/{migration_id}/approvals", body, 403)
        act(boss, f"/{migration_id}/switch", status=409)
        act(one, f"/{migration_id}/switch", status=403)
    with person(running, "administrator", "two") as two:
        assert act(two, f"/{migration_id}/approvals", body)["state"] == "approved"
    act(boss, f"/{migration_id}/switch")
    # Search has followed before the switch was answered.
    assert first_of(running, picture(1000)) == (NEW, "NEW-1", 1.0)
    enrol(custodian, picture(1001), "NEW-2")
    assert first_of(running, picture(1001)) == (NEW, "NEW-2", 1.0)
    load.wait_for_more()
    _gone_under_both(running, custodian)
    for model_id in (OLD, NEW):
        found = replay(running, load.searches[model_id])
        assert found.status_code == 200, found.text
        assert found.json()["model"]["model_id"] == model_id
        assert round(found.json()["candidates"][0]["score"], 4) == 1.0


def _roll_back(running: Platform, boss: httpx.Client, load: Searching, migration_id: str) -> None:
    rolled = act(boss, f"/{migration_id}/rollback", {"reason": "trying it"})
    assert (rolled["state"], rolled["approvals"]) == ("shadowing", [])
    # What was enrolled while the other model was in service is there as well, and what went is not.
    for seed, subject_id in ((2000, "GONE-1"), (2001, "GONE-2")):
        assert first_of(running, picture(seed))[1] != subject_id
    assert first_of(running, picture(1001)) == (OLD, "NEW-2", 1.0)
    act(boss, f"/{migration_id}/switch", status=409)
    load.wait_for_more()


def _finish(running: Platform, boss: httpx.Client, custodian: httpx.Client, load: Searching, migration_id: str) -> None:
    assert first_of(running, picture(1001)) == (NEW, "NEW-2", 1.0)
    finished = act(boss, f"/{migration_id}/finish")
    assert finished["moved"] == ENROLLED + 3
    act(boss, f"/{migration_id}/rollback", {"reason": "too late"}, 409)
    load.phase = "after"
    load.wait_for_more()
    enrol(custodian, picture(1002), "NEW-3")
    assert first_of(running, picture(1002)) == (NEW, "NEW-3", 1.0)
    # The former model's embed is still there, so a search of then can be run again.
    assert replay(running, load.searches[OLD]).json()["model"]["model_id"] == OLD


def _nothing_comes_in_twice(custodian: httpx.Client, probes: Mapping[str, bytes], ids: Mapping[str, str]) -> None:
    answer = post_enrolment(custodian, probes["S-3"], "S-3")
    assert (answer.status_code, answer.json()["enrolment_id"]) == (200, ids["S-3"])


def _ledger_is_gallery(running: Platform) -> None:
    with running.client("ingest", "administrator") as administrator:
        answer = administrator.post("/v1/gallery/reconciliation", json={"is_deep": True})
        assert answer.status_code == 200, answer.text
        assert answer.json()["is_clean"], answer.text


def _templates_of_another_model_are_refused(running: Platform) -> None:
    unit = np.zeros(128, "<f4")
    unit[0] = 1.0
    batch = ingest_pb2.ReferenceBatch(
        watchlist_id="custody",
        reference_ids=["r"],
        subject_ids=["s"],
        owners=["northshire"],
        image_sha256s=[""],
        vectors=unit.tobytes(),
        dimension=128,
        model_id="another-model",
        versions=[10**9],
        expires_at=[0],
    )
    with running.channel("search", "ingest") as channel, pytest.raises(ModelMismatch):
        GalleryClient(channel).put(batch)


def _print_latencies(load: Searching, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        for phase, took in load.took_ms.items():
            tail = statistics.quantiles(took, n=20)[-1]
            print(f"\n{phase}: {len(took)} searches, p50 {statistics.median(took):.0f} ms, p95 {tail:.0f} ms", end="")
