"""Every route that the services have, and the table that says who may use it."""

from __future__ import annotations

import importlib
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from services.local.deployment import SERVICES, DataFolder, environment, free_ports
from services.local.supervisor import prepare_data
from services.shared.clock import SystemClock
from services.shared.telemetry import Metrics

TABLE = Path(__file__).with_name("routes.toml")
Place = tuple[str, str]  # method and path


@dataclass(frozen=True)
class Route:
    """One entry of routes.toml."""

    service: str
    method: str
    path: str
    roles: frozenset[str]
    object: str = ""
    file: str = ""
    form: Mapping[str, Any] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    is_absent: bool = False
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> Place:
        return self.method, self.path

    def __str__(self) -> str:
        return f"{self.service}-{self.method}-{self.path}"


def _document() -> Mapping[str, Any]:
    return tomllib.loads(TABLE.read_text("utf-8"))


def table() -> list[Route]:
    return [Route(**{**entry, "roles": frozenset(entry["roles"])}) for entry in _document()["route"]]


def hidden(service: str) -> frozenset[str]:
    """Paths outside OpenAPI that answer without a token."""
    listed = _document()["hidden"]
    return frozenset((*listed["every"], *listed.get(service, ())))


def operations(openapi: Mapping[str, Any]) -> set[Place]:
    """What an OpenAPI document lists."""
    return {(method.upper(), path) for path, item in openapi["paths"].items() for method in item}


def every_route(app: FastAPI) -> Iterator[Place]:
    """What an application really has, listed or not. HEAD and OPTIONS follow from the others."""
    yield from _routes(app.routes)


def _routes(routes: Any, prefix: str = "") -> Iterator[Place]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from _routes(included.routes, prefix + route.include_context.prefix)
            continue
        path = prefix + route.path
        if getattr(route, "routes", None):
            yield from _routes(route.routes, path)
            continue
        for method in sorted(set(getattr(route, "methods", None) or {"GET"}) - {"HEAD", "OPTIONS"}):
            yield method, path


@contextmanager
def built_app(service: str, root: Path) -> Iterator[FastAPI]:
    """A service's application as its composition root makes it; nothing is started."""
    data = DataFolder(root)
    prepare_data(data, SystemClock())
    for name in SERVICES:
        (root / name).mkdir(exist_ok=True)
    variables = environment(service, data, free_ports(), {})
    bootstrap = importlib.import_module(f"services.{service}.bootstrap")
    module = importlib.import_module(f"services.{service}.settings")
    with patch.dict(os.environ, variables):
        settings = getattr(module, f"{service.capitalize()}Settings")()
    built = bootstrap.build(settings, Metrics(CollectorRegistry()))
    yield built.app
