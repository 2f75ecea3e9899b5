"""`python -m services.embed` as a caller sees it."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import grpc
import httpx
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from services.local.deployment import free_ports
from services.rpc.clients import EmbedClient, open_channel
from services.rpc.v1 import embed_pb2
from services.shared.biometric import ImageAnalysis
from services.shared.errors import DependencyUnavailable, ImageRefused, InvalidRequest, LikenessError, Overloaded
from services.shared.packages import cache_folder
from tests.support.channels import ready_channel
from tests.support.processes import has_ended
from tests.support.waiting import wait_until

ALL, SOLE, LARGEST = embed_pb2.AnalyseRequest.ALL, embed_pb2.AnalyseRequest.SOLE, embed_pb2.AnalyseRequest.LARGEST
BY_INDEX, NONE = embed_pb2.AnalyseRequest.BY_INDEX, embed_pb2.AnalyseRequest.NONE
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
IN_TIME_S = 120.0
START_S = 180.0  # other tests start services at the same time


@dataclass(frozen=True)
class Running:
    """A service process and a client of it."""

    process: subprocess.Popen[bytes]
    client: EmbedClient
    log: Path
    http: str
    grpc: str

    def workers(self, kind: str) -> list[psutil.Process]:
        return [child for child in psutil.Process(self.process.pid).children() if _is_a(kind, child)]

    def is_ready(self) -> bool:
        status = self.process.poll()
        assert status is None, f"embed ended with {status}: {self.log.read_text('utf-8', 'replace')[-4000:]}"
        try:
            return httpx.get(f"{self.http}/readyz", timeout=10).status_code == 200
        except httpx.HTTPError:
            return False


def _is_a(kind: str, process: psutil.Process) -> bool:
    """Whether it runs such a worker; one that ends at this moment does not."""
    try:
        return any(kind in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


class HealthTold:
    """Everything that gRPC health says, in order, however short it lasts. A context manager."""

    def __init__(self, address: str) -> None:
        self.statuses: list[int] = []
        self._channel = ready_channel(address)

    def __enter__(self) -> HealthTold:
        request = health_pb2.HealthCheckRequest(service="likeness.v1.Embed")
        self._told = health_pb2_grpc.HealthStub(self._channel).Watch(request)
        Thread(target=self._listen, name="health-told", daemon=True).start()
        wait_until(lambda: self.statuses[-1:] == [SERVING], IN_TIME_S, "health to say that it serves")
        del self.statuses[:-1]
        return self

    def __exit__(self, *_error: object) -> None:
        self._told.cancel()
        self._channel.close()

    def wait_for(self, *statuses: int) -> None:
        """Until they are what has been said."""
        wait_until(lambda: self.statuses == list(statuses), IN_TIME_S, lambda: f"{statuses}, have {self.statuses}")

    def _listen(self) -> None:
        with suppress(grpc.RpcError):  # cancelled, or the service has ended
            for answer in self._told:
                if self.statuses[-1:] != [answer.status]:
                    self.statuses.append(answer.status)


def _start(log: Path, **settings: str) -> Running:
    ports = free_ports()["embed"]
    variables = {f"LIKENESS_EMBED__{name}": value for name, value in settings.items()}
    variables |= {"LIKENESS_EMBED__HTTP_PORT": str(ports.http), "LIKENESS_EMBED__GRPC_PORT": str(ports.grpc)}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.embed"], env={**os.environ, **variables}, stderr=stream
        )
    address = f"127.0.0.1:{ports.grpc}"
    return Running(process, EmbedClient(open_channel(address)), log, f"http://127.0.0.1:{ports.http}", address)


def _stop(running: Running) -> None:
    running.process.terminate()
    try:
        running.process.wait(IN_TIME_S)
    finally:
        running.process.kill()


@pytest.fixture(scope="module")
def embed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = _start(tmp_path_factory.mktemp("embed") / "log", MAX_PENDING="6")
    try:
        wait_until(running.is_ready, START_S, "embed to be ready")
        yield running
    finally:
        _stop(running)


def _beside(*files: bytes) -> bytes:
    """Pictures next to each other in one file."""
    pictures = [Image.open(io.BytesIO(data)).convert("RGB").resize((400, 500)) for data in files]
    row = Image.new("RGB", (400 * len(pictures), 500))
    for index, picture in enumerate(pictures):
        row.paste(picture, (400 * index, 0))
    stream = io.BytesIO()
    row.save(stream, "PNG")
    return stream.getvalue()


def test_faces_templates_and_where_they_come_from(embed: Running, portrait_files: list[bytes]) -> None:
    analysis = embed.client.analyse(portrait_files[1], SOLE)
    (face,) = analysis.faces
    assert face.template is not None
    assert np.linalg.norm(face.template.vector) == pytest.approx(1, abs=1e-5)
    assert (face.template.dimension, face.template.model_id) == (128, analysis.model.model_id)
    assert analysis.model == embed.client.describe_model()
    assert {"gate", "detect", "template", "queue"} == set(analysis.timings_ms)
    assert face.quality.unified > 40
    assert len(face.landmarks) == 5
    assert analysis.image.decode_scale == 1


def test_the_same_person_scores_higher_than_another(embed: Running, portrait_files: list[bytes]) -> None:
    first, again, other = (_vector(embed.client.analyse(portrait_files[index], LARGEST)) for index in (1, 2, 3))
    assert first @ again > 0.5 > first @ other


def _vector(analysis: ImageAnalysis) -> np.ndarray:
    (template,) = (face.template for face in analysis.faces if face.template)
    return template.vector


def test_several_faces_come_in_reading_order_and_the_caller_picks(embed: Running, portrait_files: list[bytes]) -> None:
    group = _beside(portrait_files[1], portrait_files[1])
    everyone = embed.client.analyse(group, ALL)
    assert [face.box.x < 400 for face in everyone.faces] == [True, False]
    assert all(face.template for face in everyone.faces)
    assert not any(face.template for face in embed.client.analyse(group, SOLE).faces)
    assert not any(face.template for face in embed.client.analyse(group, NONE).faces)
    picked = embed.client.analyse(group, BY_INDEX, 1)
    assert [face.template is not None for face in picked.faces] == [False, True]
    with pytest.raises(InvalidRequest, match="no face 2"):
        embed.client.analyse(group, BY_INDEX, 2)
    with pytest.raises(InvalidRequest, match="selection"):
        embed.client.analyse(group, embed_pb2.AnalyseRequest.SELECTION_UNSPECIFIED)


def test_a_picture_without_a_face_is_an_answer_and_a_broken_one_a_refusal(embed: Running) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (300, 200), "grey").save(stream, "JPEG")
    assert embed.client.analyse(stream.getvalue(), ALL).faces == ()
    with pytest.raises(ImageRefused) as caught:
        embed.client.analyse(stream.getvalue()[:-30], ALL)
    assert caught.value.code == "image_undecodable"
    assert caught.value.advice
    with pytest.raises(ImageRefused) as caught:
        embed.client.analyse(b"GIF?", ALL)
    assert caught.value.code == "image_format_not_allowed"


def test_readiness_says_what_really_runs(embed: Running) -> None:
    ready = httpx.get(f"{embed.http}/readyz", timeout=60).json()
    model = embed.client.describe_model()
    assert ready == {
        "status": "ready",
        "model_id": model.model_id,
        "runtime": model.runtime,
        "provider": "CPUExecutionProvider",
    }
    metrics = httpx.get(f"{embed.http}/metrics", timeout=60).text
    assert f'model_id="{model.model_id}"' in metrics
    assert "likeness_embed_stage_seconds_bucket" in metrics


def test_more_calls_than_places_are_refused_at_once(embed: Running, portrait_files: list[bytes]) -> None:
    workers = embed.workers("inference_worker")
    for worker in workers:
        worker.suspend()
    try:
        with ThreadPoolExecutor(10) as threads:
            calls = [threads.submit(_seconds_to_overload, embed, portrait_files[1]) for _ in range(10)]
            wait_until(lambda: sum(call.done() for call in calls) >= 4, 30, "the calls over the limit to be refused")
            assert max(call.result() or 0.0 for call in calls if call.done()) < 1
            embed.client.describe_model()
            for worker in workers:
                worker.resume()
            assert sum(call.result(IN_TIME_S) is None for call in calls) == 6
    finally:
        for worker in workers:
            worker.resume()


def _seconds_to_overload(embed: Running, data: bytes) -> float | None:
    """None when the call succeeds."""
    started = time.monotonic()
    try:
        embed.client.analyse(data, NONE, timeout_s=IN_TIME_S)
    except Overloaded:
        return time.monotonic() - started
    return None


def test_callers_are_answered_while_workers_are_killed(embed: Running, portrait_files: list[bytes]) -> None:
    """Every call ends with an answer or one of our errors; afterwards the service is as before."""
    outcomes: list[str] = []

    def call() -> None:
        for _ in range(15):
            try:
                embed.client.analyse(portrait_files[1], LARGEST, timeout_s=IN_TIME_S)
                outcomes.append("answered")
            except LikenessError as error:
                outcomes.append(error.code)

    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(call) for _ in range(4)]
        for kind in ("gate.worker", "inference_worker", "gate.worker"):
            time.sleep(0.3)
            for worker in embed.workers(kind)[:1]:
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
        for finished in calls:
            finished.result(2 * IN_TIME_S)
    assert len(outcomes) == 60
    assert set(outcomes) <= {"answered", "image_decoder_crashed"}
    assert outcomes.count("answered") >= 58
    wait_until(lambda: len(embed.workers("inference_worker")) == len(os.sched_getaffinity(0)), IN_TIME_S, "workers")
    assert embed.client.analyse(portrait_files[1], LARGEST).faces


def test_health_tells_the_truth_and_stopping_ends_every_process(tmp_path: Path, portrait_files: list[bytes]) -> None:
    running = _start(tmp_path / "log", GATE__WORKERS="1", INFERENCE__WORKERS="1")
    try:
        wait_until(running.is_ready, START_S, "embed to be ready")
        running.client.analyse(portrait_files[1], LARGEST)
        (worker,) = running.workers("inference_worker")
        with HealthTold(running.grpc) as told:
            worker.kill()
            told.wait_for(SERVING, NOT_SERVING, SERVING)
        wait_until(running.is_ready, IN_TIME_S, "embed to be ready again")
        children = psutil.Process(running.process.pid).children(recursive=True)
        assert len(children) == 2
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(IN_TIME_S) in {0, -signal.SIGTERM}
        gone, alive = psutil.wait_procs(children, timeout=IN_TIME_S)
        assert len(gone) == 2, alive
        with pytest.raises(DependencyUnavailable):
            running.client.describe_model(timeout_s=0.5)
    finally:
        _stop(running)


def test_workers_end_with_a_service_that_is_killed(tmp_path: Path) -> None:
    running = _start(tmp_path / "log", GATE__WORKERS="1", INFERENCE__WORKERS="1")
    try:
        wait_until(running.is_ready, START_S, "embed to be ready")
        children = psutil.Process(running.process.pid).children(recursive=True)
        running.process.kill()
        wait_until(lambda: all(map(has_ended, children)), IN_TIME_S, "the workers to end")
    finally:
        _stop(running)


def test_the_stub_is_labelled_repeatable_and_recognises_nobody(tmp_path: Path, portrait_files: list[bytes]) -> None:
    running = _start(tmp_path / "log", MODEL__KIND="stub", GATE__WORKERS="1", INFERENCE__WORKERS="1")
    try:
        wait_until(running.is_ready, START_S, "embed to be ready")
        model = running.client.describe_model()
        assert model.model_id.startswith("stub")
        assert model.provider == "stub"
        first, again, other = (_vector(running.client.analyse(portrait_files[index], SOLE)) for index in (1, 1, 2))
        assert np.array_equal(first, again)
        assert abs(first @ other) < 0.5
        assert not any(face.template for face in running.client.analyse(portrait_files[1], NONE).faces)
    finally:
        _stop(running)


@pytest.mark.parametrize("part", ["sources", "prepared"])
def test_one_wrong_byte_in_a_network_stops_the_start(tmp_path: Path, part: str) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(cache_folder() / "models", cache / "models")
    path = next((cache / "models" / part).glob("*yunet*.onnx"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    running = _start(tmp_path / "log", MODEL__CACHE_PATH=str(cache))
    try:
        assert running.process.wait(START_S) == 1
        log = (tmp_path / "log").read_text()
        assert "configuration_error" in log
        assert "models fetch" in log
    finally:
        _stop(running)
