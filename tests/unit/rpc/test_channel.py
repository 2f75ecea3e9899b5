"""One address that stands for several replicas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import grpc
import pytest

from services.rpc.clients import EmbedClient, open_channel
from services.rpc.server import GrpcServer
from services.rpc.v1 import common_pb2, embed_pb2, embed_pb2_grpc
from tests.support.waiting import wait_until


class Replica(embed_pb2_grpc.EmbedServicer):
    def __init__(self, name: str, calls: Counter[str]) -> None:
        self._name = name
        self._calls = calls

    def Analyse(  # noqa: N802 - named by the proto
        self, request: embed_pb2.AnalyseRequest, context: grpc.ServicerContext
    ) -> embed_pb2.AnalyseResponse:
        raise NotImplementedError

    def DescribeModel(  # noqa: N802 - named by the proto
        self, request: embed_pb2.DescribeModelRequest, context: grpc.ServicerContext
    ) -> common_pb2.ModelProvenance:
        self._calls[self._name] += 1
        return common_pb2.ModelProvenance(model_id=self._name)


@pytest.fixture
def calls() -> Counter[str]:
    return Counter()


@pytest.fixture
def servers(calls: Counter[str]) -> Iterator[list[GrpcServer]]:
    started = []
    for name in ("one", "two"):
        replica = Replica(name, calls)
        server = GrpcServer("127.0.0.1", 0, ["likeness.v1.Embed"], _registering(replica))
        server.start()
        started.append(server)
    yield started
    for server in started:
        server.stop(0)


def _registering(replica: Replica) -> Callable[[grpc.Server], None]:
    return lambda server: embed_pb2_grpc.add_EmbedServicer_to_server(replica, server)


def _know_both(client: EmbedClient, calls: Counter[str]) -> None:
    """The first calls go to whichever replica is connected first."""

    def asks_both() -> bool:
        client.describe_model(timeout_s=60)
        return min(calls["one"], calls["two"]) > 0

    wait_until(asks_both, 60, "both replicas to be asked", 0.01)


def test_calls_go_to_every_replica(servers: list[GrpcServer], calls: Counter[str]) -> None:
    addresses = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    with open_channel(f"ipv4:{addresses}") as channel:
        client = EmbedClient(channel)
        _know_both(client, calls)
        calls.clear()
        for _ in range(20):
            client.describe_model(timeout_s=60)
    assert min(calls["one"], calls["two"]) >= 5


def test_a_replica_that_dies_is_left_out(servers: list[GrpcServer], calls: Counter[str]) -> None:
    addresses = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    with open_channel(f"ipv4:{addresses}") as channel:
        client = EmbedClient(channel)
        _know_both(client, calls)
        servers[0].stop(0)
        answers = {client.describe_model(timeout_s=60).model_id for _ in range(10)}
    assert answers == {"two"}
