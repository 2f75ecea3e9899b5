"""A5: routes x roles x forces. Every route of every service stands in routes.toml, and does what is written there."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.local.deployment import SERVICES
from services.local.issuer import DEVELOPMENT_FORCE, ROLES
from tests.attacks.route_table import Route, built_app, every_route, hidden, operations, table
from tests.attacks.scene import OTHER_FORCE, Scene, as_bearer, assert_tells_nothing, open_client, picture
from tests.support.platform import Platform

TABLE = table()
OBJECTS = [route for route in TABLE if route.object]
REFUSED = {401, 403, 404}


@pytest.fixture(scope="module")
def clients(platform: Platform) -> Iterator[Mapping[str, httpx.Client]]:
    opened = {service: open_client(platform, service) for service in SERVICES}
    yield opened
    for client in opened.values():
        client.close()


def ask(client: httpx.Client, route: Route, token: str | None, ids: Mapping[str, str] | None = None) -> httpx.Response:
    """One request; path parameters are what the route says, the object's id, or made up."""
    made_up = str(uuid.uuid4())
    values = dict.fromkeys(_parameters(route.path), made_up) | dict(route.values)
    if ids and route.object in ids and values:
        values[_parameters(route.path)[0]] = ids[route.object]
    content: dict[str, Any] = {"params": dict(route.query)} if route.query else {}
    if route.json is not None:
        content["json"] = route.json
    if route.form:
        content["data"] = dict(route.form)
    if route.file:
        content["files"] = {route.file: ("probe.png", picture(3), "image/png")}
    headers = as_bearer(token) if token else {}
    return client.request(route.method, route.path.format_map(values), headers=headers, **content)


def _parameters(path: str) -> list[str]:
    return re.findall(r"{(\w+)", path)


def test_a05_every_listed_route_stands_in_the_table(clients: Mapping[str, httpx.Client]) -> None:
    for service in SERVICES:
        found = operations(clients[service].get("/openapi.json").json())
        listed = {route.place for route in TABLE if route.service == service}
        assert found == listed, f"{service}: bring tests/attacks/routes.toml up to date"


@pytest.mark.parametrize("service", ["search", "ingest", "audit", "review"])
def test_a05_every_hidden_route_is_known_or_closed(
    service: str, clients: Mapping[str, httpx.Client], tmp_path: Path
) -> None:
    """Whatever the application has beside OpenAPI either stands in the table or answers nobody without a session."""
    known = hidden(service)
    listed = {route.place for route in TABLE if route.service == service}
    with built_app(service, tmp_path) as app:
        beside = sorted(set(every_route(app)) - listed)
    for method, path in beside:
        if path in known:
            assert method == "GET" or path in hidden("review"), (method, path)
            continue
        values = {name: str(uuid.uuid4()) for name in _parameters(path)}
        plain = path.replace(":path}", "}").format_map(values)
        for headers in ({}, as_bearer("x"), {"Cookie": "likeness_session=x; session=x"}):
            answer = clients[service].request(method, plain, headers=headers)
            assert answer.status_code in {303, 307, *REFUSED}, (method, path, answer.status_code)


def test_a05_embed_has_no_route_of_its_own(clients: Mapping[str, httpx.Client]) -> None:
    assert clients["embed"].get("/openapi.json").json()["paths"] == {}
    for path in ("/v1/analyse", "/v1/templates", "/debug", "/admin", "/docs/../metrics/x"):
        assert clients["embed"].get(path).status_code == 404


@pytest.mark.parametrize("route", TABLE, ids=str)
def test_a05_nobody_without_a_token(clients: Mapping[str, httpx.Client], scene: Scene, route: Route) -> None:
    answer = ask(clients[route.service], route, None, scene.ids)
    assert answer.status_code == 401, answer.text
    assert_tells_nothing(answer)


@pytest.mark.parametrize("route", TABLE, ids=str)
def test_a05_only_the_roles_of_the_table(clients: Mapping[str, httpx.Client], scene: Scene, route: Route) -> None:
    wrong = [role for role in ROLES if role not in route.roles]
    # What a role may not at home it may not from elsewhere; one of them is asked there as well.
    for role, force in [*((role, DEVELOPMENT_FORCE) for role in wrong), (wrong[-1], OTHER_FORCE)]:
        answer = ask(clients[route.service], route, scene.token(role, force), scene.ids)
        assert answer.status_code in ({403, 404} if route.object else {403}), (role, force, answer.text)
    for role in route.roles:
        answer = ask(clients[route.service], route, scene.token(role), scene.ids)
        is_absent = route.is_absent or (route.object and route.object not in scene.ids)
        assert answer.status_code not in (REFUSED - {404} if is_absent else REFUSED), (role, answer.text)
        assert answer.status_code < 500, answer.text


@pytest.mark.parametrize("route", OBJECTS, ids=str)
def test_a05_another_force_gets_what_it_gets_for_nothing(
    clients: Mapping[str, httpx.Client], scene: Scene, route: Route
) -> None:
    for role in sorted(route.roles):
        token = scene.token(role, OTHER_FORCE)
        theirs = ask(clients[route.service], route, token, {**scene.ids, **scene.kept})
        nothing = ask(clients[route.service], route, token)
        assert theirs.status_code == nothing.status_code == 404, (role, theirs.text, nothing.text)
        assert _without_ids(theirs) == _without_ids(nothing)
        assert_tells_nothing(theirs, DEVELOPMENT_FORCE)


@pytest.mark.parametrize("route", OBJECTS, ids=str)
def test_a05_no_other_method_reaches_an_object(clients: Mapping[str, httpx.Client], scene: Scene, route: Route) -> None:
    meant = {each.method for each in TABLE if each.service == route.service and each.path == route.path}
    path = route.path.format_map({name: scene.ids.get(route.object, "x") for name in _parameters(route.path)})
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"} - meant:
        token = scene.token(sorted(route.roles)[0], OTHER_FORCE)
        answer = clients[route.service].request(method, path, headers=as_bearer(token))
        assert answer.status_code in {404, 405}, (method, answer.text)


def _without_ids(answer: httpx.Response) -> Any:
    body = answer.json()
    body.pop("instance", None)
    return body
