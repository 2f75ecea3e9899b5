"""Draw the dashboards as an operator meets them: `make panels` writes docs/operations/panels.

A platform of real processes works for some minutes (searches, enrolments, custody events, requests, some of each
refused), a real Prometheus scrapes it, and every panel's own queries are asked of that Prometheus with query_range and
drawn. GPUs are drawn where the machine has one.

    python scripts/draw_panels.py [--seconds 180] [--references 107500]
"""

from __future__ import annotations

import argparse
import io
import itertools
import math
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event as Stop
from typing import Any

import httpx
import matplotlib as mpl
import yaml
from PIL import Image

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, PercentFormatter

sys.path.insert(0, str(Path(__file__).parent.parent))

from scripts.build_dashboards import DASHBOARDS, Panel
from services.local.deployment import HOST
from services.rpc.v1 import events_pb2
from services.shared.adapters.sqlite_event_log import SqliteEventLog
from services.shared.ids import new_id
from services.shared.ports.event_log import Event
from tests.bench.platform_measures import fill
from tests.stack.servers.prometheus import prometheus_server
from tests.support.casework import post_enrolment, post_request, post_search
from tests.support.faces import DevelopmentFaces, shared_data
from tests.support.platform import Platform
from tests.support.portraits import portraits

OUT = Path(__file__).parent.parent / "docs" / "operations" / "panels"
_TOPIC = "likeness.custody-image-received.v1"
_STEP_S, _INTERVAL = 2, "20s"
_COLUMNS = 2
_COLOURS = ("#1b5e8c", "#c8511b", "#3a7d44", "#7b4b94", "#b8860b", "#5f6b73", "#a83246", "#2a9d8f")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=180, help="how long the platform works")
    parser.add_argument("--references", type=int, default=107_500, help="synthetic references in the gallery")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Platform(Path(folder) / "data") as platform:
        fill(platform, options.references)
        with _watched(platform) as url:
            begun = time.time()
            _work(platform, options.seconds)
            span = (begun, time.time())
            for title, panels in DASHBOARDS.items():
                path = options.out / f"{title.lower()}.png"
                _draw(title, panels, url, span, path)
                print(path)


@contextmanager
def _watched(platform: Platform) -> Iterator[str]:
    """The address of a Prometheus that scrapes the platform."""
    targets = [
        {"targets": [f"{HOST}:{ports.http}"], "labels": {"service": service}}
        for service, ports in platform.ports.items()
    ]
    config = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
        "scrape_configs": [{"job_name": "likeness", "static_configs": targets}],
    }
    server, url = prometheus_server(yaml.safe_dump(config))
    server.start()
    try:
        yield url
    finally:
        server.discard()


def _work(platform: Platform, seconds: int) -> None:
    """Everything that a unit's day has, at a few a second, with a quieter minute in the middle."""
    stop = Stop()
    pictures = portraits()
    jobs: list[tuple[Callable[[], object], float]] = [
        (_searching(platform, pictures), 0.3),
        (_enrolling(platform, pictures), 0.5),
        (_custody_events(platform, pictures), 1.0),
        (_casework(platform, pictures), 4.0),
    ]
    begun = time.monotonic()

    def repeat(job: Callable[[], object], pause_s: float) -> None:
        while not stop.is_set():
            job()
            is_quiet = 0.45 < (time.monotonic() - begun) / seconds < 0.65
            stop.wait(pause_s * (6 if is_quiet else 1))

    with ThreadPoolExecutor(len(jobs)) as pool:
        running = [pool.submit(repeat, *job) for job in jobs]
        stop.wait(seconds)
        stop.set()
        for each in running:
            each.result()


def _searching(platform: Platform, pictures: list[bytes]) -> Callable[[], object]:
    client = platform.client("search", "operator")

    def search() -> None:
        kind = secrets.randbelow(20)
        if kind == 0:
            post_search(client, b"no picture")
        elif kind == 1:
            post_search(client, pictures[2], case_reference="")
        else:
            post_search(client, _anew(pictures[2]))

    return search


def _enrolling(platform: Platform, pictures: list[bytes]) -> Callable[[], object]:
    client = platform.client("ingest", "custodian")
    people = _people(pictures)

    def enrol() -> None:
        is_blank = secrets.randbelow(6) == 0
        post_enrolment(client, _blank() if is_blank else _anew(next(people)), f"PANEL-{new_id()}")

    return enrol


def _custody_events(platform: Platform, pictures: list[bytes]) -> Callable[[], object]:
    log = SqliteEventLog(platform.data.root / "events.sqlite")
    people = _people(pictures[::-1])

    def publish() -> None:
        subject = f"FEED-{new_id()}"
        value = b"\xff no message"
        if secrets.randbelow(10):
            value = events_pb2.CustodyImageReceived(
                event_id=new_id(),
                watchlist_id="custody",
                owner="northshire",
                subject_id=subject,
                lawful_basis="pace_1984_s64a",
                captured_on="2026-03-01",
                image=_anew(next(people)),
            ).SerializeToString()
        log.publish([Event(_TOPIC, f"northshire/{subject}", value)])

    return publish


