"""A unit at work: a real platform, people with their tokens, a real Chromium, pages looked at by axe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Dialog, Page

from tests.support.platform import Platform

TIMEOUT_MS = 120_000
# WCAG 2.2 up to AA, and what axe itself holds for good practice.
RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]},
    "rules": {"target-size": {"enabled": True}},  # of 2.2, which axe leaves out unless it is asked for
}
# A window of 1280 pixels at four times its size: nothing may be found only by scrolling sideways (WCAG 1.4.10), but
# what scrolls within itself.
ENLARGED = {"width": 320, "height": 640}
WIDE = """() => document.documentElement.scrollWidth > document.documentElement.clientWidth
  && [...document.querySelectorAll("body *")]
  .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map((one) => one.outerHTML.slice(0, 80)).slice(0, 3)"""


@dataclass
class Person:
    """One person at a browser of their own."""

    name: str
    role: str
    platform: Platform
    context: BrowserContext
    page: Page
    problems: list[str] = field(default_factory=list)
    looked_at: set[str] = field(default_factory=set)

    @classmethod
    def enter(cls, browser: Browser, platform: Platform, role: str, name: str, **options: Any) -> Person:
        """A new browser in which somebody has signed in."""
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        person = cls(name, role, platform, context, page)
        page.on("console", person._note_console)
        page.on("pageerror", lambda error: person.problems.append(f"page error: {error}"))
        page.on("dialog", person._note_dialog)
        # From the first page on Chromium leaves choosers to the test: asked for only when a key is about to be pressed,
        # it may hear of that after it has opened a chooser of its own.
        page.on("filechooser", lambda _chooser: None)
        page.goto(platform.url("review", "/console/sign-in"))
        person.look()
        page.fill("[name=token]", platform.token(role, person_id=name))
        with person.leads_on():
            page.click("button:has-text('Sign in')")
        page.wait_for_selector(".who")
        return person

    def open(self, path: str) -> None:
        self.page.goto(self.platform.url("review", path))

    @contextmanager
    def leads_on(self) -> Iterator[None]:
        """For what leads to another page: over when that one is whole.

        A click is over when the browser has it, and a form is sent after that: a page that is looked at at once may
        still be the one before.
        """
        with self.page.expect_navigation():
            yield
        self.settle()

    def settle(self) -> None:
        """Until the page has its styles and pictures, and its script listens."""
        self.page.wait_for_load_state("load")
        self.page.wait_for_selector("body[data-live=yes]", state="attached")

    def look(self) -> None:
        """Let axe look at the page as it stands; each kind of page once for each person."""
        self.settle()
        title = self.page.title().split(" · ")[0].split(",")[0]
        kind = "".join(letter for letter in title if not letter.isdigit())
        if kind in self.looked_at:
            return
        self.looked_at.add(kind)
        for found in Axe().run(self.page, options=RULES).response["violations"]:
            nodes = [str(node["html"])[:160] for node in found["nodes"][:3]]
            self.problems.append(f"axe on “{title}”: {found['id']}, {found['help']}: {nodes}")
        self._enlarge(title)

    def _enlarge(self, title: str) -> None:
        size = self.page.viewport_size
        assert size is not None
        self.page.set_viewport_size({"width": ENLARGED["width"], "height": ENLARGED["height"]})
        wide = self.page.evaluate(WIDE)
        self.page.set_viewport_size(size)
        if wide is not False:
            self.problems.append(f"“{title}” is too wide for 320 pixels: {wide}")

    def press(self, *words: str) -> None:
        """Click the button or link with these words, which leads to another page, and look at that."""
        for word in words:
            with self.leads_on():
                self.page.locator(f"main button:has-text('{word}'), main a:has-text('{word}')").first.click()
            self.look()

    def request_id(self) -> str:
        return self.page.url.split("/requests/")[1].split("/")[0].split("?")[0]

    def _note_console(self, message: Any) -> None:
        if message.type not in {"error", "warning"}:
            return
        # A refused form is answered with 422 and the page that says why; the browser counts that as an error. So it
        # does a picture's landmarks where embed is too busy for them: the page does without.
        is_late = "status of 503" in message.text and message.location["url"].endswith(".json")
        if "status of 422" not in message.text and not is_late:
            self.problems.append(f"console on {self.page.url}: {message.text}")

    def _note_dialog(self, dialog: Dialog) -> None:
        self.problems.append(f"a dialog: {dialog.message}")
        dialog.dismiss()


def fill_request(page: Page, pictures: Sequence[Path], case_reference: str) -> None:
    """Fill in the form of a new request."""
    page.set_input_files("#images", list(pictures))
    page.select_option("#source", "cctv")
    page.select_option("#nature", "photograph")
    page.fill("#face_chosen_by", "PC 2217, who watched the recording")
    page.fill("#case_reference", case_reference)
    page.fill("#offence", "Burglary of a dwelling")
    page.select_option("#purpose", "prevention_and_detection")
    page.select_option("#case_type", "suspect")
    page.fill("#necessity", "Nobody at the scene knows the person; there is no other line of enquiry.")
    page.check("input[name=watchlists][value=custody]")


def judge_all(person: Person, finding_of: Sequence[str], *, sign: bool = True) -> None:
    """Judge every candidate, with three features each, and sign. `finding_of` is by the candidate's position."""
    page = person.page
    for position, finding in enumerate(finding_of, 1):
        page.goto(page.url.split("/compare")[0] + f"/compare/{position}")
        page.wait_for_selector("[data-bench][data-ready=yes]")
        person.look()
        mark = "different" if finding == "no_support" else "similar"
        for feature in ("nose", "ears", "mouth"):
            page.check(f"input[name='feature.{feature}'][value={mark}]")
        page.check(f"input[name=finding][value={finding}]")
        page.fill("#remarks", f"Compared at full size; {mark} in nose, ears and mouth.")
        with person.leads_on():
            page.click("button:has-text('Record and go on'):enabled")
        page.wait_for_selector("h2:has-text('Your judgement')")
        person.look()
    person.press("read and sign")
    if not sign:
        return
    page.check("[name=declared]")
    person.press("Sign as")
