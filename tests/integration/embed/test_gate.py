"""The image gate on real processes: it decodes, refuses, and outlives whatever happens to its workers."""

from __future__ import annotations

import csv
import io
import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event, Semaphore, Thread
from time import monotonic

import numpy as np
import pillow_heif
import psutil
import pytest
from PIL import Image

from services.embed.gate.pool import DecodedLease, GatePool, checked_answer
from services.embed.gate.process import GateWorker, started_worker
from services.embed.settings import GateSettings
from services.shared.errors import IMAGE_REFUSALS, ImageRefused, Overloaded
from services.shared.telemetry import Metrics
from tests.support.promises import within
from tests.support.waiting import wait_until

IN_TIME_S = 120.0


def _picture(name: str, size: tuple[int, int] = (64, 48), colour: str = "red", mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, name)
    return stream.getvalue()


def _slow_picture() -> bytes:
    """Some tenths of a second of decoding."""
    stream = io.BytesIO()
    Image.effect_noise((5000, 5000), 90).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _code(pool: GatePool, data: bytes) -> str:
    with pytest.raises(ImageRefused) as caught, pool.decoded(data, monotonic() + IN_TIME_S):
        pass
    assert caught.value.advice
    return caught.value.code


def _first_pixel(lease: DecodedLease) -> list[int]:
    return list(lease.arena.pixel_view()[:3])


@contextmanager
def _pool(metrics: Metrics, **settings: object) -> Iterator[GatePool]:
    pool = GatePool(GateSettings.model_validate({"workers": 1, **settings}), metrics)
    pool.start()
    try:
        yield pool
    finally:
        pool.close()


def test_pixels_arrive_in_shared_memory(gate: GatePool) -> None:
    for name in ("PNG", "BMP", "TIFF"):
        with gate.decoded(_picture(name), monotonic() + IN_TIME_S) as lease:
            assert (lease.image.format, *lease.image.upright_size) == (name, 64, 48)
            assert _first_pixel(lease) == [0, 0, 255]


def test_a_heic_picture_of_an_ordinary_size_is_decoded(gate: GatePool) -> None:
    """Its decoder starts a thread, which small pictures do without."""
    stream = io.BytesIO()
    noise = np.random.default_rng(4).integers(0, 255, (150, 200, 3), np.uint8)
    pillow_heif.from_pillow(Image.fromarray(noise).resize((1600, 1200))).save(stream)
    with gate.decoded(stream.getvalue(), monotonic() + IN_TIME_S) as lease:
        assert (lease.image.format, *lease.image.upright_size) == ("HEIF", 1600, 1200)


def test_pixels_stay_while_the_worker_decodes_the_next_image(metrics: Metrics) -> None:
    with _pool(metrics) as pool, pool.decoded(_picture("PNG"), monotonic() + IN_TIME_S) as first:
        with pool.decoded(_picture("PNG", colour="blue"), monotonic() + IN_TIME_S) as second:
            assert _first_pixel(second) == [255, 0, 0]
            with pool.decoded(_picture("PNG", colour="lime"), monotonic() + IN_TIME_S) as third:
                assert _first_pixel(third) == [0, 255, 0]
                with pytest.raises(Overloaded), pool.decoded(_picture("PNG"), monotonic() + 0.1):
                    pass
        assert _first_pixel(first) == [0, 0, 255]


def test_many_threads_each_get_their_own_picture(gate: GatePool) -> None:
    def colour_of(index: int) -> bool:
        shade = (index * 7) % 256
        stream = io.BytesIO()
        Image.new("RGB", (200, 100), (shade, 0, 255 - shade)).save(stream, "PNG")
        with gate.decoded(stream.getvalue(), monotonic() + IN_TIME_S) as lease:
            pixels = np.frombuffer(lease.arena.pixel_view(), np.uint8, 200 * 100 * 3).reshape(-1, 3)
            return bool((pixels == [255 - shade, 0, shade]).all())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(colour_of, range(200)))
    assert (gate.busy, *gate.waiting) == (0, 0, 0)


