"""A hundred searches of real faces, disclosed, replayed after the platform started again; then somebody leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.local.disclosure.compare import Verdict, compare
from services.local.disclosure.verify import verify_bundle
from tests.support.casework import enrol, post_enrolment, post_search, wait_settled
from tests.support.faces import DevelopmentFaces
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

SEARCHES = 100
REASON = {"reason": "replay after an upgrade"}
AFTER_UPGRADE = {"LIKENESS_EMBED__GATE__WORKERS": "1", "LIKENESS_EMBED__INFERENCE__WORKERS": "1"}


@pytest.fixture(scope="module")
def own_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("disclosure")) as running:
        yield running


def _replay(operator: httpx.Client, search_id: str) -> dict[str, Any]:
    answer = operator.post(f"/v1/searches/{search_id}/replay", params=REASON)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.timeout(1200)
def test_a_hundred_old_searches(own_platform: Platform, faces: DevelopmentFaces, tmp_path: Path) -> None:
    pairs = faces.mated_pairs()[:SEARCHES]
    with own_platform.client("ingest", "custodian") as custodian:
        enrolled = {}
        for number, (reference, _) in enumerate(pairs):
            answer = post_enrolment(custodian, reference.path.read_bytes(), f"S-{number}")
            enrolled[answer.json()["enrolment_id"]] = number
        wait_settled(custodian, enrolled)
    with own_platform.client("search", "operator") as operator:
        answers: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        for number in range(2 * SEARCHES):
            probe = pairs[number % len(pairs)][1].path.read_bytes()
            answer = post_search(operator, probe, case_reference=f"NC/2026/{number:04d}", max_candidates=20)
            # A probe with several faces or none is no search to replay.
            (answers if answer.status_code == 200 else others).append(answer.json())
            if len(answers) == SEARCHES:
                break
        assert len(answers) == SEARCHES, {other["code"] for other in others}
        place = f"/v1/searches/{answers[0]['search_id']}"
        with own_platform.client("search", "supervisor") as supervisor:
            wanted = {"recipient": "Northshire Crown Court", "reason": "CPIA"}
            approved = supervisor.post(f"{place}/disclosure-approvals", json=wanted).json()["approval_id"]
        bundle = operator.get(f"{place}/disclosure", params={**REASON, "approval": approved})
        path = tmp_path / "disclosure.json"
        path.write_bytes(bundle.content)
        ledger = own_platform.data.database_url("ingest")
        report = verify_bundle(path, witness=own_platform.data.root / "audit-witness", ledger=ledger)
        assert report.outcomes[11] == "passed"
        assert report.outcomes[12].startswith("passed: Northshire Crown Court")

        own_platform.kill("search")
        own_platform.kill("embed")
        # The same networks with other settings around them: another number of workers.
        own_platform.restart("embed", **AFTER_UPGRADE)
        own_platform.restart("search")
        # What kill -9 left without its last note is settled within a minute of the restart.
        last = f"/v1/searches/{answers[-1]['search_id']}"
        wait_until(lambda: "candidates" in operator.get(last).json(), 180.0, "the last search to be settled")
        changes = []
        for old in answers:
            found = compare(old["candidates"], _replay(operator, old["search_id"]))
            assert found.verdict is Verdict.SAME, found.differences
            changes.append(found.largest_score_change)
        assert max(changes) <= 1e-6

        # Who is withdrawn is named, who is new is left out.
        gone = answers[0]["candidates"][0]["subject_id"]
        enrolment_id = next(one for one, number in enrolled.items() if f"S-{number}" == gone)
        enrol(own_platform, pairs[1][1].path, "NEW")
    with own_platform.client("ingest", "custodian") as custodian:
        withdrawn = custodian.post(f"/v1/enrolments/{enrolment_id}/withdrawal", json={"reason": "NFA"})
        assert withdrawn.status_code in {200, 202}, withdrawn.text
    with own_platform.client("search", "operator") as operator:
        found = compare(answers[0]["candidates"], _replay(operator, answers[0]["search_id"]))
        assert found.verdict is Verdict.EXPLAINED, found.differences
        assert "withdrawn" in found.explanations[0]
        second = compare(answers[1]["candidates"], _replay(operator, answers[1]["search_id"]))
        assert second.verdict is not Verdict.DIFFERS, second.differences
    # The ledger of today still gives what was searchable then, though somebody came and somebody left.
    assert verify_bundle(path, ledger=ledger).outcomes[11] == "passed"
