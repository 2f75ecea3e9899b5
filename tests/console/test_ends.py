"""How requests end otherwise: a flagged probe, no potential name and the unsolved file, a known-answer probe.

Error rates on the result are those of a real evaluation of the running platform.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from tests.console.drawn import marked_as_generated, portrait
from tests.console.stage import Person, fill_request, judge_all
from tests.console.test_run import comparison_size, record_training
from tests.support.faces import DevelopmentFaces, development_faces
from tests.support.platform import Platform

# The first test waits for the evaluation as well.
pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]

EVALUATED = 4


@pytest.fixture(scope="module")
def evaluation(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`likeness evaluate` of a few people on the running platform, put into review's service for this module."""
    folder = tmp_path_factory.mktemp("evaluation")
    faces = development_faces()
    for role in ("operator", "custodian"):
        (folder / f"{role}.token").write_text(platform.token(role), "ascii")
    command = [
        *(sys.executable, "-m", "services.cli", "evaluate", str(faces.root), "--out", str(folder / "out")),
        *("--manifest", str(_manifest(faces, folder / "manifest.csv")), "--no-leave-one-out", "--fpir", "0"),
        *("--url", platform.url("search"), "--ingest-url", platform.url("ingest")),
        *("--token", str(folder / "operator.token"), "--custodian-token", str(folder / "custodian.token")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    path = folder / "out" / "evaluation.json"
    assert path.is_file(), done.stdout + done.stderr
    platform.restart("review", LIKENESS_REVIEW__EVALUATION_PATH=str(path))
    yield path
    platform.restart("review")


def _manifest(faces: DevelopmentFaces, path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "identity", "split"])
        for still, probe in faces.mated_pairs()[:EVALUATED]:
            writer.writerow([still.path, still.identity, "gallery"])
            writer.writerow([probe.path, probe.identity, "probe"])
    return path


def request_of(officer: Person, picture: Path, case_reference: str) -> str:
    officer.open("/console/requests/new")
    fill_request(officer.page, [picture], case_reference)
    officer.press("Send the request")
    officer.page.wait_for_selector("text=The request was sent")
    return f"/console/requests/{officer.request_id()}"


def search(operator: Person, request: str) -> None:
    operator.open(request)
    operator.page.fill("#reason", "Necessary and proportionate.")
    operator.press("Accept", "Assess")
    operator.page.fill("#remarks", "Clear enough to compare.")
    operator.press("Record the assessment")
    operator.page.fill("#max_candidates", "2")
    operator.page.locator("form[action$=search] button").click()
    operator.page.wait_for_selector("text=Searched.")
    operator.look()


def judge_twice(people: dict[str, Person], request: str) -> None:
    for name, words in (("operator-1", "first"), ("operator-2", "second")):
        person = people[name]
        person.open(request)
        person.press(f"Begin the {words} review")
        judge_all(person, ["no_support"] * comparison_size(person))


def release(operator: Person, request: str) -> None:
    operator.open(request)
    operator.press("Release to the requesting officer")


def train(supervisor: Person) -> None:
    for name in ("operator-1", "operator-2"):
        record_training(supervisor, name)


def test_no_potential_name_is_kept_in_the_unsolved_file_and_closed(
    people: dict[str, Person], probe: Path, evaluation: Path
) -> None:
    officer, first = people["officer-2217"], people["operator-1"]
    train(people["supervisor-1"])
    request = request_of(officer, probe, "NS/2026/004731")
    search(first, request)
    judge_twice(people, request)
    release(first, request)
    officer.open(f"{request}/result")
    text = officer.page.inner_text("main")
    assert "No potential name" in text
    document = orjson.loads(evaluation.read_bytes())
    assert f"Measured on {document['measured_on'][:10]} with {document['enrolled']} enrolled" in text
    assert "95 per cent interval" in text

    first.open(request)
    page = first.page
    page.fill("#authority", "DCI Holt")
    page.locator("#unsolved [name=reason]").fill("A series; the next one is expected.")
    page.fill("#expires_on", (datetime.now(UTC).date() + timedelta(days=90)).isoformat())
    first.press("Keep in the unsolved file")
    page.wait_for_selector("text=In the unsolved file until")
    first.open("/console/unsolved")
    first.look()
    assert "DCI Holt" in page.inner_text("main")
    first.open(request)
    page.locator("form[action$=close] [name=reason]").fill("Solved otherwise.")
    first.press("Close and take out")
    first.open("/console/unsolved")
    assert "DCI Holt" not in page.inner_text("main")
    assert not [problem for person in people.values() for problem in person.problems]


def test_a_known_answer_probe_looks_like_any_other_and_counts_for_those_who_judged_it(
    people: dict[str, Person], probe: Path
) -> None:
    supervisor, first = people["supervisor-1"], people["operator-1"]
    train(supervisor)
    supervisor.open("/console/unit/plant")
    supervisor.look()
    fill_request(supervisor.page, [probe], "NS/2026/004732")
    supervisor.page.check("[name=urgency][value=routine]")
    # Nobody enrolled is said to be right, so two negatives are.
    supervisor.page.fill("#shown_requester", "officer-3310")
    supervisor.press("Send the request")
    supervisor.page.wait_for_selector("text=waits in the queue")
    first.open("/console/queue")
    row = first.page.locator("tr", has_text="officer-3310").first
    assert "known" not in row.inner_text().lower()
    request = str(row.locator("th a").get_attribute("href"))
    search(first, request)
    judge_twice(people, request)
    release(first, request)
    first.page.wait_for_selector("text=Closed")
    supervisor.open("/console/unit")
    supervisor.look()
    for name in ("operator-1", "operator-2"):
        cells = supervisor.page.locator("section:has(#operators) tr", has_text=name).locator("td").all_inner_texts()
        assert "1 of 1" in cells[-1], cells
    assert not [problem for person in people.values() for problem in person.problems]


def test_a_flagged_probe_waits_for_a_supervisor(people: dict[str, Person], tmp_path: Path) -> None:
    officer, first, supervisor = people["officer-2217"], people["operator-1"], people["supervisor-1"]
    (tmp_path / "drawn.jpg").write_bytes(marked_as_generated(portrait(3, is_probe=True)))
    request = request_of(officer, tmp_path / "drawn.jpg", "NS/2026/004733")
    search(first, request)
    first.page.wait_for_selector("text=The probe is flagged")
    first.open(request)
    first.look()
    assert first.page.locator("button:has-text('Begin')").count() == 0
    assert first.page.locator("button:has-text('Allow')").count() == 0
    supervisor.open("/console/queue")
    supervisor.press("Decide on the probe")
    said = supervisor.page.inner_text("#flagged")
    assert "The file says that software generated it." in said
    supervisor.page.locator("#flagged [name=reason]").fill("A photograph of a monitor; the recording was seen.")
    supervisor.press("Allow the probe")
    supervisor.page.wait_for_selector("text=Allowed. The candidates wait")
    first.open(request)
    assert first.page.locator("button:has-text('Begin the first review')").count() == 1
    assert not [problem for person in people.values() for problem in person.problems]
