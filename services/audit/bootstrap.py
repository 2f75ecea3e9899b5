"""The composition root of audit."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog
from fastapi import FastAPI

from services.audit.activity import ProveActivity
from services.audit.adapters.folder_witness import FolderWitness
from services.audit.adapters.sql_log_store import SqlLogStore
from services.audit.adapters.topic_witness import TopicWitness
from services.audit.exporting import WholeLogExport
from services.audit.grpc_server import SERVICE_NAME, AuditServicer
from services.audit.http_api import create_http_api
from services.audit.log import AuditLog
from services.audit.ports import Witness
from services.audit.reading import AuditReading
from services.audit.settings import AuditSettings, FurtherWitnesses
from services.audit.witnessing import Witnessing
from services.rpc.server import GrpcServer
from services.rpc.v1 import audit_pb2_grpc
from services.shared.adapters.opening import open_event_log
from services.shared.clock import Clock, SystemClock
from services.shared.errors import AuditUnavailable
from services.shared.http import limit_rates
from services.shared.telemetry import Metrics
from services.shared.tokens import TokenVerifier

# A write gives up before its callers do, so that they hear why.
WRITE_SHARE_OF_TIMEOUT = 0.7
HEALTH_PERIOD_S = 0.25
GRPC_THREADS = 32  # callers that can share one flush


@dataclass
class AuditService:
    """Everything that runs in the process."""

    settings: AuditSettings
    store: SqlLogStore
    log: AuditLog
    witnessing: Sequence[Witnessing]
    grpc: GrpcServer
    app: FastAPI
    _stopping: threading.Event
    _health: threading.Thread | None = None

    def start(self) -> None:
        """Open the log and serve. Raises ConfigurationError when the log is not whole."""
        try:
            self.log.open()
        except AuditUnavailable as error:
            structlog.get_logger().error("audit_store_unavailable", detail=error.detail, advice=error.advice)
        self.log.start()
        for witnessing in self.witnessing:
            witnessing.start()
        self._health = threading.Thread(target=self._watch, name="audit-health", daemon=True)
        self._health.start()
        self.grpc.start()

    def stop(self) -> None:
        self._stopping.set()
        self.grpc.stop()
        self.log.stop()
        for witnessing in self.witnessing:
            witnessing.stop()
        self.store.close()

    def _watch(self) -> None:
        """Keep gRPC health as true as readiness is."""
        while not self._stopping.wait(HEALTH_PERIOD_S):
            self.grpc.set_serving(not self.log.problems())


def _further(settings: FurtherWitnesses, clock: Clock) -> Iterator[Witness]:
    if settings.events is not None:
        yield TopicWitness(open_event_log(settings.events))
    if settings.bucket is not None:
        from services.audit.adapters.bucket_witness import BucketWitness  # noqa: PLC0415 - an extra

        yield BucketWitness(settings.bucket, clock)


def build(settings: AuditSettings, metrics: Metrics | None = None) -> AuditService:
    """Wire the service; nothing is opened or started yet."""
    metrics = metrics or Metrics()
    clock = SystemClock()
    store = SqlLogStore(settings.database, settings.append_timeout_s * WRITE_SHARE_OF_TIMEOUT)
    witness = FolderWitness(settings.checkpoints.witness_path)
    log = AuditLog(
        store=store,
        witness=witness,
        clock=clock,
        metrics=metrics,
        settings=settings.checkpoints,
        append_timeout_s=settings.append_timeout_s,
    )
    witnessing = [
        Witnessing(store, witness, metrics, log.listen(), log.refuse),
        *(Witnessing(store, other, None, log.listen(), log.refuse) for other in _further(settings.witnesses, clock)),
    ]
    servicer = AuditServicer(log, ProveActivity(log, store))
    grpc_server = GrpcServer(
        settings.grpc_host,
        settings.grpc_port,
        [SERVICE_NAME],
        lambda server: audit_pb2_grpc.add_AuditServicer_to_server(servicer, server),
        tls=settings.tls,
        threads=GRPC_THREADS,
    )
    app = create_http_api(
        AuditReading(log, store, clock),
        WholeLogExport(log, store, clock),
        TokenVerifier(settings.tokens),
        metrics,
        readiness=log.problems,
    )
    limit_rates(app, settings.rate_limits, metrics)
    return AuditService(settings, store, log, witnessing, grpc_server, app, threading.Event())
