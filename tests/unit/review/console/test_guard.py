"""What stands before every page: sessions, the origin of forms, the form's token, headers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from services.review.console.guard import CONTENT_SECURITY_POLICY, COOKIE
from tests.unit.review.console.browser import ORIGIN, Browser
from tests.unit.review.console.fake_desk import PROBE_ID, REQUEST_ID, FakeDesk

OPEN = {"/", "/console/sign-in", "/console/static/{version}/{name}"}
QUEUE = "/console/queue"


@pytest.fixture
def browser() -> Browser:
    return Browser(FakeDesk())


def _console_routes(browser: Browser) -> Iterator[tuple[str, str]]:
    def walk(routes: Any) -> Iterator[tuple[str, str]]:
        for route in routes:
            included = getattr(route, "original_router", None)
            if included is not None:
                yield from walk(included.routes)
            elif str(getattr(route, "path", "")).startswith("/console"):
                yield from ((method, route.path) for method in route.methods or ())

    yield from walk(browser.app.routes)


def test_nothing_but_the_entrance_is_open_without_a_session(browser: Browser) -> None:
    seen = 0
    for method, path in _console_routes(browser):
        if path in OPEN:
            continue
        place = path.format_map(defaultdict(lambda: REQUEST_ID, position="1", name="original.jpg", sequence="1"))
        answer = browser.client.request(method, place, headers={"Origin": ORIGIN})
        assert answer.status_code == 401, (method, path)
        seen += 1
    assert seen > 30
    assert not browser.desk.calls


def test_a_person_without_a_session_is_shown_the_way_in(browser: Browser) -> None:
    answer = browser.get(QUEUE)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/console/sign-in"


def test_whose_session_is_over_is_told_so(browser: Browser) -> None:
    browser.client.cookies.set(COOKIE, "of-an-ended-session")
    answer = browser.get(QUEUE)
    assert answer.headers["location"] == "/console/sign-in?ended=1"


def test_whose_session_has_ended_reads_why_at_the_sign_in(browser: Browser) -> None:
    browser.sign_in()
    assert browser.get("/console/session").json() == {"left_s": 1800, "can_stay": True, "ended": ""}
    browser.clock.wait(1800)
    way = browser.get(QUEUE).headers["location"]
    assert way == "/console/sign-in?ended=idle"
    assert "nothing was done in it for a while" in browser.get(way).text
    answer = browser.get("/console/session")
    assert (answer.status_code, answer.json()["ended"]) == (401, "idle")
    assert "<b>" not in browser.get("/console/sign-in?ended=<b>told</b>").text
    assert "told" not in browser.get("/console/sign-in?ended=told").text


@pytest.mark.parametrize(("origin", "is_given_back"), [(ORIGIN, True), ("https://evil.test", False)])
def test_what_was_written_when_the_session_had_ended_is_given_back(
    browser: Browser, origin: str, is_given_back: bool
) -> None:
    browser.sign_in()
    browser.clock.wait(1800)
    answer = browser.client.post(
        f"/console/requests/{REQUEST_ID}/compare/1",
        data={"csrf": browser.csrf, "remarks": "The ears <differ>."},
        headers={"Origin": origin, "Accept": "text/html"},
    )
    assert answer.status_code == 401
    assert "nothing was done in it for a while" in answer.text
    assert ("The ears &lt;differ&gt;." in answer.text) == is_given_back
    assert not browser.desk.calls


def test_the_cookie_is_for_this_host_over_tls_and_for_no_script(browser: Browser) -> None:
    cookie = browser.sign_in().headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {part.strip().lower() for part in cookie.split(";")[1:]} == {
        "httponly",
        "path=/",
        "samesite=strict",
        "secure",
    }


def test_a_planted_cookie_is_not_taken_over(browser: Browser) -> None:
    browser.client.cookies.set(COOKIE, "planted", domain="console.test")
    browser.sign_in()
    assert browser.client.cookies.get(COOKIE, domain="console.test") != "planted" or len(browser.client.cookies.jar) > 1
    browser.client.cookies.clear()
    browser.client.cookies.set(COOKIE, "planted")
    assert browser.get(QUEUE).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": f"{ORIGIN}.evil.test"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_from_elsewhere_is_refused(browser: Browser, headers: dict[str, str]) -> None:
    browser.sign_in()
    data = {"csrf": browser.csrf, "version": "3"}
    answer = browser.client.post(f"/console/requests/{REQUEST_ID}/withdraw", data=data, headers=headers)
    assert answer.status_code == 403
    assert not browser.desk.calls


@pytest.mark.parametrize("csrf", ["", "x", "ü"])
def test_a_form_without_this_sessions_token_is_refused(browser: Browser, csrf: str) -> None:
    browser.sign_in()
    answer = browser.post(f"/console/requests/{REQUEST_ID}/withdraw", {"csrf": csrf, "version": "3"})
    assert answer.status_code == 403
    assert not browser.desk.calls


def test_the_same_form_with_it_is_taken(browser: Browser) -> None:
    browser.sign_in()
    answer = browser.post(f"/console/requests/{REQUEST_ID}/withdraw", {"version": "3"})
    assert answer.status_code == 303
    assert browser.desk.calls == [("withdraw", (REQUEST_ID, 3))]


def test_signing_in_from_another_site_is_refused(browser: Browser) -> None:
    answer = browser.client.post("/console/sign-in", data={"token": "good"}, headers={"Origin": "https://evil.test"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_signing_out_ends_the_session_on_the_server(browser: Browser) -> None:
    browser.sign_in()
    cookie = browser.client.cookies[COOKIE]
    assert browser.post("/console/sign-out").status_code == 303
    browser.client.cookies.set(COOKIE, cookie)
    assert browser.get(QUEUE).status_code == 303


@pytest.mark.parametrize(
    "path",
    ["/console/sign-in", QUEUE, "/console/requests/nope", f"/console/requests/{REQUEST_ID}", "/console/log"],
)
def test_every_page_forbids_caching_framing_and_foreign_code(browser: Browser, path: str) -> None:
    browser.sign_in()
    answer = browser.get(path)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"


def test_the_policy_lets_nothing_run_that_is_not_a_file_of_ours() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "frame-ancestors 'none'" in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY


def test_pictures_come_as_sandboxed_jpeg(browser: Browser) -> None:
    browser.sign_in()
    answer = browser.get(f"/console/requests/{REQUEST_ID}/probes/{PROBE_ID}/original.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_way_back_after_changing_colours_stays_here(browser: Browser) -> None:
    browser.sign_in()
    for back in ("https://evil.test/", "//evil.test", "/console/\\evil", "/other"):
        answer = browser.post("/console/theme", {"theme": "dark", "back": back})
        assert answer.headers["location"] == "/console/"


def test_a_role_sees_no_page_of_another(browser: Browser) -> None:
    browser.tokens.add("auditor", "auditor", person_id="auditor-1")
    browser.sign_in("auditor")
    assert browser.get("/console/refusals").status_code == 403
