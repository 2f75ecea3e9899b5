"""The pages of custodians, auditors and supervisors that a request does not lead through."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.console.stage import Person
from tests.support.platform import Platform

pytestmark = pytest.mark.stack

PAGES = {
    "custodian": ("/console/watchlists", "/console/reviews", "/console/flags", "/console/refusals", "/console/guide"),
    "auditor": (
        "/console/log",
        "/console/log/0",
        "/console/log/sample",
        "/console/log/sample?seed=6-2-5-1-4-4-3-6",
        "/console/statistics",
    ),
    "supervisor": ("/console/unit/plant", "/console/unsolved", "/console/statistics"),
}


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
    shown.first.locator("a").click()
    person.page.wait_for_selector("h2:has-text('Proof')")
    assert "Root hash" in person.page.inner_text("main")
    person.context.close()
