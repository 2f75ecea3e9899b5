"""A21: a template or a raw distance by any role through any API, log, metric or error, or from the files of search."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from services.rpc.clients import GalleryClient, open_channel
from tests.integration.search.peers import Peers, vector_like, vector_of
from tests.integration.search.process import SearchProcess

pytestmark = pytest.mark.long

FACES = {
    "the probe": vector_of("ann"),
    "a reference": vector_of("bob"),
    "another watchlist's reference": vector_like("ann", 0.99),
}
ROLES = (["operator"], ["auditor"], ["administrator"], ["supervisor"], ["custodian"])
# More numbers in a row than anything here has a reason for.
_NUMBERS = re.compile(r"(?:-?\d+\.\d+(?:e-?\d+)?[,;\s\]\[]+){16,}")
_NAMES = re.compile(r"template|embedding|vector|descriptor|distance", re.IGNORECASE)
# A stage of the time taken, and a measure of the picture.
_INNOCENT = frozenset({"template", "inter_eye_distance"})


@pytest.fixture(scope="module")
def search(peers: Peers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchProcess]:
    with SearchProcess(tmp_path_factory.mktemp("search"), peers, LOG_LEVEL="DEBUG") as running:
        yield running


def forms_of(vector: np.ndarray) -> list[bytes]:
    """How a template could leave: its bytes, in hex or base64, in either precision; its first values as text."""
    forms: list[bytes] = []
    for kind in ("<f4", "<f8", "<f2"):
        raw = vector.astype(kind).tobytes()[:24]
        forms += [raw, raw.hex().encode(), *(base64.b64encode(raw[shift:])[2:-4] for shift in range(3))]
    forms += [",".join(f"{value:.{digits}f}" for value in vector[:3]).encode() for digits in (3, 4, 6)]
    return forms


def assert_no_template(content: bytes, where: str) -> None:
    for name, vector in FACES.items():
        for form in forms_of(vector):
            assert form not in content, f"{name} leaves through {where}"


def everything_said(search: SearchProcess) -> Iterator[tuple[str, httpx.Response]]:
    """Every route of the API by every role, good and bad requests."""
    made = search.operator().search(b"face:ann", watchlists=["custody", "sex_offenders"], max_candidates="50")
    yield "search", made
    search_id = made.json()["search_id"]
    routes = json.loads(httpx.get(f"{search.url}/openapi.json", timeout=60).content)["paths"]
    for roles in ROLES:
        client = search.operator(roles=roles).http
        for path, methods in routes.items():
            for method in methods:
                url = re.sub(r"\{[^}]*\}", search_id, path)
                for query in ("", "?reason=test", "?include=template&fields=embedding,vector&debug=1"):
                    yield f"{method} {url}{query} {roles}", client.request(method, url + query)
        for image in (b"face:ann", b"faces:ann,bob", b"broken", b"noface"):
            yield f"{image!r} {roles}", search.operator(roles=roles).search(image)
    for path in ("/metrics", "/healthz", "/readyz", "/docs", "/openapi.json"):
        yield path, httpx.get(search.url + path, timeout=60)


def test_no_answer_holds_a_template(search: SearchProcess) -> None:
    for where, response in everything_said(search):
        assert_no_template(response.content, where)
        assert not _NUMBERS.search(response.text), where
        if response.headers.get("content-type", "").startswith("application/json") and "openapi" not in where:
            named = {name for name in names_in(response.json()) if _NAMES.search(name)}
            assert named <= _INNOCENT, where


def names_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name)
            yield from names_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_in(inner)


def test_no_log_entry_or_file_of_search_holds_a_template(search: SearchProcess, peers: Peers) -> None:
    search.operator().answer(b"face:ann")
    for entry in list(peers.audit.entries):
        assert_no_template(entry.SerializeToString(), f"the audit entry {entry.activity}")
    files = [path for path in search.root.rglob("*") if path.is_file()]
    assert {"search.log", "search.sqlite"} <= {path.name for path in files}
    for path in files:
        assert_no_template(path.read_bytes(), path.name)


def test_grpc_gives_no_template_either(search: SearchProcess) -> None:
    with open_channel(f"127.0.0.1:{search.grpc_port}") as channel:
        assert_no_template(GalleryClient(channel).describe().SerializeToString(), "DescribeGallery")


def test_a_search_has_no_score_but_the_documented_one(search: SearchProcess) -> None:
    answer = search.operator().answer(b"face:ann")
    scores = {
        name for candidate in answer["candidates"] for name, value in candidate.items() if isinstance(value, float)
    }
    assert scores == {"score"}
