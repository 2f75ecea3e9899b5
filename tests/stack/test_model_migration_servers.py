"""A gallery in Milvus, its ledger in PostgreSQL, moves to another model; ingest dies while images are looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from services.shared.ids import new_id
from tests.stack.databases import database_on
from tests.stack.real_platform import DATABASES
from tests.support.candidate import CandidateEmbed, candidate_ports, knows_candidate
from tests.support.casework import post_enrolment, post_search, wait_settled
from tests.support.noise import picture
from tests.support.platform import Platform
from tests.support.waiting import wait_until

STUB = {
    "LIKENESS_EMBED__MODEL__KIND": "stub",
    "LIKENESS_EMBED__GATE__WORKERS": "1",
    "LIKENESS_EMBED__INFERENCE__WORKERS": "1",
}
NEW = "stub-recognises-nobody-2"
PEOPLE = {f"M-{number}": picture(f"migrating {number}") for number in range(10)}
WAIT_S = 300.0
MIN_SHADOWS = 3
# A case of its own for each search: many alike in one case would be refused.
_CASES = count(1)


@pytest.fixture
def moving(
    milvus_uri: str, postgres_url: str, tmp_path: Path
) -> Iterator[tuple[Platform, CandidateEmbed, Mapping[str, str]]]:
    """A platform whose ledger, searches, log and gallery are on servers, and an embed with the other model."""
    ports = candidate_ports()
    with ExitStack() as stack:
        databases = {name: stack.enter_context(database_on(postgres_url)) for name in DATABASES}
        settings = {
            **STUB,
            **knows_candidate(ports),
            **{f"LIKENESS_{name.upper()}__DATABASE__URL": url for name, url in databases.items()},
            "LIKENESS_SEARCH__GALLERY__KIND": "milvus",
            "LIKENESS_SEARCH__GALLERY__URI": milvus_uri,
            "LIKENESS_SEARCH__GALLERY__COLLECTION": f"moving_{new_id().replace('-', '')}",
            "LIKENESS_SEARCH__GALLERY__TIMEOUT_S": "30",
            "LIKENESS_INGEST__MIGRATION__MIN_SHADOW_SEARCHES": str(MIN_SHADOWS),
            # So that the kill comes in the middle; the restart after it is told another rate.
            "LIKENESS_INGEST__MIGRATION__IMAGES_PER_S": "1",
            "LIKENESS_INGEST__MIGRATION__BATCH": "1",
            "LIKENESS_SEARCH__SHADOW__AT_MOST_PER_S": "20",
        }
        platform = stack.enter_context(Platform(tmp_path / "data", settings=settings))
        candidate = CandidateEmbed(platform, ports, {**STUB, "LIKENESS_EMBED__MODEL__STUB_NUMBER": "2"})
        yield platform, stack.enter_context(candidate), databases


def person(platform: Platform, role: str, name: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {platform.token(role, person_id=name)}"}
    return httpx.Client(base_url=platform.url("ingest", "/v1"), headers=headers, timeout=300, trust_env=False)


def act(client: httpx.Client, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    answer = client.post(f"/model-migrations{path}", json=body)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def report_of(client: httpx.Client, migration_id: str) -> dict[str, Any]:
    answer = client.get(f"/model-migrations/{migration_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def search(platform: Platform, image: bytes) -> tuple[str, str, float]:
    """Model, first candidate, its score. A server that is too slow at the moment is asked again."""
    answers: list[httpx.Response] = []

    def is_answered() -> bool:
        case_reference = f"NC/2026/{next(_CASES):05d}"
        with platform.client("search", "operator", timeout_s=60) as operator:
            answers.append(post_search(operator, image, case_reference=case_reference))
        return answers[-1].status_code != 503

    wait_until(is_answered, WAIT_S, lambda: f"an answer: {answers[-1].text}", 0.5)
    assert answers[-1].status_code == 200, answers[-1].text
    found = answers[-1].json()
    first = found["candidates"][0]
    return found["model"]["model_id"], first["subject_id"], round(first["score"], 3)


def test_no_reference_is_lost_or_doubled(moving: tuple[Platform, CandidateEmbed, Mapping[str, str]]) -> None:
    platform, _, databases = moving
    with platform.client("ingest", "custodian") as custodian:
        ids = {name: post_enrolment(custodian, image, name).json()["enrolment_id"] for name, image in PEOPLE.items()}
        assert set(wait_settled(custodian, ids.values(), WAIT_S).values()) == {"enrolled"}
    with person(platform, "administrator", "boss") as boss:
        migration_id = act(boss, "", {"reason": "a better model"})["migration_id"]
        _kill_in_the_middle(platform, boss, migration_id)
        _shadow(platform, boss, migration_id)
        for role, name in (("supervisor", "one"), ("administrator", "two")):
            evidence = json.dumps({"format": 1, "model": {"model_id": NEW}, "summaries": []})
            with person(platform, role, name) as approver:
                act(approver, f"/{migration_id}/approvals", {"evidence": evidence, "accepted_losses": 0})
        act(boss, f"/{migration_id}/switch")
        for name, image in PEOPLE.items():
            assert search(platform, image) == (NEW, name, 1.0)
        assert act(boss, f"/{migration_id}/finish")["moved"] == len(PEOPLE)
        _stores_agree(boss, databases["ingest"], ids)
    assert search(platform, PEOPLE["M-3"]) == (NEW, "M-3", 1.0)


def _kill_in_the_middle(platform: Platform, boss: httpx.Client, migration_id: str) -> None:
    def has_begun() -> bool:
        return bool(report_of(boss, migration_id)["progress"]["embedded"])

    wait_until(has_begun, WAIT_S, "the first image under the new model", 0.1)
    platform.kill("ingest")
    platform.restart("ingest", LIKENESS_INGEST__MIGRATION__IMAGES_PER_S="100")


def _shadow(platform: Platform, boss: httpx.Client, migration_id: str) -> None:
    def is_shadowed() -> bool:
        search(platform, PEOPLE["M-0"])
        report = report_of(boss, migration_id)
        made: int = report["shadow"].get("searches", 0)
        return report["migration"]["state"] == "shadowing" and made >= MIN_SHADOWS

    wait_until(is_shadowed, WAIT_S, lambda: f"every image and shadow searches: {report_of(boss, migration_id)}", 0.3)
    progress = report_of(boss, migration_id)["progress"]
    assert (progress["enrolled"], progress["embedded"], progress["lost"]) == (len(PEOPLE), len(PEOPLE), 0)


def _stores_agree(boss: httpx.Client, ledger_url: str, ids: Mapping[str, str]) -> None:
    """Ledger, gallery and images by id and content; in the ledger each enrolment once, under the new model."""
    answer = boss.post("/gallery/reconciliation", json={"is_deep": True})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["is_clean"], found["compared"], found["images"]) == (True, len(PEOPLE), len(PEOPLE)), found
    engine = sa.create_engine(ledger_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT enrolment_id, model_id, state FROM enrolments")).all()
    assert sorted(tuple(row) for row in rows) == sorted((each, NEW, "enrolled") for each in ids.values())
