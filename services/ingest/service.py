"""What runs in the process of ingest, and how it starts and stops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fastapi import FastAPI

from services.ingest.enrolling.worker import EnrolmentWorker
from services.ingest.loops import Loop
from services.rpc.server import GrpcServer
from services.shared.consume import ConsumeLoop

_HEALTH_PERIOD_S = 0.25


@dataclass
class IngestService:
    """Everything that runs in the process."""

    app: FastAPI
    grpc: GrpcServer
    loops: Sequence[Loop]
    worker: EnrolmentWorker
    consumer: ConsumeLoop | None
    problems: Callable[[], Mapping[str, str]]
    close: Callable[[], None]
    _stopping: threading.Event = field(default_factory=threading.Event)
    _health: threading.Thread | None = None

    def start(self) -> None:
        """Serve the ledger, take up what was left, start working. Raises DependencyUnavailable."""
        self.worker.release_claims()
        for loop in self.loops:
            loop.start()
        self._health = threading.Thread(target=self._watch, name="ingest-health", daemon=True)
        self._health.start()
        self.grpc.start()

    def stop(self) -> None:
        """End what is under way, in order; what does not end in time is taken up after the next start."""
        self._stopping.set()
        self.grpc.stop()
        if self.consumer is not None:
            self.consumer.stop()
        for loop in self.loops:
            loop.ask_to_stop()
        for loop in self.loops:
            loop.join()
        if self.consumer is not None:
            self.consumer.close()
        self.close()

    def _watch(self) -> None:
        """Keep gRPC health as true as readiness is."""
        while not self._stopping.wait(_HEALTH_PERIOD_S):
            self.grpc.set_serving(not self.problems())
