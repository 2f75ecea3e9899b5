"""Signing in at an identity provider that speaks real HTTP, and everything that such a sign-in is refused for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from pydantic import ValidationError

from services.local.issuer import LocalIssuer
from services.review.console.app import ConsoleSettings
from services.review.console.entry import FLOW_COOKIE
from services.review.console.guard import COOKIE
from services.review.console.oidc import Oidc, OidcSettings
from services.review.console.session_store import opened, sealed
from services.shared.clock import SystemClock
from services.shared.settings import TokenSettings
from services.shared.tokens import TokenVerifier
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider, serving
from tests.unit.review.console.browser import ORIGIN, Browser
from tests.unit.review.console.fake_desk import FakeDesk

CALLBACK = f"{ORIGIN}/console/oidc/callback"


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    LocalIssuer.open(tmp_path, SystemClock())
    made = Provider(tmp_path, CALLBACK)
    server = serving(made)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    made.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield made
    server.shutdown()
    server.server_close()
    thread.join(60)


@pytest.fixture
def browser(provider: Provider, tmp_path: Path) -> Browser:
    secret = tmp_path / "client.secret"
    secret.write_text(CLIENT_SECRET + "\n", "utf-8")
    settings = OidcSettings.model_validate(
        {
            "client_id": CLIENT_ID,
            "client_secret_path": secret,
            "authorization_url": f"{provider.address}/authorize",
            "token_url": f"{provider.address}/token",
            "end_session_url": f"{provider.address}/end-session",
            "public_url": ORIGIN,
        }
    )
    verifier = TokenVerifier(TokenSettings(jwks_path=tmp_path / "jwks.json", leeway_s=0))
    oidc = Oidc(settings, verifier, "likeness-local")
    return Browser(FakeDesk(), verifier=verifier, oidc=oidc, settings=ConsoleSettings())


def begin(browser: Browser) -> dict[str, str]:
    """Begin a sign-in; what the provider is asked for."""
    answer = browser.get("/console/oidc/start")
    assert answer.status_code == 303
    asked = {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith(FLOW_COOKIE.lower() + "=")
    assert all(word in cookie for word in ("secure", "httponly", "samesite=lax", "path=/", "max-age=600"))
    return asked


def come_back(browser: Browser, provider: Provider, asked: dict[str, str], **changes: str) -> httpx.Response:
    """The provider has signed somebody in and sends the browser back."""
    assert provider.problem(asked) == ""
    answer = {"code": provider.code_for(asked, "anna"), "state": asked["state"], "iss": "likeness-local", **changes}
    sent = {name: value for name, value in answer.items() if value}
    came: httpx.Response = browser.client.get("/console/oidc/callback", params=sent)
    return came


def is_signed_in(browser: Browser) -> bool:
    return browser.get("/console/guide").status_code == 200


def test_the_force_account_opens_a_session_with_its_own_rights(browser: Browser, provider: Provider) -> None:
    assert "Sign in with your force account" in browser.get("/console/sign-in").text
    planted = "planted-before"
    browser.client.cookies.set(COOKIE, planted, domain="console.test", path="/")
    answer = come_back(browser, provider, begin(browser))
    assert answer.status_code == 200
    assert 'http-equiv="refresh" content="0;url=/console/queue"' in answer.text, "a strict cookie needs a page of ours"
    assert browser.client.cookies.get(COOKIE) != planted
    cookies = [value.lower() for value in answer.headers.get_list("set-cookie")]
    [session] = [value for value in cookies if value.startswith(COOKIE.lower() + "=")]
    assert all(word in session for word in ("secure", "httponly", "samesite=strict"))
    page = browser.get("/console/guide")
    assert "anna" in page.text
    assert "operator" in page.text


def test_a_token_that_is_pasted_opens_nothing_where_there_is_a_provider(browser: Browser, provider: Provider) -> None:
    assert 'name="token"' not in browser.get("/console/sign-in").text
    token = LocalIssuer.open(provider.tokens, SystemClock()).issue(
        "operator", ["custody"], force="northshire", person_id="anna", lifetime=timedelta(hours=1)
    )
    assert browser.sign_in(token).status_code == 403
    assert not is_signed_in(browser)


@pytest.mark.parametrize(
    "changes", [{"state": "another"}, {"state": ""}, {"iss": "https://mix.up"}, {"code": ""}, {"code": "guessed"}]
)
def test_an_answer_that_is_not_to_this_beginning_opens_nothing(
    browser: Browser, provider: Provider, changes: dict[str, str]
) -> None:
    answer = come_back(browser, provider, begin(browser), **changes)
    assert answer.status_code == 401
    assert not is_signed_in(browser)


def test_the_provider_refusing_is_said(browser: Browser, provider: Provider) -> None:
    asked = begin(browser)
    answer = come_back(browser, provider, asked, error="access_denied", error_description="<b>no</b>")
    assert answer.status_code == 401
    assert "<b>no</b>" not in answer.text


def test_the_answer_to_somebody_elses_sign_in_opens_nothing(browser: Browser, provider: Provider) -> None:
    """Login CSRF: an attacker's code and state, sent into a browser that began nothing, or something else."""
    attackers = begin(browser)
    browser.client.cookies.clear()
    assert come_back(browser, provider, attackers).status_code == 401
    begin(browser)
    assert come_back(browser, provider, attackers).status_code == 401
    assert not is_signed_in(browser)


