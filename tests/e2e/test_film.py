"""Films over the whole running platform, with real models, real faces and the command line; services are killed."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from services.shared.errors import FILM_REFUSALS
from tests.support.casework import enrol
from tests.support.faces import DevelopmentFaces
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

FORM = {
    "case_reference": "NC/2026/0042",
    "purpose": "prevention_and_detection",
    "offence": "burglary",
    "source": "cctv",
    "watchlists": ["custody"],
}
CLIP = "face_recognition/video_Lin-Manuel_Miranda_Alex_Lacamoire/short_hamilton_clip.mp4"
SINGER = "face_recognition/Lin-Manuel_Miranda/lin-manuel-miranda.png"
BYSTANDER = "face_recognition/Barack_Obama/obama.jpg"
WITH_A_FACE = {"video_face", "video_rotation", "video_vfr"}
HOSTILE = {*WITH_A_FACE, "video_no_face", "video_no_video", "video_playlist_ssrf", "video_bomb"}
ENDED = {"done", "refused", "failed", "cancelled"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, faces: DevelopmentFaces) -> Iterator[Platform]:
    """A platform of its own, whose services can be killed, with two people enrolled."""
    with Platform(tmp_path_factory.mktemp("films"), services=("search", "ingest", "audit", "embed")) as running:
        enrol(running, faces.root / SINGER, "SINGER")
        enrol(running, next((faces.root / BYSTANDER).parent.glob("*")), "BYSTANDER")
        yield running


def hand_in(client: httpx.Client, film: Path) -> str:
    with film.open("rb") as file:
        answer = client.post("/v1/films", data=FORM, files={"film": ("film", file)})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["film_id"])


def see(client: httpx.Client, film_id: str) -> dict[str, Any]:
    try:
        answer = client.get(f"/v1/films/{film_id}")
    except httpx.TransportError:
        return {"status": "away", "progress": {"frames_looked_at": 0}}
    body: dict[str, Any] = answer.json()
    return body if answer.status_code == 200 else {"status": "away", "progress": {"frames_looked_at": 0}}


def ended(client: httpx.Client, film_id: str, timeout_s: float = 500) -> dict[str, Any]:
    wait_until(lambda: see(client, film_id)["status"] in ENDED, timeout_s, lambda: str(see(client, film_id)), 0.5)
    return see(client, film_id)


def test_the_command_finds_the_singer_across_a_cut_and_names_the_frames(
    own: Platform, faces: DevelopmentFaces, tmp_path: Path
) -> None:
    token = tmp_path / "operator.token"
    token.write_text(own.token("operator"), "ascii")
    command = [
        *(sys.executable, "-m", "services.cli", "film", str(faces.root / CLIP), "--watchlist", "custody"),
        *("--case", "NC/1", "--purpose", "prevention_and_detection", "--offence", "burglary", "--source", "cctv"),
        *("--sheet", str(tmp_path / "sheet.html"), "--token", str(token), "--url", own.url("search"), "--track", "0"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    sheet = (tmp_path / "sheet.html").read_text("utf-8")
    assert sheet.count("data:image/jpeg;base64,") >= 4
    candidate = next(line for line in result.stdout.splitlines() if line.strip().startswith("1 "))
    assert "SINGER" in candidate
    assert "mean of the raw cosines" in " ".join(result.stdout.split())


def test_search_and_the_film_worker_are_killed_and_the_film_is_read_once(
    own: Platform, faces: DevelopmentFaces
) -> None:
    with own.client("search", "operator") as client:
        film_id = hand_in(client, faces.root / CLIP)
        workers: list[int] = []

        def is_read() -> bool:
            workers.extend(_film_workers(own))
            return bool(workers)

        wait_until(is_read, 180, "a film worker")
        with suppress(ProcessLookupError):
            os.kill(workers[0], signal.SIGKILL)
        time.sleep(0.5)  # so that search is killed in the middle of what comes after
        own.kill("search")
        own.launch("search")
        own.wait_ready("search")
        film = ended(client, film_id)
        assert film["status"] == "done", film
        assert film["tracks"]
        assert film["progress"]["segments_read"] == film["progress"]["segments"] == 1
        entries = own.log("search")
        assert entries.count('"film_done"') >= 1
    wait_until(lambda: not _film_workers(own), 180, "no film worker to be left")


def test_embed_is_killed_in_the_middle_and_the_film_goes_on(own: Platform, faces: DevelopmentFaces) -> None:
    with own.client("search", "operator") as client:
        film_id = hand_in(client, faces.root / CLIP)
        wait_until(lambda: see(client, film_id)["status"] == "reading", 180, "reading")
        own.kill("embed")
        own.launch("embed")
        own.wait_ready("embed")
        film = ended(client, film_id)
        assert film["status"] == "done", film
        assert film["tracks"]
        picks = client.post(f"/v1/films/{film_id}/searches", json={"tracks": [0]})
        assert picks.json()["searches"][0]["answer"]["candidates"][0]["subject_id"] == "SINGER"


def test_hostile_films_are_read_or_refused_by_name(own: Platform, hostile: Path) -> None:
    """Over REST: one face is one track whatever container, rotation or frame rate; what is no film is a 422 at once.
    Every other hostile film is read in tests/integration/film."""
    with (hostile / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["kind"] in HOSTILE]
    handed_in: dict[str, str] = {}
    with own.client("search", "operator") as client:
        for row in rows:
            content = (hostile / row["path"]).read_bytes()
            answer = client.post("/v1/films", data=FORM, files={"film": ("film", content)})
            if answer.status_code == 202:
                handed_in[row["path"]] = answer.json()["film_id"]
            else:
                assert answer.status_code == 422, (row["path"], answer.text)
                assert answer.json()["code"] in FILM_REFUSALS
                assert row["expected"] != "decode", (row["path"], answer.text)
        films = {path: ended(client, film_id) for path, film_id in handed_in.items()}
        assert {film["status"] for film in films.values()} <= {"done", "refused"}
        with_a_face = [row["path"] for row in rows if row["kind"] in WITH_A_FACE]
        tracks = {path: len(films[path]["tracks"]) for path in with_a_face}
        # 61 lines of picture leave eight pixels between the eyes, which is too little to be followed for sure.
        tracks.pop("video_face/face_odd_dims_444.mp4")
        assert set(tracks.values()) == {1}, tracks
        assert not films["video_no_face/black.mp4"]["tracks"]
    own.wait_ready()
    assert not _film_workers(own)


def _film_workers(platform: Platform) -> list[int]:
    embed = psutil.Process(platform.process("embed").pid)
    found = []
    for child in embed.children(recursive=True):
        try:
            if "services.embed.film.worker" in child.cmdline():
                found.append(child.pid)
        except psutil.Error:
            continue
    return found
