"""Films through the running services: `python -m tests.bench.films [--minutes 60] [--sheets FOLDER]`.

The two development films, or with `--minutes` so much of a camera made of them: a still scene with camera noise in
which every five minutes somebody passes for up to ten seconds. Times against real time, tracks, searches, peak memory
and processor time by process; that last figure is the same on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from threading import Event, Thread
from typing import Any

import av
import cv2
import httpx
import numpy as np
import psutil

from services.search.film.contact_sheet import contact_sheet
from tests.support.faces import development_faces
from tests.support.platform import Platform

FORM = {
    "case_reference": "NS/2026/004711",
    "purpose": "prevention_and_detection",
    "offence": "burglary",
    "source": "cctv",
    "watchlists": ["custody"],
}
WIDTH, HEIGHT, FPS, GOP = 1280, 720, 25, 50


def main() -> None:
    arguments = _arguments()
    sources = sorted((development_faces().root).glob("*/video*/*.mp4"))
    with tempfile.TemporaryDirectory() as folder:
        films = list(sources)
        if arguments.minutes:
            started = time.monotonic()
            films = [camera(Path(folder) / "camera.mp4", sources, arguments.minutes)]
            print(f"made {films[0].stat().st_size / 1e6:.0f} MB in {time.monotonic() - started:.0f} s")
        services = ("search", "ingest", "audit", "embed")
        with Platform(Path(folder) / "platform", services=services) as platform:
            for film in films:
                print(json.dumps(measured(platform, film, arguments.sheets), indent=1))


def measured(platform: Platform, film: Path, sheets: Path | None) -> dict[str, Any]:
    """Hand a film in, wait for it, search its first tracks."""
    with platform.client("search", "operator", timeout_s=300) as client, _PeakMemory() as peaks:
        started = time.monotonic()
        with film.open("rb") as file:
            answer = client.post("/v1/films", data=FORM, files={"film": (film.name, file)}).raise_for_status()
        handed_in_s = time.monotonic() - started
        found = _ended(client, answer.json()["film_id"])
        done_s = time.monotonic() - started
        tracks = [track["track"] for track in found["tracks"]][:20]
        made = client.post(f"/v1/films/{found['film_id']}/searches", json={"tracks": tracks}).json() if tracks else {}
    if sheets is not None:
        (sheets / f"{film.name}.html").write_text(contact_sheet(found, film.name), "utf-8")
    duration_s = found["film"]["duration_s"]
    return {
        "film": film.name,
        "status": found["status"],
        "warnings": found["warnings"],
        "duration_s": round(duration_s, 1),
        "frames": found["film"]["frame_count"],
        "key_frames": found["film"]["key_frame_count"],
        "looked_at": found["progress"]["frames_looked_at"],
        "handed_in_s": round(handed_in_s, 1),
        "read_s": found["progress"]["read_s"],
        "done_s": round(done_s, 1),
        "times_real_time": round(duration_s / done_s, 1),
        "tracks": len(found["tracks"]),
        "searches": sum(search["status"] == "done" for search in made.get("searches", ())),
        # Told, so that an hour that was read is not lost with them.
        "not_searched": [made] * ("code" in made)
        + [search["problem"] for search in made.get("searches", ()) if search["status"] != "done"],
        "search_ms": [
            round(search["answer"]["timings_ms"]["total"])
            for search in made.get("searches", ())[:5]
            if search["answer"]
        ],
        "peak_mb": {name: round(size / 1e6) for name, size in sorted(peaks.items())},
        "processor_s": {name: round(spent, 1) for name, spent in sorted(peaks.processor_s().items())},
    }


def camera(path: Path, sources: list[Path], minutes: int) -> Path:
    """A film whose coded minutes are made once and written again and again with later timestamps."""
    blank = _coded(_scene(4 * GOP)) * (60 * FPS // (4 * GOP) + 1)
    passes = [_coded(_passing(source)) for source in sources]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=_OPTIONS)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", GOP
        number = 0
        for minute in range(minutes):
            packets = passes[minute % len(passes)] if minute % 5 == 2 else blank
            packets = (packets + blank)[: 60 * FPS]
            for at, (content, is_key) in enumerate(packets):
                packet = av.Packet(content)
                packet.stream, packet.time_base = stream, Fraction(1, FPS)
                packet.pts = packet.dts = number + at
                packet.is_keyframe = is_key
                container.mux(packet)
            number += len(packets)
    return path


_OPTIONS = {"preset": "ultrafast", "crf": "28", "bf": "0", "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0"}


def _coded(pictures: Iterator[np.ndarray]) -> list[tuple[bytes, bool]]:
    """Coded frames with their headers, a whole number of groups, so that they can be joined."""
    packets = []
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    codec.time_base, codec.framerate, codec.gop_size = Fraction(1, FPS), Fraction(FPS), GOP
    codec.options = _OPTIONS
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        frame.pts = number
        packets += [(bytes(packet), packet.is_keyframe) for packet in codec.encode(frame)]
    packets += [(bytes(packet), packet.is_keyframe) for packet in codec.encode(None)]
    return packets[: len(packets) // GOP * GOP] or packets


def _scene(frames: int) -> Iterator[np.ndarray]:
    """A yard at dusk with a camera's noise."""
    random = np.random.default_rng(1)
    ground = np.tile(np.linspace(30, 120, HEIGHT)[:, None, None], (1, WIDTH, 3))
    for left in range(100, WIDTH, 300):
        ground[200:500, left : left + 120] = 60
    noisy = [(ground + random.normal(0, 4, (HEIGHT, WIDTH, 1))).clip(0, 255).astype(np.uint8) for _ in range(8)]
    for number in range(frames):
        yield noisy[number % 8]


def _passing(source: Path) -> Iterator[np.ndarray]:
    """The film as the camera would see it."""
    with av.open(str(source)) as container:
        for frame in container.decode(container.streams.video[0]):
            yield cv2.resize(frame.to_ndarray(format="bgr24"), (WIDTH, HEIGHT))


def _ended(client: httpx.Client, film_id: str) -> dict[str, Any]:
    while True:
        found: dict[str, Any] = client.get(f"/v1/films/{film_id}", params={"chips": "true"}).raise_for_status().json()
        if found["status"] in {"done", "refused", "failed"}:
            return found
        time.sleep(1.0)


class _PeakMemory(dict[str, int]):
    """Peak resident bytes by kind of process while the block runs."""

    def processor_s(self) -> dict[str, float]:
        """Spent in the block, by kind of process."""
        spent: dict[str, float] = {}
        for process, name in self._names.items():
            spent[name] = spent.get(name, 0.0) + self._last_s[process] - self._first_s[process]
        return spent

    def __enter__(self) -> _PeakMemory:
        self._names: dict[int, str] = {}
        self._first_s: dict[int, float] = {}
        self._last_s: dict[int, float] = {}
        self._ended = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            for process in psutil.Process().children(recursive=True):
                try:
                    name = next((part for part in process.cmdline() if part.startswith("services.")), "other")
                    self[name] = max(self.get(name, 0), process.memory_info().rss)
                    times = process.cpu_times()
                    self._names[process.pid] = name
                    self._last_s[process.pid] = times.user + times.system
                    self._first_s.setdefault(process.pid, times.user + times.system)
                except psutil.Error:
                    continue


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure films.")
    parser.add_argument("--minutes", type=int, default=0, help="of camera, instead of the films it is made of")
    parser.add_argument("--sheets", type=Path, help="a folder for the contact sheets")
    return parser.parse_args()


if __name__ == "__main__":
    main()
