"""What a person sees of their own sessions, and can end of them; nobody else's."""

from __future__ import annotations

import re
from dataclasses import replace

import httpx
import pytest

from services.review.console.session_store import StoredSession, Tokens, key_of, owner_of, sealed
from tests.unit.review.console.browser import ORIGIN, Browser
from tests.unit.review.console.fake_desk import FakeDesk

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
EDGE = "Mozilla/5.0 (Windows NT 10.0; Win64) AppleWebKit/537.36 Chrome/131.0 Safari/537.36 Edg/131.0"
_ID = re.compile(r'name="session" value="([0-9a-f]{16})"')


@pytest.fixture
def browser() -> Browser:
    browser = Browser(FakeDesk())
    browser.client.headers["user-agent"] = FIREFOX
    browser.sign_in()
    return browser


def _other(browser: Browser, cookie: str, person_id: str = "operator-1", force: str = "northshire") -> StoredSession:
    """A session that began in the same moment at another replica, or somebody else's."""
    now, owner = browser.clock.now(), owner_of(force, person_id)
    stored = StoredSession(
        key_of(cookie), owner, now, now, sealed(cookie, Tokens("good")), "10.9.8.7", "Edge on Windows"
    )
    browser.store.stored[stored.key] = stored
    return stored


def _page(browser: Browser) -> str:
    answer = browser.get("/console/sessions")
    assert answer.status_code == 200, answer.text
    return answer.text


def test_the_page_says_where_the_session_was_begun_and_nothing_that_opens_it(browser: Browser) -> None:
    page = _page(browser)
    assert "Firefox on Linux" in page
    assert "testclient" in page, "the address of the connection"
    assert "this one" in page
    [key] = browser.store.stored
    assert key not in page
    assert FIREFOX not in page


def test_what_a_browser_says_of_itself_is_kept_nowhere(browser: Browser) -> None:
    browser.client.headers["user-agent"] = "<script>alert(1)</script> Edg/1 Windows"
    browser.sign_in()
    [stored] = browser.store.stored.values()
    assert stored.agent == "Edge on Windows"
    browser.client.headers["user-agent"] = "curl/8"
    browser.sign_in()
    [stored] = browser.store.stored.values()
    assert stored.agent == "another program"


def test_a_sign_in_tells_which_session_it_ended(browser: Browser) -> None:
    assert "this ended a session" not in _page(browser)
    browser.client.cookies.clear()
    browser.client.headers["user-agent"] = EDGE
    browser.sign_in()
    page = _page(browser)
    assert "this ended a session from testclient (Firefox on Linux)" in page
    assert len(browser.store.stored) == 1


def test_any_other_session_can_be_ended_and_this_one_goes_on(browser: Browser) -> None:
    other = _other(browser, "the other")
    page = _page(browser)
    assert page.index("this one") < page.index("10.9.8.7"), "this one first"
    own, foreign = list(dict.fromkeys(_ID.findall(page)))
    answer = browser.post("/console/sessions/end", {"session": foreign})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/sessions?told=session-ended")
    assert other.key not in browser.store.stored
    assert browser.desk.calls[-1] == ("end_sessions", ("operator-1", (f"session:{foreign}",)))
    assert own in _page(browser)


def test_all_others_go_at_once(browser: Browser) -> None:
    for name in ("one", "two"):
        _other(browser, name)
    others = re.search(r"(<form(?:(?!</form>).)*End all other sessions)", _page(browser), re.DOTALL)
    assert others is not None
    chosen = _ID.findall(others[1].rpartition("<form")[2])
    assert len(chosen) == 2
    browser.post("/console/sessions/end", {"session": chosen})
    assert len(browser.store.stored) == 1
    assert "End all other sessions" not in _page(browser)


def test_ending_this_one_signs_out(browser: Browser) -> None:
    [own] = set(_ID.findall(_page(browser)))
    answer = browser.post("/console/sessions/end", {"session": own})
    assert answer.headers["location"] == "/console/sign-in?ended=out"
    assert not browser.store.stored
    assert browser.get("/console/sessions").status_code == 303


@pytest.mark.parametrize("whose", [("operator-2", "northshire"), ("operator-1", "eastmoor")])
def test_nobody_elses_session_is_shown_or_ended(browser: Browser, whose: tuple[str, str]) -> None:
    """Nor that of somebody of the same name in another force."""
    theirs = _other(browser, "theirs", *whose)
    assert "10.9.8.7" not in _page(browser)
    # Their own page would name it so; here nobody has it.
    browser.store.stored[theirs.key] = replace(theirs, person_id=owner_of("northshire", "operator-1"))
    foreign = next(one for one in _ID.findall(_page(browser)) if one not in _own(browser, theirs))
    browser.store.stored[theirs.key] = theirs
    answer = browser.post("/console/sessions/end", {"session": foreign})
    assert answer.status_code == 422
    assert theirs.key in browser.store.stored
    assert not browser.desk.calls


def _own(browser: Browser, theirs: StoredSession) -> list[str]:
    kept = browser.store.stored.pop(theirs.key)
    found = _ID.findall(_page(browser))
    browser.store.stored[theirs.key] = kept
    return found


def test_no_other_site_ends_a_session_and_no_form_without_its_token(browser: Browser) -> None:
    [own] = set(_ID.findall(_page(browser)))
    form = {"session": own}

    def send(origin: str, **extra: str) -> httpx.Response:
        answer: httpx.Response = browser.client.post(
            "/console/sessions/end", data={**form, **extra}, headers={"Origin": origin}
        )
        return answer

    assert send("https://evil.test", csrf=browser.csrf).status_code == 403
    assert send(ORIGIN).status_code == 403
    assert send(ORIGIN, csrf="guessed").status_code == 403
    assert browser.get("/console/sessions/end").status_code == 405
    assert len(browser.store.stored) == 1
