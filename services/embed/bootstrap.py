"""The composition root of embed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Event, Thread

import grpc
import structlog
from fastapi import FastAPI

from services.embed.accelerator_watch import watch_accelerator
from services.embed.analyse import AnalyseImage
from services.embed.film.analyse import AnalyseFilm
from services.embed.film.grpc_server import SERVICE_NAME as FILMS
from services.embed.film.grpc_server import FilmsServicer
from services.embed.gate.pool import GatePool
from services.embed.grpc_server import SERVICE_NAME, EmbedServicer
from services.embed.picture_server import SERVICE_NAME as PICTURES
from services.embed.picture_server import PicturesServicer
from services.embed.plan import plan_workers
from services.embed.render import RenderPicture
from services.embed.settings import EmbedSettings
from services.embed.workers.inference_pool import InferencePool
from services.rpc.server import GrpcServer
from services.rpc.v1 import embed_pb2_grpc, films_pb2_grpc, picture_pb2_grpc
from services.shared.http import create_app
from services.shared.periodic import Periodic
from services.shared.telemetry import Metrics

_HEALTH_CHECK_S = 0.1
_RENDERED_AT_ONCE = 4  # for people who look at pictures; each is a copy of its pixels in this process
_HEALTH_THREADS = 8  # so that health and DescribeModel answer while every place for images is taken


class HealthWatch:
    """Has gRPC health say SERVING while, and only while, the service can work."""

    def __init__(self, grpc: GrpcServer, is_able: Callable[[], bool]) -> None:
        self._grpc = grpc
        self._is_able = is_able
        self._stopped = Event()
        grpc.set_serving(is_able())
        Thread(target=self._run, name="health", daemon=True).start()

    def _run(self) -> None:
        while not self._stopped.wait(_HEALTH_CHECK_S):
            self._grpc.set_serving(self._is_able())

    def stop(self) -> None:
        """NOT_SERVING from now on."""
        self._stopped.set()
        self._grpc.set_serving(False)


@dataclass(frozen=True, slots=True)
class EmbedService:
    """Everything that runs; `stop` ends it in order."""

    app: FastAPI
    grpc: GrpcServer
    gate: GatePool
    inference: InferencePool
    analyse: AnalyseImage
    health: HealthWatch
    accelerator: Periodic | None = None

    def stop(self) -> None:
        """No new calls, then the workers; calls that still run are answered with Overloaded."""
        self.health.stop()
        if self.accelerator is not None:
            self.accelerator.stop()
        self.grpc.stop()
        self.inference.close()
        self.gate.close()


def build(settings: EmbedSettings, metrics: Metrics | None = None) -> EmbedService:
    """Verify the networks, start the workers and then the gRPC server.

    Raises ConfigurationError for a network whose bytes are wrong, a provider that is missing or a port that is taken.
    """
    metrics = metrics or Metrics()
    plan = plan_workers(settings)
    inference = InferencePool(settings.inference, plan.order, metrics)
    gate = GatePool(settings.gate, metrics)
    try:
        with ThreadPoolExecutor(1) as beside:
            gate_started = beside.submit(gate.start)
            runtime = inference.start()
            gate_started.result()
        model = replace(plan.model, runtime=str(runtime["runtime"]), provider=str(runtime["provider"]))
        analyse = AnalyseImage(gate, inference, model, metrics, max_pending=settings.max_pending)
        grpc_server = GrpcServer(
            settings.grpc_host,
            settings.grpc_port,
            [SERVICE_NAME, PICTURES, FILMS],
            _servicers(
                analyse,
                RenderPicture(gate, metrics, at_once=_RENDERED_AT_ONCE),
                AnalyseFilm(settings.film, inference, model, metrics),
            ),
            tls=settings.tls,
            threads=settings.max_pending + settings.film.max_running + _HEALTH_THREADS,
        )
    except BaseException:
        inference.close()
        gate.close()
        raise
    metrics.embed_model_info.labels(model.model_id, model.runtime, model.provider).set(1)
    about = {"model_id": model.model_id, "runtime": model.runtime, "provider": model.provider}
    app = create_app("Likeness embed", metrics, lambda: _missing(gate, inference), about=about)
    grpc_server.start()
    health = HealthWatch(grpc_server, lambda: not _missing(gate, inference))
    structlog.get_logger().info(
        "embed_ready", model_id=model.model_id, provider=model.provider, grpc_port=grpc_server.port
    )
    accelerator = watch_accelerator(model.provider, metrics)
    return EmbedService(app, grpc_server, gate, inference, analyse, health, accelerator)


def _servicers(analyse: AnalyseImage, render: RenderPicture, films: AnalyseFilm) -> Callable[[grpc.Server], None]:
    def register(server: grpc.Server) -> None:
        embed_pb2_grpc.add_EmbedServicer_to_server(EmbedServicer(analyse), server)
        picture_pb2_grpc.add_PicturesServicer_to_server(PicturesServicer(render), server)
        films_pb2_grpc.add_FilmsServicer_to_server(FilmsServicer(films), server)

    return register


def _missing(gate: GatePool, inference: InferencePool) -> dict[str, str]:
    missing = {}
    if not gate.process_ids:
        missing["gate"] = "no worker is alive"
    if not inference.process_ids:
        missing["inference"] = "no worker is alive"
    return missing
