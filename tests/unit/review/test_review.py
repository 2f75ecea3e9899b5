"""Review as a service: what it says over gRPC and HTTP before anybody works with it."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from fastapi.testclient import TestClient
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from services.review.bootstrap import ReviewService, build
from services.review.settings import ReviewSettings
from services.rpc.v1 import review_pb2, review_pb2_grpc
from services.shared.settings import DatabaseSettings, ImageStoreSettings, TokenSettings
from services.shared.telemetry import Metrics


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ReviewService]:
    settings = ReviewSettings(
        grpc_port=0,
        database=DatabaseSettings(url=f"sqlite:///{tmp_path / 'review.sqlite'}"),
        images=ImageStoreSettings(path=tmp_path / "pictures"),
        tokens=TokenSettings(jwks_path=tmp_path / "jwks.json"),
    )
    made = build(settings, Metrics(CollectorRegistry()))
    yield made
    made.stop()


def test_a_release_needs_two_judgements_and_no_finding_is_a_match_by_machine(service: ReviewService) -> None:
    service.start()
    with grpc.insecure_channel(f"127.0.0.1:{service.grpc.port}") as channel:
        described = review_pb2_grpc.ReviewStub(channel).DescribeWorkflow(
            review_pb2.DescribeWorkflowRequest(), timeout=60
        )
    assert described.judgements_required == 2
    assert list(described.findings) == ["possible_match", "no_support", "inconclusive"]


def test_health_over_grpc_is_serving_once_started(service: ReviewService) -> None:
    service.start()
    with grpc.insecure_channel(f"127.0.0.1:{service.grpc.port}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="likeness.v1.Review"), timeout=60
        )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_http_side_answers(service: ReviewService, path: str) -> None:
    assert TestClient(service.app).get(path).status_code == 200
