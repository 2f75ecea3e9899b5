"""A5 on the pages of the console: what names a request answers another force as it answers for what is not there."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import httpx
import pytest

from tests.attacks.route_table import Place, built_app, every_route
from tests.attacks.scene import OTHER_FORCE, Scene
from tests.attacks.visitor import Visitor
from tests.support.platform import Platform

ROLES = ("operator", "supervisor", "requester")
# What forms of the console ask for, filled so that they are read: the request itself is what is looked up then.
FORM = {"version": "1", "reason": "Because.", "recipient": "A court", "disclosure_reason": "Because."}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[Place]:
    with built_app("review", tmp_path_factory.mktemp("built")) as app:
        found = [place for place in every_route(app) if place[1].startswith("/console/") and "{request_id" in place[1]]
    assert len(found) > 20
    return sorted(found)


@pytest.fixture(scope="module")
def strangers(platform: Platform) -> Iterator[list[tuple[Visitor, str]]]:
    """Signed in with another force, each with the token of its forms."""
    signed_in = []
    for role in ROLES:
        visitor = Visitor(platform)
        token = platform.token(role, force=OTHER_FORCE, person_id=f"a05-{role}")
        assert visitor.sign_in(token).status_code == 303
        signed_in.append((visitor, visitor.csrf()))
    yield signed_in
    for visitor, _ in signed_in:
        visitor.client.close()


def test_a05_no_page_tells_another_force_that_a_request_is_there(
    places: list[Place], strangers: list[tuple[Visitor, str]], scene: Scene
) -> None:
    request_id, made_up = scene.kept["request"], str(uuid.uuid4())
    for method, path in places:
        statuses = set()
        for visitor, csrf in strangers:
            theirs = _ask(visitor, method, path, request_id, csrf)
            nothing = _ask(visitor, method, path, made_up, csrf)
            assert theirs.status_code == nothing.status_code, (method, path, theirs.text[:300])
            assert _plain(theirs, request_id) == _plain(nothing, made_up), (method, path)
            assert theirs.status_code in {403, 404, 409, 422}, (method, path, theirs.status_code)
            statuses.add(theirs.status_code)
        assert statuses & {404, 422}, (method, path, statuses)
        if method == "GET":
            assert 404 in statuses, (method, path, statuses)


def _ask(visitor: Visitor, method: str, path: str, request_id: str, csrf: str) -> httpx.Response:
    values = {name: str(uuid.UUID(int=1)) for name in re.findall(r"{(\w+)", path)}
    values |= {"request_id": request_id, "position": "1"}
    address = re.sub(r":\w+}", "}", path).format_map(values)
    return visitor.get(address) if method == "GET" else visitor.post(address, csrf=csrf, **FORM)


def _plain(answer: httpx.Response, request_id: str) -> str:
    """The page without what differs from one request to the next."""
    return re.sub(r'nonce="[^"]*"|nonce-[\w+/=-]+|csrf" value="[^"]*"', "", answer.text.replace(request_id, "ID"))