def test_every_refusal_has_its_reason(metrics: Metrics) -> None:
    with _pool(metrics, max_bytes=100_000, max_pixels=10_000) as pool:
        assert _code(pool, b"") == "image_empty"
        assert _code(pool, b"<svg/>") == "image_format_not_allowed"
        assert _code(pool, _picture("JPEG")[:-20]) == "image_undecodable"
        assert _code(pool, _picture("PNG", (101, 100))) == "image_too_many_pixels"
        assert _code(pool, _picture("JPEG", (101, 100))) == "image_too_many_pixels"
        assert _code(pool, _picture("BMP", (200, 200))) == "image_too_large"


def test_a_picture_that_takes_too_long_ends_its_worker_alone(metrics: Metrics) -> None:
    with _pool(metrics, cpu_s=0.1, wall_s=120) as pool:
        before = pool.process_ids
        assert _code(pool, _slow_picture()) == "image_decode_too_slow"
        with pool.decoded(_picture("PNG"), monotonic() + IN_TIME_S) as lease:
            assert _first_pixel(lease) == [0, 0, 255]
        assert pool.process_ids != before
    assert metrics.embed_worker_restarts_total.labels("gate")._value.get() == 1


@pytest.fixture
def _impatient_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the first worker is short; those after it have all the time that a busy machine makes them need."""
    walls = [1.0]

    def start(settings: GateSettings) -> GateWorker:
        return started_worker(settings.model_copy(update={"wall_s": walls.pop() if walls else IN_TIME_S}))

    monkeypatch.setattr("services.embed.gate.pool.started_worker", start)


@pytest.mark.usefixtures("_impatient_at_first")
def test_a_worker_that_waits_for_ever_is_ended_by_the_clock(metrics: Metrics) -> None:
    with _pool(metrics) as pool:
        os.kill(pool.process_ids[0], signal.SIGSTOP)
        assert _code(pool, _picture("PNG")) == "image_decode_too_slow"
        with pool.decoded(_picture("PNG"), monotonic() + IN_TIME_S):
            pass


def test_a_picture_that_needs_too_much_memory_is_refused(metrics: Metrics) -> None:
    arena_bytes = 33 * 2**20 + 150_000_000
    with _pool(metrics, memory_bytes=arena_bytes + 200 * 2**20) as pool:
        before = pool.process_ids
        assert _code(pool, _picture("PNG", (7000, 7000), mode="RGBA")) == "image_decode_too_much_memory"
        assert pool.process_ids == before, "the worker lives on"


def test_an_image_whose_worker_was_killed_is_tried_once_more(metrics: Metrics) -> None:
    with _pool(metrics) as pool:
        os.kill(pool.process_ids[0], signal.SIGKILL)
        with pool.decoded(_picture("PNG"), monotonic() + IN_TIME_S) as lease:
            assert _first_pixel(lease) == [0, 0, 255]


def test_an_image_that_ends_two_workers_is_refused(metrics: Metrics) -> None:
    """Stands for a decoder's crash: every worker is killed while it decodes."""
    picture = _slow_picture()
    with _pool(metrics) as pool:
        killed: list[int] = []
        is_over = Event()

        def kill_whoever_decodes() -> None:
            while not is_over.is_set():
                for pid in set(pool.process_ids) - set(killed):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGSEGV)
                    killed.append(pid)

        killer = Thread(target=kill_whoever_decodes, daemon=True)
        killer.start()
        try:
            wait_until(lambda: _is_refused(pool, picture), IN_TIME_S, "a picture whose decoders are killed in time")
        finally:
            is_over.set()
            killer.join(IN_TIME_S)
        wait_until(lambda: bool(set(pool.process_ids) - set(killed)), IN_TIME_S, "a new worker")