def test_a_code_works_once_and_only_with_its_verifier(browser: Browser, provider: Provider) -> None:
    asked = begin(browser)
    code = provider.code_for(asked, "anna")
    answer = {"code": code, "state": asked["state"]}
    flow = browser.client.cookies[FLOW_COOKIE]
    assert browser.client.get("/console/oidc/callback", params=answer).status_code == 200
    browser.client.cookies.set(FLOW_COOKIE, flow, domain="console.test", path="/")
    assert browser.client.get("/console/oidc/callback", params=answer).status_code == 401
    # A code that was stolen on its way, brought to a sign-in of the thief's own.
    stolen = provider.code_for(asked, "anna")
    thief = begin(browser)
    answer = {"code": stolen, "state": thief["state"]}
    assert browser.client.get("/console/oidc/callback", params=answer).status_code == 401


def _changed(kind: str, **claims: Any) -> Any:
    def twist(of: str, signed: dict[str, Any]) -> None:
        if of == kind:
            signed |= claims

    return twist


@pytest.mark.parametrize(
    ("kind", "claims"),
    [
        ("id", {"nonce": "of another sign-in"}),
        ("id", {"aud": "another client"}),
        ("id", {"azp": "another client"}),
        ("id", {"iss": "https://another"}),
        ("id", {"exp": datetime(2020, 1, 1, tzinfo=UTC)}),
        ("id", {"sub": "bert"}),
        ("id", {"at_hash": "AAAA"}),
        ("access", {"aud": "another service"}),
        ("access", {"iss": "https://another"}),
        ("access", {"exp": datetime(2020, 1, 1, tzinfo=UTC)}),
        ("access", {"roles": "operator"}),
        ("access", {"force": None}),
    ],
)
def test_tokens_that_are_not_ours_open_nothing(
    browser: Browser, provider: Provider, kind: str, claims: dict[str, Any]
) -> None:
    provider.twist = _changed(kind, **claims)
    assert come_back(browser, provider, begin(browser)).status_code == 401
    assert not is_signed_in(browser)


def test_a_key_that_is_not_in_the_file_signs_nobody_in(browser: Browser, provider: Provider, tmp_path: Path) -> None:
    asked = begin(browser)
    (tmp_path / "other").mkdir()
    LocalIssuer.open(tmp_path / "other", SystemClock())
    provider.tokens = tmp_path / "other"
    assert come_back(browser, provider, asked).status_code == 401


def test_a_short_token_is_renewed_until_the_provider_says_no(browser: Browser, provider: Provider) -> None:
    come_back(browser, provider, begin(browser))
    assert is_signed_in(browser)
    assert provider.renewals == 0
    # What it holds now runs out; the next is as good.
    _run_out(browser, provider)
    assert is_signed_in(browser)
    assert provider.renewals == 1
    _run_out(browser, provider)
    provider.refreshes.clear()
    assert not is_signed_in(browser)


def _run_out(browser: Browser, provider: Provider) -> None:
    """The access token that the session holds is over; its refresh token is not."""
    cookie = browser.client.cookies[COOKIE]
    [stored] = browser.store.stored.values()
    tokens = opened(cookie, stored.sealed)
    assert tokens is not None
    issuer = LocalIssuer.open(provider.tokens, SystemClock())
    over = jwt.encode(
        {**jwt.decode(tokens.access, options={"verify_signature": False}), "exp": 1},
        issuer._key,
        algorithm="EdDSA",
        headers=jwt.get_unverified_header(tokens.access),
    )
    assert browser.store.reseal(stored.key, stored.sealed, sealed(cookie, replace(tokens, access=over)))


def test_signing_out_ends_both_sessions(browser: Browser, provider: Provider) -> None:
    come_back(browser, provider, begin(browser))
    page = browser.get("/console/guide").text
    browser.csrf = page.split('name="csrf" value="')[1].split('"')[0]
    answer = browser.post("/console/sign-out")
    assert answer.status_code == 200
    assert f"{provider.address}/end-session?id_token_hint=" in answer.text
    assert not is_signed_in(browser)


def test_a_provider_that_is_away_is_said_and_nobody_is_let_in(browser: Browser, provider: Provider) -> None:
    asked = begin(browser)
    provider.away = True
    answer = come_back(browser, provider, asked)
    assert answer.status_code == 503
    assert not is_signed_in(browser)


@pytest.mark.parametrize("missing", ["authorization_url", "token_url", "public_url", "scope"])
def test_settings_that_are_not_whole_stop_the_start(missing: str) -> None:
    whole = {
        "client_id": "console",
        "authorization_url": "https://id.test/a",
        "token_url": "https://id.test/t",
        "public_url": "https://console.test",
        "scope": "openid",
    }
    OidcSettings.model_validate(whole)
    with pytest.raises(ValidationError):
        OidcSettings.model_validate({**whole, missing: "profile"} if missing == "scope" else whole | {missing: None})
