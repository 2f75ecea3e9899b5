"""The composition root of review."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI

from services.review.grpc_server import SERVICE_NAME, ReviewServicer
from services.review.settings import ReviewSettings
from services.review.workflow import WORKFLOW
from services.rpc.server import GrpcServer
from services.rpc.v1 import review_pb2_grpc
from services.shared.http import create_app
from services.shared.telemetry import Metrics


@dataclass(frozen=True)
class ReviewService:
    """A wired service: its HTTP side and its gRPC server, not started yet."""

    app: FastAPI
    grpc: GrpcServer

    def start(self) -> None:
        """Serve gRPC. Review depends on nothing yet, so it is ready as soon as it serves."""
        self.grpc.start()
        self.grpc.set_serving(True)

    def stop(self) -> None:
        self.grpc.stop()


def build(settings: ReviewSettings, metrics: Metrics) -> ReviewService:
    servicer = ReviewServicer(WORKFLOW)
    grpc = GrpcServer(
        settings.grpc_host,
        settings.grpc_port,
        [SERVICE_NAME],
        lambda server: review_pb2_grpc.add_ReviewServicer_to_server(servicer, server),
        tls=settings.tls,
    )
    return ReviewService(app=create_app("Likeness review", metrics, readiness=dict), grpc=grpc)
