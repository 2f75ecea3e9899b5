"""The pages of custodians, auditors and supervisors that a request does not lead through."""

from __future__ import annotations

import io
from functools import partial
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator

from tests.console.stage import Person
from tests.support.casework import wait_settled
from tests.support.faces import development_faces
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack

PAGES = {
    "custodian": ("/console/watchlists", "/console/reviews", "/console/flags", "/console/refusals", "/console/guide"),
    "auditor": (
        "/console/log",
        "/console/log/0",
        "/console/log/sample",
        "/console/log/sample?seed=6-2-5-1-4-4-3-6",
        "/console/statistics",
        "/console/transparency",
    ),
    "supervisor": ("/console/unit/plant", "/console/unsolved", "/console/statistics"),
}
# Names that are no part of any identifier on the page: "D-1" was now and then.
ONE, OTHER = "TWICE-ONE", "TWICE-OTHER"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("role", PAGES)
def test_axe_finds_nothing_and_the_browser_says_nothing(
    role: str, scheme: str, browser: Browser, platform: Platform
) -> None:
    person = Person.enter(browser, platform, role, f"{role}-1", color_scheme=scheme)
    for path in PAGES[role]:
        person.open(path)
        assert person.page.locator("h1").count() == 1, path
        person.looked_at.clear()
        person.look()
    person.context.close()
    assert not person.problems


def test_an_auditor_narrows_the_log_and_reads_a_proof(browser: Browser, platform: Platform) -> None:
    person = Person.enter(browser, platform, "auditor", "auditor-2")
    person.open("/console/log?activity=enrolment")
    shown = person.page.locator("tbody tr")
    assert shown.count() >= 1
    assert all("Enrolment" in text for text in shown.locator("td:nth-child(4)").all_inner_texts())
    with person.leads_on():
        shown.first.locator("a").click()
    person.page.wait_for_selector("h2:has-text('Proof')")
    assert "Root hash" in person.page.inner_text("main")
    person.context.close()


def _enrol_twice(custodian: httpx.Client) -> list[str]:
    """One picture under two subjects, taken so long ago that both are to be reviewed; a watchlist that no test here
    searches. The enrolments."""
    face = development_faces().mated_pairs()[-1][0].path
    made = []
    for subject_id, form in ((ONE, "PNG"), (OTHER, "BMP")):
        content = io.BytesIO()
        with Image.open(face) as opened:
            opened.convert("RGB").save(content, form)
        fields = {
            "watchlist": "sex_offenders",
            "owner": "northshire",
            "subject_id": subject_id,
            "lawful_basis": "soa_2003_part2",
            "captured_on": "2018-03-01",
        }
        answer = custodian.post("/v1/enrolments", data=fields, files={"image": ("image", content.getvalue())})
        made.append(str(answer.json()["enrolment_id"]))
    assert set(wait_settled(custodian, made).values()) == {"enrolled"}
    return made


def _decided(person: Person, activity: str) -> dict[str, Any]:
    """What the newest entry of an activity says, read by an auditor on the page of the log."""
    person.open(f"/console/log?activity={activity}")
    with person.leads_on():
        person.page.locator("tbody th a").first.click()
    person.page.wait_for_selector("h1:has-text('Entry')")
    terms = person.page.locator("section:has-text('What it says') dt").all_inner_texts()
    return dict(zip(terms, person.page.locator("section:has-text('What it says') dd").all_inner_texts(), strict=True))


def _shows_both(person: Person, card: Locator) -> None:
    """The pictures that the flag is about, side by side."""
    pictures = card.locator("img")
    assert pictures.count() == 2
    for place in range(2):
        pictures.nth(place).scroll_into_view_if_needed()
        shown = pictures.nth(place)
        wait_until(partial(shown.evaluate, "one => one.complete && one.naturalWidth > 0"), 120, "a flagged picture")
    person.looked_at.clear()
    person.look()


def test_a_custodian_decides_on_a_flag_and_a_due_review_and_both_are_in_the_ledger_and_the_log(
    browser: Browser, platform: Platform
) -> None:
    person = Person.enter(browser, platform, "custodian", "custodian-3")
    auditor = Person.enter(browser, platform, "auditor", "auditor-3")
    page = person.page
    with platform.client("ingest", "custodian") as custodian:
        enrolments = _enrol_twice(custodian)

        def flags(state: str) -> list[dict[str, Any]]:
            found = custodian.get("/v1/flags", params={"state": state}).json()["flags"]
            return [one for one in found if set(one["subject_ids"]) == {ONE, OTHER}]

        wait_until(lambda: bool(flags("open")), 120, "the flag about one person as two subjects")
        person.open("/console/flags")
        card = page.locator("article", has_text=ONE)
        _shows_both(person, card)
        card.locator("[name=reason]").fill("Registered twice; merged in the custody system.")
        with person.leads_on():
            card.locator("button:has-text('The records were put right')").click()
        page.wait_for_selector("text=Recorded that the records were put right.")
        assert page.locator("article", has_text=ONE).count() == 0
        [flag] = flags("acted")
        assert flag["decided_by"] == "custodian-3"

        person.open("/console/reviews")
        row = page.locator("tr", has_text=OTHER)
        row.locator("[name=reason]").fill("Still registered.")
        with person.leads_on():
            row.locator("button[value=retain]").click()
        page.wait_for_selector("text=Kept until its next review.")
        assert page.locator("tr", has_text=OTHER).count() == 0
        due = custodian.get("/v1/reviews", params={"limit": 100}).json()["reviews"]
        waiting = {one["enrolment_id"] for one in due}
        assert (enrolments[0] in waiting, enrolments[1] in waiting) == (True, False), "one of the two was decided"
    for activity, said in (("flag_decision", "acted"), ("retention_review", "Still registered.")):
        told = _decided(auditor, activity)
        assert told["Who"].startswith("custodian-3, Northshire"), told
        assert said in told.values(), told
    for one in (person, auditor):
        one.context.close()
    assert not person.problems + auditor.problems
