"""`python -m tests.console.measure [PAGE.md]`: how soon pages can be used, and how many bytes they take, in a Chromium.

107,500 references are searchable, of them a few dozen with pictures (the development faces); the request's list has 50
candidates. Times are medians of loads of a browser that has style sheet and scripts; the bytes of its first visit, and
the machine's load, are told beside them. With PAGE.md the table between the marks of that page is written anew.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, sync_playwright

from services.rpc.clients import LedgerClient
from services.rpc.v1 import common_pb2, ingest_pb2
from tests.console.screenshots import prepare_request
from tests.console.stage import Person
from tests.console.test_run import record_training
from tests.stack.servers.base import program
from tests.support.casework import enrol
from tests.support.faces import development_faces
from tests.support.platform import Platform

REFERENCES = 107_500
WITH_PICTURES = 60
ROUNDS = 9
BEGIN, END = "<!-- measured -->", "<!-- end of what was measured -->"
SETTINGS = {"LIKENESS_REVIEW__MIN_VIEW_S": "0"}
_TIMES = """() => {
  const [page] = performance.getEntriesByType("navigation");
  const [mark] = performance.getEntriesByName("likeness-ready");
  return {tools_ready_ms: mark ? mark.startTime : page.domContentLoadedEventEnd,
          first_byte_ms: page.responseStart, interactive_ms: page.domInteractive, loaded_ms: page.loadEventEnd};
}"""


@dataclass
class Meter:
    """Counts what a page takes from the network."""

    page: Page
    sent_bytes: int = 0
    requests: int = 0

    def __post_init__(self) -> None:
        self._session = self.page.context.new_cdp_session(self.page)
        self._session.send("Network.enable")
        self._session.on("Network.loadingFinished", self._note)

    def empty_cache(self) -> None:
        """As at a first visit: style sheet and scripts come over the network once more."""
        self._session.send("Network.clearBrowserCache")

    def _note(self, event: Mapping[str, float]) -> None:
        self.sent_bytes += int(event["encodedDataLength"])
        self.requests += 1

    def load(self, url: str, ready: str) -> dict[str, float]:
        """One load until `ready` is there."""
        self.sent_bytes = self.requests = 0
        self.page.goto(url, wait_until="load")
        self.page.wait_for_selector(ready)
        settle(self.page)
        times: dict[str, float] = self.page.evaluate(_TIMES)
        return {**times, "bytes": self.sent_bytes, "requests": self.requests}


def settle(page: Page) -> None:
    """Until every picture has come or failed, and what scripts ask for then has had its time."""
    page.wait_for_function("[...document.images].every((image) => image.complete || image.loading === 'lazy')")
    page.wait_for_timeout(700)


def _fill(platform: Platform) -> None:
    with platform.channel("ingest") as channel:
        LedgerClient(channel).fill_synthetic(
            ingest_pb2.FillSyntheticRequest(
                watchlist_id="custody",
                owner="northshire",
                until_count=REFERENCES,
                seed=7,
                actor=common_pb2.Actor(person_id="measure", force="northshire", roles=["administrator"]),
            )
        )


def _measure(platform: Platform, operator: Person, request: str) -> dict[str, dict[str, float]]:
    meter = Meter(operator.page)
    pages = {
        "queue": ("/console/queue", "h1"),
        "request": (request, "h1"),
        "probe": (f"{request}/probe", "h1"),
        "candidates, 50 in the list": (
            f"{request}/compare/{_with_picture(operator, request)}",
            "[data-bench][data-ready=yes]",
        ),
    }
    figures = {}
    for name, (path, ready) in pages.items():
        url = platform.url("review", path)
        meter.empty_cache()
        first = meter.load(url, ready)
        rounds = [meter.load(url, ready) for _ in range(ROUNDS)]
        figures[name] = {key: round(median(one[key] for one in rounds), 1) for key in rounds[0]}
        figures[name]["first visit, bytes"] = first["bytes"]
    return figures


def _with_picture(operator: Person, request: str) -> int:
    """A place in the list whose candidate has a picture: synthetic references have none."""
    for position in range(1, 51):
        operator.open(f"{request}/compare/{position}")
        settle(operator.page)
        if operator.page.evaluate("document.querySelector('[data-image-candidate]').naturalWidth > 0"):
            return position
    raise AssertionError("no candidate of the list has a picture")


def run(platform: Platform) -> dict[str, dict[str, float]]:
    pairs = development_faces().mated_pairs()
    for still, _ in pairs[:WITH_PICTURES]:
        enrol(platform, still.path, still.identity)
    _fill(platform)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium", "chromium"), args=["--no-sandbox"])
        officer = Person.enter(browser, platform, "requester", "officer-2217")
        supervisor = Person.enter(browser, platform, "supervisor", "supervisor-1")
        operator = Person.enter(browser, platform, "operator", "operator-1")
        record_training(supervisor, "operator-1")
        request = prepare_request(officer, operator, pairs[0][1].path, "NS/2026/004711")
        operator.page.fill("#max_candidates", "50")
        operator.page.locator("form[action$=search] button").click()
        operator.page.wait_for_selector("text=Searched.")
        operator.open(request)
        operator.press("Begin the first review")
        figures = _measure(platform, operator, request)
        browser.close()
    return figures


def table_of(figures: Mapping[str, Mapping[str, float]], load: float, cores: int) -> str:
    """What stands between the marks of the page."""
    rows = [
        f"| {name} | {one['first_byte_ms']:.0f} ms | {one['tools_ready_ms']:.0f} ms | {one['loaded_ms']:.0f} ms"
        f" | {one['bytes'] / 1000:.0f} kB | {one['first visit, bytes'] / 1000:.0f} kB |"
        for name, one in figures.items()
    ]
    return "\n".join(
        (
            f"Medians of {ROUNDS} loads on {cores} cores, load average {load:.1f}:",
            "",
            "| page | first byte | can be used | loaded with pictures | bytes | bytes at the first visit |",
            "|---|---|---|---|---|---|",
            *rows,
        )
    )


def write(page: Path, table: str) -> None:
    """Put the table between the marks. Raises ValueError where they are not."""
    text = page.read_text("utf-8")
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", "utf-8")


def main() -> int:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as root, Platform(Path(root), settings=SETTINGS) as platform:
        figures = run(platform)
    print(json.dumps({"load_before": load, "load": os.getloadavg()[0], "pages": figures}, indent=1))
    if len(sys.argv) > 1:
        write(Path(sys.argv[1]), table_of(figures, load, os.cpu_count() or 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
