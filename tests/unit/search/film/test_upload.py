"""Films go to disk while they come; every limit holds while they come."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from services.search.film.sealing import PIECE_BYTES, seal, sha256_of, unseal
from services.search.film.settings import FilmsSettings
from services.search.film.upload import received
from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.http import create_app
from services.shared.telemetry import Metrics

LARGEST = 3 * 1024 * 1024


def left_in(folder: Path) -> int:
    return len(list(folder.iterdir()))


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    """What `/films` received: name, size and digest of the film, and how many files lie in the spool after it."""
    settings = FilmsSettings(max_bytes=LARGEST, spool_path=tmp_path)
    app: FastAPI = create_app(
        "Test",
        Metrics(CollectorRegistry()),
        dict,
        max_body_bytes=1024 * 1024,
        larger_bodies={"/films": LARGEST + 4096},
    )

    async def take(request: Request) -> Response:
        async with received(request, settings) as (upload, path):
            said = f"{upload.texts['case'][0]} {path.stat().st_size} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        return Response(f"{said} {left_in(tmp_path)}")

    app.add_api_route("/films", take, methods=["POST"])
    app.add_api_route("/others", take, methods=["POST"])
    return TestClient(app)


def test_a_film_larger_than_other_bodies_comes_whole_and_leaves_nothing(client: TestClient) -> None:
    film = bytes(range(256)) * (LARGEST // 256)
    answer = client.post("/films", data={"case": "C-1"}, files={"film": ("f", film)})
    assert answer.text == f"C-1 {len(film)} {hashlib.sha256(film).hexdigest()} 0"


def test_a_film_over_its_limit_and_a_large_body_elsewhere_are_refused(client: TestClient) -> None:
    for path, size in (("/films", LARGEST + 1), ("/films", 2 * LARGEST), ("/others", LARGEST)):
        answer = client.post(path, data={"case": "C-1"}, files={"film": ("f", bytes(size))})
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


def test_a_film_is_sealed_in_pieces_and_comes_back_whole(tmp_path: Path) -> None:
    film = tmp_path / "film"
    film.write_bytes(bytes(PIECE_BYTES) + b"the end")
    store = FolderImageStore(tmp_path / "store")
    pieces = seal(store, film)
    assert pieces == [hashlib.sha256(bytes(PIECE_BYTES)).hexdigest(), hashlib.sha256(b"the end").hexdigest()]
    chunks = list(unseal(store, pieces))
    assert b"".join(chunks) == film.read_bytes()
    assert max(map(len, chunks)) <= 1024 * 1024
    with film.open("rb") as file:
        assert sha256_of(file) == hashlib.sha256(film.read_bytes()).hexdigest()
