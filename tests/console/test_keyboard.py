"""The same request without a mouse: Tab, Enter, Space, arrows, typing, and the keys that each page lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.console.stage import Person
from tests.console.test_run import record_training

pytestmark = pytest.mark.stack

MOST_TABS = 150
MOST_OPTIONS = 40


class Hands:
    """A person who has a keyboard only."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.page: Page = person.page

    def go(self, path: str) -> None:
        """An address can be typed as well."""
        self.person.open(path)
        self.person.look()

    def to(self, selector: str) -> None:
        """Tab until something has the focus, and see that the focus shows."""
        for _ in range(MOST_TABS):
            if self.page.evaluate("s => document.activeElement.matches(s)", selector):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"{selector} is not reached by Tab on {self.page.url}")

    def write(self, selector: str, text: str) -> None:
        self.to(selector)
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)

    def choose(self, selector: str, words: str) -> None:
        """The option that begins with these words, by the arrow. (Letters find it too, where less than a second lies
        between two of them: a machine that is busy begins the search anew.)"""
        self.to(selector)
        for _ in range(MOST_OPTIONS):
            shown = self.page.evaluate("s => document.querySelector(s).selectedOptions[0].label", selector)
            if str(shown).startswith(words):
                return
            self.page.keyboard.press("ArrowDown")
        raise AssertionError(f"{words} is not found in {selector}")

    def press(self, selector: str) -> None:
        """Enter on a link or a button, and what comes then."""
        self.to(selector)
        with self.person.leads_on():
            self.page.keyboard.press("Enter")
        self.person.look()

    def key(self, key: str) -> None:
        """A key of the page that leads on."""
        with self.person.leads_on():
            self.page.keyboard.press(key)
        self.person.look()


def _request(hands: Hands, picture: Path) -> str:
    hands.go("/console/queue")
    hands.key("n")
    hands.to("#images")
    hands.page.bring_to_front()  # four people's windows are open, and a chooser opens for the one in front
    with hands.page.expect_file_chooser() as chooser:
        hands.page.keyboard.press("Enter")
    chooser.value.set_files(picture)
    hands.page.wait_for_selector("[data-upload-status]:has-text('1 picture chosen.')")
    hands.choose("#source", "CCTV")
    hands.choose("#nature", "Photo")
    hands.write("#face_chosen_by", "PC 2217, who watched the recording")
    hands.write("#case_reference", "NS/2026/004712")
    hands.write("#offence", "Theft of a motor vehicle")
    hands.choose("#purpose", "Prevention")
    hands.choose("#case_type", "Suspect")
    hands.write("#necessity", "Nobody at the scene knows the person.")
    hands.to("[name=watchlists][value=custody]")
    hands.page.keyboard.press("Space")
    hands.press("main form:not([action*=theme]) button.primary")
    hands.page.wait_for_selector("text=The request was sent")
    return hands.person.request_id()


def _prepare(hands: Hands, request: str) -> None:
    hands.go(request)
    hands.write("#reason", "Necessary and proportionate.")
    hands.press("button[value=accept]")
    hands.key("n")
    hands.press("form[action$=assess] button")
    hands.write("#max_candidates", "2")
    hands.press("form[action$=search] button")
    hands.page.wait_for_selector("text=Searched.")


def _judge(hands: Hands, request: str) -> None:
    hands.go(request)
    hands.press("form[action$=begin] button")
    page = hands.page
    for position in (1, 2):
        page.wait_for_selector("[data-bench][data-ready=yes]")
        if position == 1:
            _measure(hands)
        page.keyboard.press("f")
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("[name='feature.skin'][value=different]:checked", state="attached")
        page.keyboard.press("2")
        page.wait_for_selector("[name=finding][value=no_support]:checked", state="attached")
        page.wait_for_selector("[data-wait]:enabled")
        page.keyboard.press("r")
        page.keyboard.type("The ears differ in every part.")
        hands.press("form.finding button.primary")
        page.wait_for_selector("h2:has-text('Your judgement')")
        if position == 1:
            hands.key("u")
            page.wait_for_selector("h2:has-text('Feature checklist')")
            page.keyboard.press("2")
            page.wait_for_selector("[data-wait]:enabled")
            page.keyboard.press("r")
            page.keyboard.type("The ears differ in every part, looked at again.")
            hands.press("form.finding button.primary")
            hands.key("j")
    hands.press("a[href$='/sign']")
    hands.to("[name=declared]")
    page.keyboard.press("Space")
    hands.press("form[action$=sign] button.primary")


def _measure(hands: Hands) -> None:
    """Every way of looking, a landmark placed and a length measured, by keys."""
    page = hands.page
    for key, mode in (("o", "overlay"), ("s", "split"), ("b", "blink"), ("v", "side")):
        page.keyboard.press(key)
        page.wait_for_selector(f"[data-plates][data-mode={mode}]")
    for key in ("+", "-", "0", "y", "y", "e", "e"):
        page.keyboard.press(key)
    page.keyboard.press("l")
    hands.choose("[data-landmark]", "chin")
    for pane in ("probe", "candidate"):
        hands.to(f"[data-pane-{pane}]")
        page.keyboard.press("Enter")
    placed = page.locator("[data-readings-body] tr", has_text="chin").locator("td")
    assert [len(text) > 1 for text in placed.all_inner_texts()] == [True, True]
    page.keyboard.press("Backspace")
    assert [len(text) > 1 for text in placed.all_inner_texts()] == [True, False]
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("m")
    hands.to("[data-pane-probe]")
    page.keyboard.press("Enter")
    for _ in range(4):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-readings]:not([hidden]) tr:has(th:has-text('Length 1')) td")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.wait_for_selector("#keys[open]")
    hands.person.look()
    page.keyboard.press("Escape")
    page.wait_for_selector("#keys:not([open])", state="attached")


def test_a_request_from_beginning_to_end_without_a_mouse(people: dict[str, Person], probe: Path) -> None:
    for person in people.values():
        person.page.emulate_media(color_scheme="dark")  # axe measures the contrasts of the other scheme here
    for name in ("operator-1", "operator-2"):
        record_training(people["supervisor-1"], name)
    officer = Hands(people["officer-2217"])
    first, second = Hands(people["operator-1"]), Hands(people["operator-2"])
    request = f"/console/requests/{_request(officer, probe)}"
    _prepare(first, request)
    _judge(first, request)
    _judge(second, request)
    first.go(request)
    first.press("form[action$=release] button.primary")
    first.page.wait_for_selector("text=Released by")
    officer.go(f"{request}/result")
    with officer.page.expect_download() as download:
        officer.page.keyboard.press("p")
    assert download.value.path().read_bytes().startswith(b"%PDF")
    officer.go(request)
    officer.choose("#kind", "No further")
    officer.press("form[action$=outcome] button.primary")
    officer.page.wait_for_selector(".notice:has-text('No further action')")
    assert not [problem for person in people.values() for problem in person.problems]
