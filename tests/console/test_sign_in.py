"""Signing in at an identity provider, in a real Chromium, at a second replica; a session outlives its replica."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from services.local.deployment import HOST, environment, free_ports
from services.local.process import ServiceProcess
from services.local.readiness import waiting_for
from tests.console.conftest import SETTINGS
from tests.console.stage import TIMEOUT_MS, Person
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def replica(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A second review on the same data, whose people sign in at a provider that is another site; its address."""
    folder = tmp_path_factory.mktemp("oidc")
    ports = free_ports()["review"]
    address = f"http://{HOST}:{ports.http}"
    provider = subprocess.Popen(
        [sys.executable, "-m", "tests.support.oidc_provider", str(platform.data.tokens), "0",
         f"{address}/console/oidc/callback"],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert provider.stdout is not None
    # Another site to Chromium than 127.0.0.1, as a force's provider is another site than the console.
    issuer = provider.stdout.readline().strip().replace("127.0.0.1", "localhost")
    assert issuer, f"the provider ended: {provider.wait(60)}"
    secret = folder / "client.secret"
    secret.write_text(CLIENT_SECRET, "utf-8")
    settings = {
        "TOKEN_SIGN_IN": "false",
        "OIDC__CLIENT_ID": CLIENT_ID,
        "OIDC__CLIENT_SECRET_PATH": str(secret),
        "OIDC__AUTHORIZATION_URL": f"{issuer}/authorize",
        "OIDC__TOKEN_URL": f"{issuer.replace('localhost', '127.0.0.1')}/token",
        "OIDC__END_SESSION_URL": f"{issuer}/end-session",
        "OIDC__PUBLIC_URL": address,
    }
    inherited = {**os.environ, **SETTINGS, **{f"LIKENESS_REVIEW__CONSOLE__{n}": v for n, v in settings.items()}}
    variables = environment(
        "review", platform.data, {**platform.ports, "review": ports}, inherited, allow_synthetic=True, mutual_tls=True
    )
    process = ServiceProcess("review", variables, folder / "review.log")
    process.start()

    def is_ready() -> bool:
        assert process.is_running(), "\n".join(process.last_lines(30))
        return not waiting_for(ports.http)

    wait_until(is_ready, 180, lambda: "\n".join(process.last_lines(20)))
    yield address
    process.send(signal.SIGTERM)
    assert process.wait(60.0)
    provider.terminate()
    provider.wait(60)


def enter(browser: Browser, replica: str, platform: Platform) -> Person:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(TIMEOUT_MS)
    person = Person("operator-7", "operator", platform, context, context.new_page())
    person.page.goto(f"{replica}/console/sign-in")
    return person


def sign_in(page: Page) -> None:
    page.click("text=Sign in with your force account")
    page.fill("[name=person_id]", "operator-7")
    page.click("button:has-text('Sign in')")
    page.wait_for_selector("h1:has-text('Queue')")


def test_a_force_account_opens_the_console_and_signing_out_ends_both(
    browser: Browser, replica: str, platform: Platform
) -> None:
    person = enter(browser, replica, platform)
    page = person.page
    assert page.locator("[name=token]").count() == 0, "tokens are for trying the platform out"
    person.look()
    sign_in(page)
    assert "operator-7" in page.inner_text(".who")
    person.look()
    names = {cookie["name"]: cookie for cookie in page.context.cookies()}
    assert set(names) == {"__Host-likeness"}, "nothing is left of the sign-in"
    assert (names["__Host-likeness"]["sameSite"], names["__Host-likeness"]["httpOnly"]) == ("Strict", True)
    page.click("button:has-text('Sign out')")
    page.wait_for_selector("h1:has-text('Signed out of the force account')")
    page.goto(f"{replica}/console/queue")
    page.wait_for_selector("h1:has-text('Sign in')")
    person.context.close()
    assert not person.problems


def test_a_session_goes_on_at_another_replica_and_ends_at_all(
    browser: Browser, replica: str, platform: Platform
) -> None:
    person = enter(browser, replica, platform)
    page = person.page
    sign_in(page)
    # A cookie is of the host, whatever the port: the browser brings it to the first replica as well.
    page.goto(platform.url("review", "/console/guide"))
    assert "operator-7" in page.inner_text(".who")
    page.click("button:has-text('Sign out')")
    page.wait_for_selector("h1:has-text('Sign in')")
    page.goto(f"{replica}/console/guide")
    page.wait_for_selector("h1:has-text('Sign in')")
    person.context.close()


def test_a_person_sees_where_they_are_signed_in_and_ends_it_by_keyboard(browser: Browser, platform: Platform) -> None:
    earlier = Person.enter(browser, platform, "operator", "operator-9")
    person = Person.enter(browser, platform, "operator", "operator-9")
    page = person.page
    page.focus(".who a")
    with person.leads_on():
        page.keyboard.press("Enter")
    person.look()
    assert page.inner_text("h1") == "Your sessions"
    shown = page.inner_text("main")
    assert "Chromium on Linux" in shown
    assert "this ended a session from 127.0.0.1" in shown, "the earlier window's"
    page.emulate_media(color_scheme="dark")
    person.looked_at.clear()
    person.look()
    page.focus("button:has-text('End this session and sign out')")
    with person.leads_on():
        page.keyboard.press("Enter")
    assert page.inner_text("h1") == "Sign in"
    for one in (person, earlier):
        one.open("/console/sessions")
        assert one.page.inner_text("h1") == "Sign in"
        assert not one.problems
        one.context.close()
    with platform.client("audit", "auditor", timeout_s=60) as auditor:
        found = auditor.get("/v1/audit/entries", params={"limit": 200, "activity": "end_sessions"}).json()["entries"]
    phases = [(each["entry"]["actor"]["person_id"], each["entry"]["phase"]) for each in found]
    assert {person_id for person_id, _ in phases} == {"operator-9"}
    assert len(phases) == 2, "an intent and its outcome"


def test_a_restart_signs_nobody_out(browser: Browser, platform: Platform) -> None:
    person = Person.enter(browser, platform, "operator", "operator-8")
    platform.restart("review")
    person.open("/console/guide")
    assert "operator-8" in person.page.inner_text(".who")
    person.context.close()
    assert not person.problems


def test_whoever_stays_keeps_what_they_wrote_and_whose_session_ends_reads_why(
    browser: Browser, platform: Platform
) -> None:
    person = Person.enter(browser, platform, "requester", "officer-2305")
    page = person.page
    page.clock.install()  # half an hour is waited for by the browser's own clock, which the test moves
    person.open("/console/requests/new")
    person.settle()
    page.fill("#necessity", "There is no other line of enquiry.")
    # What is left is the server's to say, and its clock goes on as ever: once it says that little is.
    page.route("**/console/session", lambda route: route.fulfill(json={"left_s": 90, "can_stay": True, "ended": ""}))
    page.clock.fast_forward("05:01")
    page.wait_for_selector("[data-idle]:not([hidden])")
    person.looked_at.clear()
    person.look()
    page.unroute("**/console/session")
    page.click("text=Stay signed in")
    page.wait_for_selector("[data-idle][hidden]", state="attached")
    assert page.input_value("#necessity") == "There is no other line of enquiry."
    assert not person.problems

    elsewhere = Person.enter(browser, platform, "requester", "officer-2305")
    page.clock.fast_forward("05:01")
    page.wait_for_selector("h1:has-text('Sign in')")
    assert "you signed in somewhere else" in page.inner_text("main")
    for one in (person, elsewhere):
        one.context.close()
