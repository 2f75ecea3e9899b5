"""One request from its beginning to its end, by the people who do it, in a real Chromium with real faces.

Two operators, a supervisor who decides what they differ in, and a requesting officer; every page is looked at by axe,
and nothing may be said on the browser's console (a breach of the content policy would be).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.console.stage import Person, fill_request, judge_all
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack

CANDIDATES = 3


def record_training(supervisor: Person, person_id: str) -> None:
    today = datetime.now(UTC).date()
    supervisor.open("/console/unit")
    supervisor.look()
    page = supervisor.page
    page.fill("#person_id", person_id)
    page.fill("#course", "Facial comparison, level 2")
    page.fill("#certificate", "FC-2026-17")
    page.fill("#trained_on", (today - timedelta(days=30)).isoformat())
    page.fill("#expires_on", (today + timedelta(days=300)).isoformat())
    supervisor.press("Record the training")


def test_from_request_to_document_and_outcome(people: dict[str, Person], platform: Platform, probe: Path) -> None:
    officer, first, second = people["officer-2217"], people["operator-1"], people["operator-2"]
    supervisor = people["supervisor-1"]
    for name in ("operator-1", "operator-2"):
        record_training(supervisor, name)
    train_supervisor(platform)

    officer.open("/console/queue")
    officer.look()
    officer.open("/console/requests/new")
    officer.press("Send the request")  # empty: everything that is missing is named
    assert officer.page.locator("#problems li").count() >= 8
    fill_request(officer.page, [probe], "NS/2026/004711")
    officer.press("Send the request")
    officer.page.wait_for_selector("text=The request was sent")
    request = f"/console/requests/{officer.request_id()}"

    first.open("/console/queue")
    first.press("Triage")
    first.page.fill("#reason", "Necessary and proportionate.")
    first.press("Accept", "Assess")
    assert first.page.locator("input[name=face]").count() >= 1
    first.press("Record the assessment")
    first.page.fill("input[name='gamma.gamma']", "0.8")
    first.page.locator("form[action$=enhance] [name=reason]").fill("The face lies in shadow.")
    first.press("Make the working copy")
    first.page.fill("#max_candidates", str(CANDIDATES))
    first.page.locator("form[action$=search] button").click()
    first.page.wait_for_selector("text=Searched.")
    first.look()
    assert first.page.locator("section:has(#lists) tbody tr").count() == 2, "original and working copy"
    first.open(request)
    first.press("Begin the first review")
    positions = comparison_size(first)
    see_all_references(first, request, positions)
    judge_all(first, ["possible_match"] + ["no_support"] * (positions - 1))

    second.open(request)
    assert "possible match" not in second.page.inner_text("main").lower(), "the second reviewer is blind"
    second.press("Begin the second review")
    judge_all(second, ["no_support"] * positions)

    supervisor.open("/console/queue")
    supervisor.press("Decide")
    supervisor.page.wait_for_selector("[data-bench][data-ready=yes]")
    for finding in supervisor.page.locator("input[value=possible_match]").all():
        finding.check()
    for reason in supervisor.page.locator("textarea").all():
        reason.fill("The ears and the line of the mouth carry it.")
    supervisor.press("Decide and sign")

    first.open(request)
    first.press("Release to the requesting officer")
    first.page.wait_for_selector("text=Released by")

    officer.open(f"{request}/result")
    officer.look()
    text = officer.page.inner_text("main")
    assert "1 potential name" in text
    assert "FOR INTELLIGENCE PURPOSES ONLY" in text
    assert "Error rates at this quality have not been measured for this model" in text, "no evaluation is configured"
    assert f"likeness disclosure verify {officer.page.inner_text('.proof')} --log EXPORT" in text
    with officer.page.expect_download() as download:
        officer.page.click("text=Result as PDF")
    assert download.value.path().read_bytes().startswith(b"%PDF")
    hand_the_pack_out(supervisor, first, request)
    officer.open(request)
    officer.page.select_option("#kind", "eliminated")
    with officer.leads_on():
        officer.page.locator("form[action$=outcome] button").click()
    officer.look()
    officer.page.wait_for_selector(".notice:has-text('Eliminated from the enquiry')")
    supervisor.open("/console/unit")
    supervisor.look()
    assert "operator-2" in supervisor.page.inner_text("section:has(#operators)")
    assert not [problem for person in people.values() for problem in person.problems]


def see_all_references(examiner: Person, request: str, positions: int) -> None:
    """Of the subject that is enrolled with three pictures: in a grid, and one after the other beside the probe."""
    page = examiner.page
    for position in range(1, positions + 1):
        examiner.open(f"{request}/compare/{position}")
        page.wait_for_selector("[data-bench][data-ready=yes]")
        if page.locator("[data-reference]").count() == 3:
            break
    assert page.locator("[data-reference]").count() == 3, "one subject has three references"
    page.keyboard.press("g")
    page.wait_for_selector("#grid[open]")
    pictures = page.locator("#grid img")
    assert pictures.count() == 3
    for place in range(3):
        pictures.nth(place).scroll_into_view_if_needed()
        loaded = partial(pictures.nth(place).evaluate, "one => one.complete && one.naturalWidth > 0")
        wait_until(loaded, 120, "a reference in the grid")
    assert len({picture.get_attribute("src") for picture in pictures.all()}) == 3
    examiner.looked_at.clear()
    examiner.look()
    page.keyboard.press("Escape")
    page.wait_for_selector("#grid:not([open])", state="attached")
    for key, told in (("]", "Reference 2 of 3"), ("]", "Reference 3 of 3"), ("[", "Reference 2 of 3")):
        page.keyboard.press(key)
        page.wait_for_selector(f"[data-caption-candidate]:has-text('{told}')")
        page.wait_for_selector("[data-bench][data-ready=yes]")


def hand_the_pack_out(supervisor: Person, operator: Person, request: str) -> None:
    """A supervisor names the recipient, an operator hands the pack out, once."""
    supervisor.open(request)
    supervisor.page.fill("#recipient", "Northshire Crown Court")
    supervisor.page.fill("#disclosure_reason", "CPIA, case 12/26")
    with supervisor.leads_on():
        supervisor.page.locator("form[action$=disclosures] button").click()
    supervisor.look()
    approved = supervisor.page.inner_text("#disclosure")
    assert "Approved by you for Northshire Crown Court" in approved
    assert supervisor.page.locator("#disclosure a").count() == 0, "nobody hands out on their own approval"
    operator.open(request)
    operator.look()
    with operator.page.expect_download() as download:
        operator.page.click("text=Full pack for Northshire Crown Court")
    assert download.value.path().read_bytes().startswith(b"%PDF")
    operator.open(request)
    assert "Nothing is approved" in operator.page.inner_text("#disclosure")


def comparison_size(person: Person) -> int:
    return person.page.locator(".strip li").count()


def train_supervisor(platform: Platform) -> None:
    """Nobody records their own training: the supervisor's comes from another one, by the API."""
    token = platform.token("supervisor", person_id="supervisor-2")
    today = datetime.now(UTC).date()
    body = {
        "course": "Facial comparison, level 3",
        "certificate": "FC-2026-3",
        "trained_on": (today - timedelta(days=30)).isoformat(),
        "expires_on": (today + timedelta(days=300)).isoformat(),
    }
    answer = httpx.put(
        platform.url("review", "/v1/supervision/trainings/supervisor-1"),
        json=body,
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
        trust_env=False,
    )
    assert answer.status_code in {200, 201}, answer.text
