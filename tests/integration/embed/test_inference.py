"""Inference workers on real processes: every job ends, whatever happens to the worker that has it."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from time import monotonic

import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper

from services.embed.gate.pool import GatePool
from services.embed.models.manifest import load_manifest
from services.embed.models.prepare import prepare
from services.embed.models.store import ModelStore
from services.embed.plan import plan_workers
from services.embed.ports import Selection
from services.embed.settings import EmbedSettings
from services.embed.workers.inference_pool import Answer, InferencePool
from services.shared.errors import ConfigurationError, Overloaded, PlatformError
from services.shared.packages import cache_folder
from services.shared.telemetry import Metrics
from tests.support.waiting import wait_until

IN_TIME_S = 120.0


@contextmanager
def _pool(metrics: Metrics, model: Mapping[str, object] | None = None, **settings: object) -> Iterator[InferencePool]:
    values = EmbedSettings.model_validate({"model": model or {}, "inference": {"workers": 1, **settings}})
    pool = InferencePool(values.inference, plan_workers(values).order, metrics)
    pool.start()
    try:
        yield pool
    finally:
        pool.close()


def _analyse(pool: InferencePool, gate: GatePool, data: bytes, timeout_s: float = IN_TIME_S) -> Answer:
    with gate.decoded(data, monotonic() + IN_TIME_S) as lease:
        return pool.analyse(lease, Selection.ALL, 0, monotonic() + timeout_s)


def test_answers_are_the_same_whoever_gives_them(gate: GatePool, metrics: Metrics, portrait_files: list[bytes]) -> None:
    with _pool(metrics, workers=2, max_batch_images=4) as pool, ThreadPoolExecutor(4) as threads:
        alone = [_analyse(pool, gate, data)["faces"] for data in portrait_files]
        assert all(len(faces) == 1 and len(faces[0]["vector"]) == 128 for faces in alone)
        together = list(threads.map(lambda data: _analyse(pool, gate, data), portrait_files * 6))
    for faces, answer in zip(alone * 6, together, strict=True):
        assert answer["faces"][0]["box"] == faces[0]["box"]
        assert answer["faces"][0]["vector"] == pytest.approx(faces[0]["vector"], abs=1e-5)


def test_a_job_whose_worker_is_killed_fails_over(gate: GatePool, metrics: Metrics, portrait_files: list[bytes]) -> None:
    with _pool(metrics) as pool, ThreadPoolExecutor(1) as threads:
        (worker,) = pool.process_ids
        os.kill(worker, signal.SIGSTOP)
        job = threads.submit(_analyse, pool, gate, portrait_files[0])
        wait_until(lambda: pool.running == 1, IN_TIME_S, "the job to be sent")
        os.kill(worker, signal.SIGKILL)
        assert len(job.result(IN_TIME_S)["faces"]) == 1
        assert pool.process_ids != [worker]
    assert metrics.embed_worker_restarts_total.labels("inference")._value.get() == 1


def test_a_job_that_ends_two_workers_fails_with_a_clear_error(
    gate: GatePool, metrics: Metrics, portrait_files: list[bytes]
) -> None:
    with _pool(metrics) as pool:
        wait_until(
            lambda: _fails_with_two_workers(pool, gate, portrait_files[0]), IN_TIME_S, "a job whose workers are killed"
        )
        assert len(_analyse(pool, gate, portrait_files[0])["faces"]) == 1


def _fails_with_two_workers(pool: InferencePool, gate: GatePool, data: bytes) -> bool:
    """Kill whoever has the job. False where a busy machine let the second one answer before the killer came."""
    wait_until(lambda: bool(pool.process_ids), IN_TIME_S, "a worker")
    killed: list[int] = []
    with ThreadPoolExecutor(1) as threads:
        os.kill(pool.process_ids[0], signal.SIGSTOP)
        job = threads.submit(_analyse, pool, gate, data)

        def kill_whoever_has_the_job() -> None:
            while len(killed) < 2 and not job.done():
                for pid in set(pool.process_ids) - set(killed):
                    if pool.running:
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                        killed.append(pid)

        killer = Thread(target=kill_whoever_has_the_job, daemon=True)
        killer.start()
        error = job.exception(IN_TIME_S)
        killer.join(IN_TIME_S)
    if error is None:
        return False
    assert isinstance(error, PlatformError)
    assert "two inference workers" in error.detail
    return True


def test_a_worker_that_hangs_is_replaced(gate: GatePool, metrics: Metrics, portrait_files: list[bytes]) -> None:
    with _pool(metrics, job_timeout_s=4) as pool:
        os.kill(pool.process_ids[0], signal.SIGSTOP)
        assert len(_analyse(pool, gate, portrait_files[0])["faces"]) == 1


def test_a_caller_whose_deadline_passes_is_told_and_forgotten(
    gate: GatePool, metrics: Metrics, portrait_files: list[bytes]
) -> None:
    with _pool(metrics) as pool:
        (worker,) = pool.process_ids
        os.kill(worker, signal.SIGSTOP)
        with pytest.raises(Overloaded):
            _analyse(pool, gate, portrait_files[0], timeout_s=0.2)
        with pytest.raises(Overloaded):
            _analyse(pool, gate, portrait_files[1], timeout_s=0.2)
        os.kill(worker, signal.SIGCONT)
        assert len(_analyse(pool, gate, portrait_files[2])["faces"]) == 1
        wait_until(lambda: (pool.waiting, pool.running) == (0, 0), IN_TIME_S, "every job to be forgotten")


def test_closing_ends_every_process_and_every_caller(
    gate: GatePool, metrics: Metrics, portrait_files: list[bytes]
) -> None:
    with _pool(metrics) as pool, ThreadPoolExecutor(3) as threads:
        processes = pool.process_ids
        os.kill(processes[0], signal.SIGSTOP)
        jobs = [threads.submit(_analyse, pool, gate, data) for data in portrait_files[:3]]
        wait_until(lambda: pool.running + pool.waiting == 3, IN_TIME_S, "the jobs to be queued")
        pool.close()
        assert [type(job.exception(IN_TIME_S)) for job in jobs] == [Overloaded] * 3
        assert not any(psutil.pid_exists(pid) for pid in processes)
        with pytest.raises(Overloaded):
            _analyse(pool, gate, portrait_files[0])


def test_a_configured_gpu_that_is_missing_stops_the_start(metrics: Metrics) -> None:
    wanted = {"providers": ["NoSuchExecutionProvider"]}
    with pytest.raises(ConfigurationError, match="NoSuchExecutionProvider"), _pool(metrics, wanted):
        pass
    with _pool(metrics, {**wanted, "allow_fallback": True}) as pool:
        assert pool.process_ids


def test_any_other_network_can_be_named_in_a_manifest(
    gate: GatePool, metrics: Metrics, portrait_files: list[bytes], tmp_path: Path
) -> None:
    """A recogniser of another maker: its mean colour of the face, as ArcFace networks see it (RGB, -1 to 1)."""
    network = _mean_colour_network()
    (tmp_path / "mean.onnx").write_bytes(network)
    manifest = tmp_path / "models.toml"
    manifest.write_text(
        '[[model]]\nname = "mean"\nrole = "recogniser"\nkind = "arcface"\nfile = "mean.onnx"\nlicence = "ours"\n'
        f'input = "RGB"\ndimension = 3\nsha256 = "{hashlib.sha256(network).hexdigest()}"\n'
    )
    for entry in load_manifest(manifest).model:
        ModelStore(tmp_path).fetch(entry, [tmp_path, cache_folder() / "models" / "sources"], prepare)
    model = {"manifest_path": str(manifest), "recogniser": "mean", "cache_path": str(tmp_path)}
    with _pool(metrics, model) as pool:
        (face,) = _analyse(pool, gate, portrait_files[0])["faces"]
    vector = np.array(face["vector"])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert vector.min() < 0, "a mean under half of the range is negative only where the input is centred"
    plan = plan_workers(EmbedSettings.model_validate({"model": model}))
    assert plan.model.model_id.startswith("mean.")
    assert (plan.model.dimension, plan.model.licence.split("; ")[1]) == (3, "ours")


def _mean_colour_network() -> bytes:
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["out"]),
        ],
        "mean",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
