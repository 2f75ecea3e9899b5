"""Films through the real worker process, its limits and the real inference queue; the networks are a stand-in."""

from __future__ import annotations

import csv
import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from services.embed.film.analyse import AnalyseFilm
from services.embed.workers.inference_pool import InferencePool
from services.rpc.v1 import films_pb2
from services.shared.biometric import ModelProvenance
from services.shared.errors import FILM_REFUSALS, FilmRefused, IntegrityError, Overloaded
from tests.integration.film.conftest import reader
from tests.support.films import grey_picture, make_film, number_of

Inference = tuple[InferencePool, ModelProvenance]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventy seconds of two frames a second, key frames every four seconds."""
    path = tmp_path_factory.mktemp("films") / "film.mkv"
    return make_film(path, (grey_picture(n % 40) for n in range(140)), fps=2, key_every=8)


def faces(analyse: AnalyseFilm, content: bytes, first_segment: int = 0) -> Iterator[films_pb2.FilmEvent]:
    with analyse.spooled([content], hashlib.sha256(content).hexdigest(), len(content)) as spooled:
        yield from analyse.faces(spooled, first_segment, lambda: True)


def test_a_film_is_described_and_read_segment_by_segment(inference: Inference, film: Path) -> None:
    first, *rest = list(faces(reader(inference), film.read_bytes()))
    found = first.description
    assert (found.container, found.codec, found.width, found.height) == ("matroska", "h264", 96, 64)
    assert (found.frame_count, found.key_frame_count, found.segment_count) == (140, 18, len(rest))
    assert found.model.model_id == inference[1].model_id
    assert [event.segment.number for event in rest] == list(range(len(rest)))
    frames = [frame for event in rest for frame in event.segment.frames]
    assert [frame.number for frame in frames] == sorted({frame.number for frame in frames})
    assert all(frame.faces[0].HasField("template") for frame in frames)
    # The stand-in sees a face in every frame, so every frame up to five a second was followed.
    assert len(frames) == 140
    assert frames[9].time_s == pytest.approx(9 / 2, abs=0.01)


@pytest.mark.long
def test_reading_goes_on_from_any_segment_with_the_same_faces(inference: Inference, film: Path) -> None:
    analyse, content = reader(inference), film.read_bytes()
    whole = [event.segment for event in faces(analyse, content) if event.HasField("segment")]
    rest = [event.segment for event in faces(analyse, content, 2) if event.HasField("segment")]
    assert rest == whole[2:]


def test_stills_are_the_frames_asked_for_and_their_chips_are_jpeg(inference: Inference, film: Path) -> None:
    analyse, content = reader(inference), film.read_bytes()
    segments = [event.segment for event in faces(analyse, content) if event.HasField("segment")]
    frames = [segments[part].frames[at] for part in (0, 1, 2) for at in (0, 3, 4)]
    wishes = [films_pb2.StillWish(pts=frame.pts, with_picture=frame is not frames[-1]) for frame in frames]
    with analyse.spooled([content], hashlib.sha256(content).hexdigest(), len(content)) as spooled:
        stills = [event.still for event in analyse.stills(spooled, wishes, lambda: True) if event.HasField("still")]
    assert [still.frame for still in stills] == frames
    assert stills[-1].png == b""
    for still in stills[:-1]:
        picture = cv2.imdecode(np.frombuffer(still.png, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape == (64, 96, 3)
        assert number_of(picture) == still.frame.number % 40  # type: ignore[arg-type]
        assert [chip[:2] for chip in still.chips] == [b"\xff\xd8"]


def test_what_comes_otherwise_than_announced_is_refused(inference: Inference, film: Path) -> None:
    analyse, content = reader(inference), film.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    for came, announced, size in (
        ([content[:-1]], digest, len(content)),
        ([content, b"more"], digest, len(content)),
        ([content], "0" * 64, len(content)),
    ):
        with pytest.raises(IntegrityError), analyse.spooled(came, announced, size):
            pass
    with (
        pytest.raises(FilmRefused) as refused,
        reader(inference, max_bytes=10).spooled([content], digest, len(content)),
    ):
        pass
    assert refused.value.code == "film_too_large"


def test_one_film_more_than_allowed_is_told_to_come_again(inference: Inference) -> None:
    analyse = reader(inference, max_running=1)
    with analyse.admitted(), pytest.raises(Overloaded), analyse.admitted():
        pass
    with analyse.admitted():
        pass


def test_a_film_that_is_wanted_no_more_is_left_at_once(inference: Inference, film: Path) -> None:
    analyse, content = reader(inference), film.read_bytes()
    wanted = iter([True, True, *[False] * 1000])
    with analyse.spooled([content], hashlib.sha256(content).hexdigest(), len(content)) as spooled:
        events = list(analyse.faces(spooled, 0, lambda: next(wanted)))
    assert len(events) <= 2
    assert not _workers()


def test_a_step_that_takes_too_long_is_ended_by_the_kernel(inference: Inference, film: Path) -> None:
    with pytest.raises(FilmRefused) as refused:
        list(faces(reader(inference, index_cpu_s=0.000_001), film.read_bytes()))
    assert refused.value.code == "film_decode_too_slow"
    assert not _workers()


def test_a_killed_worker_costs_nothing(inference: Inference, film: Path) -> None:
    whole = [event.segment for event in faces(reader(inference), film.read_bytes()) if event.HasField("segment")]
    events = faces(reader(inference), film.read_bytes())
    next(events)
    first = next(events).segment
    (worker,) = _workers()
    os.kill(worker, signal.SIGKILL)
    assert [first, *(event.segment for event in events)] == whole


@pytest.mark.long
def test_a_segment_that_ends_its_worker_is_named_and_the_others_are_read(inference: Inference, tmp_path: Path) -> None:
    # Large frames: the processor's clock ticks every few milliseconds, and a small one is decoded between two ticks.
    pictures = (grey_picture(number, 1920, 1080) for number in range(140))
    film = make_film(tmp_path / "large.mkv", pictures, fps=2, key_every=20)
    events = faces(reader(inference, frame_cpu_s=0.000_001), film.read_bytes())
    description = next(events).description
    segments = [event.segment for event in events]
    assert len(segments) == description.segment_count > 1
    assert {"film_decode_too_slow"} <= {segment.problem for segment in segments} <= {"film_decode_too_slow", ""}


def test_the_worker_has_no_means_beside_its_film(inference: Inference, film: Path) -> None:
    events = faces(reader(inference), film.read_bytes())
    next(events)
    (worker,) = _workers()
    limits = Path(f"/proc/{worker}/limits").read_text("ascii")
    held = {name: line.split()[-3] for line in limits.splitlines() for name in _LIMITED if line.startswith(name)}
    opened = max(int(path.name) for path in Path(f"/proc/{worker}/fd").iterdir())
    assert int(held["Max open files"]) <= opened + 1
    assert (held["Max processes"], held["Max file size"], held["Max core file size"]) == ("0", "0", "0")
    assert Path(f"/proc/{worker}/environ").read_bytes().count(b"\0") <= 4
    assert not psutil.Process(worker).net_connections("inet")
    events.close()  # type: ignore[attr-defined]
    assert not _workers()


@pytest.mark.long
def test_hostile_films_do_what_is_expected_of_them(inference: Inference, hostile: Path) -> None:
    """`decode` is read, `reject` is refused by name or found to hold nothing that decodes, and nothing crashes."""
    analyse = reader(inference)
    outcomes: dict[str, str] = {}
    with (hostile / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["kind"].startswith("video_")]
    for row in rows:
        content = (hostile / row["path"]).read_bytes()
        try:
            with analyse.spooled([content], hashlib.sha256(content).hexdigest(), len(content)) as spooled:
                list(analyse.describe(spooled))
            outcomes[row["path"]] = "decode"
        except FilmRefused as refused:
            assert refused.code in FILM_REFUSALS
            assert refused.code != "film_decoder_crashed", row["path"]
            outcomes[row["path"]] = "reject"
    unmet = {
        row["path"]
        for row in rows
        if row["expected"] in {"decode", "reject"} and outcomes[row["path"]] != row["expected"]
    }
    # Cut short or damaged in front, and still with frames that decode: these are read, and the film says so.
    assert unmet <= {"video_broken/faststart_cut_40.mp4", "video_broken/mdat_head_wiped.mp4"}
    content = (hostile / "video_broken/mdat_head_wiped.mp4").read_bytes()
    _, first = faces(analyse, content)
    assert first.segment.problem == "frames_damaged"
    assert len(rows) >= 70
    assert not _workers()


_LIMITED = ("Max open files", "Max processes", "Max file size", "Max core file size")


def _workers() -> list[int]:
    """Film workers of this process that live."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "services.embed.film.worker" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found
