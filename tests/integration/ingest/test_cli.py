"""`likeness enrol` against a real ingest process."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest

from tests.integration.ingest.fakes import FakePeers
from tests.integration.ingest.service import IngestProcess
from tests.support.waiting import wait_until

BOUND_S = 240.0
SHARED = ["--watchlist=custody", "--owner=northshire", "--lawful-basis=pace_1984_s64a", "--captured-on=2026-02-01"]


class BulkLoad:
    """A folder of images, its manifest, and the command."""

    def __init__(self, root: Path, ingest: IngestProcess) -> None:
        self.folder = root / "images"
        self.folder.mkdir()
        self.report = root / "report.csv"
        self._root = root
        (root / "token").write_text(ingest.token())
        self._command = [sys.executable, "-m", "services.cli", "enrol", str(self.folder), *SHARED]
        self._command += [f"--token={root / 'token'}", f"--url={ingest.url}", f"--report={self.report}"]

    def write(self, images: Mapping[str, bytes], header: str = "path,subject_id", more: str = "") -> None:
        lines = [header]
        for name, content in images.items():
            (self.folder / name).write_bytes(content)
            lines.append(f"{name},NS-{name}")
        (self.folder / "manifest.csv").write_text("\n".join(lines) + "\n" + more)

    def start(self, *options: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "LIKENESS_CACHE": str(self._root / "cache"), "COLUMNS": "120"}
        return subprocess.Popen(
            [*self._command, *options],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *options: str) -> tuple[int, str]:
        process = self.start(*options)
        out, err = process.communicate(timeout=BOUND_S)
        return process.returncode, out + err

    def states(self) -> Counter[tuple[str, str]]:
        with self.report.open(newline="") as file:
            return Counter((line["state"], line["reason"]) for line in csv.DictReader(file))


@pytest.fixture
def load(ingest: IngestProcess, tmp_path: Path) -> BulkLoad:
    return BulkLoad(tmp_path, ingest)


def portraits(count: int, name: str) -> dict[str, bytes]:
    return {f"{name}-{number:03d}.jpg": b"portrait %s %d" % (name.encode(), number) for number in range(count)}


@contextmanager
def in_the_middle(load: BulkLoad, peers: FakePeers) -> Iterator[subprocess.Popen[str]]:
    """Start a load; the block runs once images of it are with embed, which has none ready before the block's end."""
    known, go_on = peers.embed.calls.total(), Event()

    def hold(_image: bytes) -> None:
        go_on.wait(BOUND_S)

    def is_begun() -> bool:
        assert process.poll() is None, process.communicate()
        return peers.embed.calls.total() > known

    peers.embed.before = hold
    process = load.start()
    try:
        wait_until(is_begun, BOUND_S, "an image to be analysed")
        yield process
    except BaseException:
        process.kill()
        raise
    finally:
        peers.embed.before = lambda _image: None
        go_on.set()


def test_a_folder_is_enrolled_and_summed_up(load: BulkLoad) -> None:
    load.write({**portraits(40, "sum"), "nobody.jpg": b"noface x", "two.jpg": b"twofaces x", "bad.jpg": b"crash x"})
    status, text = load.run()
    assert status == 0, text
    expected = {
        ("enrolled", ""): 40,
        ("refused", "no_face_found"): 1,
        ("refused", "several_faces"): 1,
        ("quarantined", "crashes_analysis"): 1,
    }
    assert load.states() == expected
    for word in ("enrolled", "no_face_found", "quarantined", "43"):
        assert word in text


def test_what_cannot_be_submitted_is_named_and_the_rest_is_done(load: BulkLoad) -> None:
    (load.folder / "made-up.jpg").write_bytes(b"portrait of nobody")
    load.write(portraits(5, "part"), more="gone.jpg,NS-1\nmade-up.jpg,SYNTHETIC-000001\n../token,NS-2\n")
    status, text = load.run()
    assert status == 1
    assert load.states() == {
        ("enrolled", ""): 5,
        ("not_submitted", "file_unreadable"): 1,
        ("not_submitted", "invalid_request"): 1,
        ("not_submitted", "path_outside_folder"): 1,
    }
    assert "not submitted" in text


def test_a_file_of_two_people_stops_the_load_before_it_begins(load: BulkLoad) -> None:
    load.write(portraits(2, "two"), more="two-001.jpg,NS-other\n")
    status, text = load.run()
    assert status == 1
    assert "line 4: two-001.jpg is NS-other, and NS-two-001.jpg in line 3" in " ".join(text.split())
    assert not load.report.exists()


def test_the_same_command_again_sends_nothing_twice(ingest: IngestProcess, load: BulkLoad) -> None:
    load.write(portraits(20, "again"))
    assert load.run()[0] == 0
    before = ingest.ledger().count()
    assert load.run()[0] == 0
    (load.report.parent / "cache").rename(load.report.parent / "lost")  # without its journal it asks the platform
    assert load.run()[0] == 0
    assert load.states() == {("enrolled", ""): 20}
    assert ingest.ledger().count() == before


def test_stopped_in_the_middle_it_goes_on(ingest: IngestProcess, peers: FakePeers, load: BulkLoad) -> None:
    load.write(portraits(200, "stop"))
    peers.audit.delay_s = 0.05
    with in_the_middle(load, peers) as process:
        process.kill()  # no chance to write anything more
        process.communicate(timeout=BOUND_S)
        assert process.returncode == -signal.SIGKILL
    peers.audit.delay_s = 0.0
    status, text = load.run()
    assert status == 0, text
    assert load.states() == {("enrolled", ""): 200}


def test_it_waits_out_a_restart(ingest: IngestProcess, peers: FakePeers, load: BulkLoad) -> None:
    load.write(portraits(300, "restart"))
    peers.audit.delay_s = 0.05
    with in_the_middle(load, peers) as process:
        ingest.kill()
    ingest.start_ready()
    out, err = process.communicate(timeout=BOUND_S)
    peers.audit.delay_s = 0.0
    assert process.returncode == 0, out + err
    assert load.states() == {("enrolled", ""): 300}


def test_no_platform_no_token_no_manifest_say_what_to_do(ingest: IngestProcess, load: BulkLoad) -> None:
    status, text = load.run()
    assert (status, "manifest" in text) == (1, True)
    load.write(portraits(2, "sad"))
    status, text = load.run("--url=http://127.0.0.1:9", "--patience=1")
    assert (status, "Start the platform" in text) == (1, True)
    status, text = load.run(f"--token={load.folder / 'none'}")
    assert (status, "likeness up" in text) == (1, True)
    load.write(portraits(2, "sad"), header="file,subject")
    status, text = load.run()
    assert (status, "no column path" in text) == (1, True)
