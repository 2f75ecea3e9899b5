"""Whose address counts: the connection's, unless a gateway of ours says whom it was asked by."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from fastapi import Request

from services.review.console.addresses import Addresses
from services.review.console.app import ConsoleSettings
from services.review.console.sessions import SessionSettings
from tests.unit.review.console.browser import NOBODY, ORIGIN, Browser
from tests.unit.review.console.fake_desk import FakeDesk

_OURS = Addresses([ip_network("10.1.0.0/16"), ip_network("fd00::/8")])


def _request(peer: str, *told: str) -> Request:
    headers = [(b"x-forwarded-for", one.encode()) for one in told]
    return Request({"type": "http", "client": (peer, 1), "headers": headers, "method": "GET", "path": "/"})


@pytest.mark.parametrize(
    ("peer", "told", "expected"),
    [
        ("192.0.2.7", ("198.51.100.1",), "192.0.2.7"),  # no gateway: whatever it says
        ("10.1.0.1", (), "10.1.0.1"),
        ("10.1.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("10.1.0.1", ("203.0.113.9, 198.51.100.1",), "198.51.100.1"),  # the first is whatever the browser wrote
        ("10.1.0.1", ("203.0.113.9", "198.51.100.1, 10.1.0.2"), "198.51.100.1"),  # two gateways, two headers
        ("fd00::1", ("2001:db8::5",), "2001:db8::5"),
        ("10.1.0.1", ("198.51.100.1, <script>",), "10.1.0.1"),
        ("10.1.0.1", ("1.1.1.1, " * 1000,), "10.1.0.1"),
    ],
)
def test_the_nearest_that_is_no_gateway_counts(peer: str, told: tuple[str, ...], expected: str) -> None:
    assert _OURS.of(_request(peer, *told)) == expected


def test_by_default_nobody_is_believed() -> None:
    assert Addresses(ConsoleSettings().trusted_gateways).of(_request("127.0.0.1", "198.51.100.1")) == "127.0.0.1"


def test_behind_a_gateway_bad_sign_ins_lock_one_address_and_not_everybody() -> None:
    settings = ConsoleSettings.model_validate(
        {"token_sign_in": True, "trusted_gateways": ["192.0.2.1/32"], "sessions": SessionSettings(bad_sign_ins=2)}
    )
    browser = Browser(FakeDesk(), settings=settings.model_copy(update={"oversight": NOBODY}))
    browser.client._transport.client = ("192.0.2.1", 1)

    def sign_in(token: str, told: str) -> int:
        headers = {"Origin": ORIGIN, "X-Forwarded-For": told}
        return int(browser.client.post("/console/sign-in", data={"token": token}, headers=headers).status_code)

    assert [sign_in("bad", f"203.0.113.{number}, 198.51.100.1") for number in range(3)] == [401, 401, 429]
    assert sign_in("good", "203.0.113.77, 198.51.100.1") == 429, "whatever stands before it"
    assert sign_in("good", "198.51.100.2") == 303