def _casework(platform: Platform, pictures: list[bytes]) -> Callable[[], object]:
    officer, operator = platform.client("review", "requester"), platform.client("review", "operator")

    def request() -> None:
        answer = post_request(officer, _anew(pictures[2]))
        if answer.is_success and secrets.randbelow(3):
            case = f"/v1/casework/{answer.json()['request_id']}"
            version = operator.get(case).json()["case"]["version"]
            accepted = operator.post(
                f"{case}/acceptance", json={"version": version, "reason": "Lawful, needed, in proportion."}
            )
            accepted.raise_for_status()
        if not secrets.randbelow(4):
            post_request(officer, b"no picture")

    return request


def _people(pictures: list[bytes]) -> Iterator[bytes]:
    """Another person each time where the development faces are there, for a day's custody pictures are not of four."""
    folder = shared_data() / "faces"
    if (folder / "manifest.csv").is_file():
        faces = DevelopmentFaces.load(folder).split("gallery", "distractor")
        start = secrets.randbelow(len(faces))
        yield from (still.path.read_bytes() for still in faces[start:] + faces[:start])
    yield from itertools.cycle(pictures)


def _anew(picture: bytes) -> bytes:
    """The same person in another file."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.thumbnail((900, 900))
    image.putpixel((0, 0), tuple(secrets.token_bytes(3)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88 + secrets.randbelow(8))
    return file.getvalue()


def _blank() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (240, 240), tuple(secrets.token_bytes(3))).save(file, "PNG")
    return file.getvalue()


def _draw(title: str, panels: tuple[Panel, ...], url: str, span: tuple[float, float], path: Path) -> None:
    drawn = [(panel, found) for panel in panels if (found := _series(panel, url, span))]
    rows = math.ceil(len(drawn) / _COLUMNS)
    figure, axes = plt.subplots(rows, _COLUMNS, figsize=(12, 3.1 * rows), squeeze=False, layout="constrained")
    figure.suptitle(f"Likeness: {title.lower()}", fontsize=14, x=0.01, ha="left")
    for place in axes.flat[len(drawn) :]:
        place.set_visible(False)
    for place, (panel, found) in zip(axes.flat, drawn, strict=False):
        _draw_panel(place, panel, found, span)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _draw_panel(
    axes: Axes, panel: Panel, found: Mapping[str, list[tuple[float, float]]], span: tuple[float, float]
) -> None:
    for number, (legend, points) in enumerate(found.items()):
        minutes = [(at - span[0]) / 60 for at, _ in points]
        axes.plot(
            minutes, [value for _, value in points], label=legend[:48], color=_COLOURS[number % len(_COLOURS)], lw=1.6
        )
    highest = max((value for points in found.values() for _, value in points), default=0.0)
    if panel.line is not None and (panel.line < 20 * highest or not highest):
        highest = max(highest, panel.line)
        axes.axhline(panel.line, color="#c00000", lw=1, ls="--")
        where = axes.get_yaxis_transform()  # across in shares of the axes, up in the values
        axes.text(0.995, panel.line, "limit", color="#c00000", fontsize=7, ha="right", va="bottom", transform=where)
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.set_xlim(0, (span[1] - span[0]) / 60)
    axes.set_ylim(0, 1.4 * highest if highest > 0 else 1)  # room for the legend
    axes.set_xlabel("minutes", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if panel.unit == "percentunit":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if panel.unit == "s":
        axes.yaxis.set_major_formatter(FuncFormatter(_seconds))
    axes.legend(fontsize=7, loc="upper left", ncols=2, framealpha=0.8)


def _seconds(value: float, _place: int) -> str:
    return f"{value * 1000:g} ms" if abs(value) < 1 else f"{value:g} s"


def _series(panel: Panel, url: str, span: tuple[float, float]) -> dict[str, list[tuple[float, float]]]:
    """The lines of a panel by their legends; empty where Prometheus has nothing (no GPU, no worker that died)."""
    found: dict[str, list[tuple[float, float]]] = {}
    for legend, query in panel.queries.items():
        for result in _ask(url, query.replace("$__rate_interval", _INTERVAL), span):
            name = re.sub(r"{{(\w+)}}", lambda label: str(result["metric"].get(label[1], "")), legend)  # noqa: B023
            points = [(float(at), float(value)) for at, value in result["values"]]
            found[name.strip()] = [(at, value) for at, value in points if not math.isnan(value)]
    return {name: points for name, points in found.items() if points}


def _ask(url: str, query: str, span: tuple[float, float]) -> list[dict[str, Any]]:
    parameters: dict[str, str | float] = {"query": query, "start": span[0], "end": span[1], "step": _STEP_S}
    answer = httpx.get(f"{url}/api/v1/query_range", params=parameters, timeout=30, trust_env=False)
    answer.raise_for_status()
    results: list[dict[str, Any]] = answer.json()["data"]["result"]
    return results


if __name__ == "__main__":
    main()