def test_only_the_picture_that_is_decoded_is_blamed(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker but the last stands still from its start and is killed: the first picture sees two die and is
    refused; the one that waited behind it has seen one of them and then one of its own, and is decoded."""
    may_start, stopped = Semaphore(1), list[int]()

    def stopped_start(settings: GateSettings) -> GateWorker:
        assert may_start.acquire(timeout=IN_TIME_S)
        worker = started_worker(settings)
        if len(stopped) < 3:
            os.kill(worker.process_id, signal.SIGSTOP)
            stopped.append(worker.process_id)
        return worker

    def end_worker_of(waiting: int) -> None:
        """End the last one while so many pictures have to be placed anew, and then let another start."""
        os.kill(stopped[-1], signal.SIGKILL)
        wait_until(lambda: pool.waiting == (waiting, 0), IN_TIME_S, f"{waiting} without a place")
        may_start.release()

    monkeypatch.setattr("services.embed.gate.pool.started_worker", stopped_start)
    with _pool(metrics, wall_s=600) as pool, ThreadPoolExecutor(2) as threads:
        bad = threads.submit(_code, pool, _picture("PNG"))
        wait_until(lambda: pool.busy == 1, IN_TIME_S, "the first to be at the worker")
        good = threads.submit(_colour, pool, _picture("PNG", colour="blue"))
        wait_until(lambda: pool.waiting == (0, 1), IN_TIME_S, "the second to wait behind it")
        end_worker_of(2)
        wait_until(lambda: pool.busy == 1, IN_TIME_S, "the first to be tried again")
        assert pool.waiting == (1, 0), "and nobody behind it"
        end_worker_of(1)
        assert bad.result(IN_TIME_S) == "image_decoder_crashed"
        wait_until(lambda: pool.busy == 1, IN_TIME_S, "the second to be at a worker")
        end_worker_of(1)
        assert good.result(IN_TIME_S) == [255, 0, 0]
    assert metrics.embed_worker_restarts_total.labels("gate")._value.get() == 3


@pytest.mark.usefixtures("_impatient_at_first")
def test_a_picture_behind_one_that_takes_too_long_is_decoded(metrics: Metrics) -> None:
    """Its own time begins when its own decoding does."""
    with _pool(metrics) as pool, ThreadPoolExecutor(2) as threads:
        os.kill(pool.process_ids[0], signal.SIGSTOP)
        slow = threads.submit(_code, pool, _picture("PNG"))
        wait_until(lambda: pool.busy == 1 or slow.done(), IN_TIME_S, "the slow one to be at the worker")
        good = threads.submit(_colour, pool, _picture("PNG", colour="blue"))
        assert slow.result(IN_TIME_S) == "image_decode_too_slow"
        assert good.result(IN_TIME_S) == [255, 0, 0]
    assert metrics.embed_worker_restarts_total.labels("gate")._value.get() == 1


def _colour(pool: GatePool, picture: bytes) -> list[int]:
    with pool.decoded(picture, monotonic() + IN_TIME_S) as lease:
        return _first_pixel(lease)


def _is_refused(pool: GatePool, picture: bytes) -> bool:
    """False where a busy machine let it be decoded before the killer came."""
    try:
        with pool.decoded(picture, monotonic() + IN_TIME_S):
            return False
    except ImageRefused as refused:
        assert refused.code == "image_decoder_crashed"
        return True


def test_workers_are_relieved_after_so_many_images(metrics: Metrics) -> None:
    """A worn worker goes on until its successor is ready: nobody waits for a start."""
    with _pool(metrics, recycle_after_images=3) as pool:
        seen: list[int] = []

        def has_seen_three() -> bool:
            [process_id] = pool.process_ids
            if process_id not in seen:
                seen.append(process_id)
            with pool.decoded(_picture("PNG"), monotonic() + IN_TIME_S) as lease:
                assert _first_pixel(lease) == [0, 0, 255]
            return len(seen) == 3

        wait_until(has_seen_three, IN_TIME_S, "two workers that relieved one another")
        wait_until(lambda: not any(map(psutil.pid_exists, seen[:2])), IN_TIME_S, "the end of those relieved")


def test_a_worn_worker_that_dies_before_it_is_relieved_is_replaced_once(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_start, started = Event(), list[int]()

    def slow_start(settings: GateSettings) -> GateWorker:
        assert may_start.wait(IN_TIME_S)
        worker = started_worker(settings)
        started.append(worker.process_id)
        return worker

    with _pool(metrics, recycle_after_images=1) as pool:
        monkeypatch.setattr("services.embed.gate.pool.started_worker", slow_start)
        [worn] = pool.process_ids
        _enter(pool)
        os.kill(worn, signal.SIGKILL)
        with ThreadPoolExecutor(1) as threads:
            caller = threads.submit(_enter, pool)
            wait_until(lambda: pool.process_ids == [], IN_TIME_S, "the death to be seen")
            may_start.set()
            assert caller.exception(IN_TIME_S) is None
        wait_until(lambda: len(started) == 3, IN_TIME_S, "every start to have ended")
        wait_until(
            lambda: [pid for pid in started if psutil.pid_exists(pid)] == pool.process_ids, IN_TIME_S, "one left"
        )


def test_a_worker_has_no_secrets_no_files_and_no_connections(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, metrics: Metrics
) -> None:
    monkeypatch.setenv("LIKENESS_SECRET_OF_THE_SERVICE", "hidden")
    with (tmp_path / "open").open("w") as opened, _pool(metrics) as pool:
        os.set_inheritable(opened.fileno(), True)
        worker = psutil.Process(pool.process_ids[0])
        assert "LIKENESS_SECRET_OF_THE_SERVICE" not in worker.environ()
        assert "PATH" not in worker.environ()
        targets = {str(path.readlink()) for path in Path(f"/proc/{worker.pid}/fd").iterdir()}
        assert {target.split(":")[0].split(" ")[0] for target in targets} == {"/dev/null", "socket", "/memfd"}
        limits = Path(f"/proc/{worker.pid}/limits").read_text()
        # The filter of system calls bars new processes (test_confinement.py), or a limit where there is none.
        assert pool.is_confined or "Max processes             0 " in limits
        for name in ("Max file size", "Max core file size"):
            line = next(line for line in limits.splitlines() if line.startswith(name))
            assert line.removeprefix(name).split()[:2] == ["0", "0"]
        limit = next(line for line in limits.splitlines() if line.startswith("Max open files"))
        highest = max(int(path.name) for path in Path(f"/proc/{worker.pid}/fd").iterdir())
        assert int(limit.split()[3]) <= highest + 1


def test_closing_ends_every_process_and_every_caller(metrics: Metrics) -> None:
    with _pool(metrics) as pool:
        processes = pool.process_ids
        os.kill(processes[0], signal.SIGSTOP)
        with ThreadPoolExecutor(4) as threads:
            callers = [threads.submit(_enter, pool) for _ in range(4)]
            wait_until(lambda: (pool.busy, *pool.waiting) == (1, 2, 1), IN_TIME_S, "one at each place, two without")
            pool.close()
            assert [type(caller.exception(IN_TIME_S)) for caller in callers] == [Overloaded] * 4
        assert not any(psutil.pid_exists(pid) for pid in processes)


def _enter(pool: GatePool) -> None:
    with pool.decoded(_picture("PNG"), monotonic() + IN_TIME_S):
        pass


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 8000, "height": 8000},
        {"width": 0},
        {"width": True},
        {"height": "64"},
        {"orientation": 9},
        {"frames": None},
        {"format": "SVG"},
        {"refused": "no_such_reason"},
        {"ms": "fast"},
    ],
)
def test_a_worker_is_not_believed_when_it_talks_nonsense(changes: dict[str, object]) -> None:
    answer: dict[str, object] = {"format": "PNG", "width": 64, "height": 48, "orientation": 1, "frames": 1, "ms": 1.0}
    assert checked_answer(answer, 50_000_000)[0].upright_size == (64, 48)
    with pytest.raises(ImageRefused) as caught:
        checked_answer({**answer, **changes}, 50_000_000)
    assert caught.value.code == "image_decoder_crashed"


def test_hostile_files_meet_their_expectation(gate: GatePool, hostile: Path) -> None:
    """Every still of the development set: decoded or refused as its label says, in time, with workers left."""
    with (hostile / "manifest.csv").open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if not row["kind"].startswith(("video", "strings"))]
    random.Random(1).shuffle(rows)

    def outcome(row: dict[str, str]) -> tuple[str, float]:
        started = monotonic()
        try:
            with gate.decoded((hostile / row["path"]).read_bytes(), monotonic() + IN_TIME_S):
                return "decode", monotonic() - started
        except ImageRefused as refusal:
            assert refusal.code in IMAGE_REFUSALS
            return "reject", monotonic() - started

    with ThreadPoolExecutor(2) as threads:
        outcomes = list(threads.map(outcome, rows))
    wrong = [
        (row["path"], row["expected"], found)
        for row, (found, _) in zip(rows, outcomes, strict=True)
        if row["expected"] != "either" and row["expected"] != found
    ]
    assert wrong == []

    def both_workers() -> None:
        wait_until(lambda: len(gate.process_ids) == 2, IN_TIME_S, "both workers")

    for row, (_, seconds) in zip(rows, outcomes, strict=True):
        if seconds >= 10:  # as a busy machine makes it now and then, not least by starting workers again slowly
            within(10, partial(outcome, row), before=both_workers)
    both_workers()
