"""A recorder between a Milvus client and its server: keeps requests as bytes and can falsify answers of a search."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import grpc
from pymilvus.grpc_gen import milvus_pb2

Lie = Callable[[Any], None]


class Recorder:
    """A gRPC server that hands every call on as it is. `lie` may change a SearchResults message before it goes back."""

    def __init__(self, uri: str, lie: Lie | None = None) -> None:
        self._channel = grpc.insecure_channel(urlsplit(uri).netloc)
        self._lie = lie
        self._seen: list[tuple[str, bytes]] = []
        self._server = grpc.server(ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((_Everything(self._relay),))
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.uri = f"http://127.0.0.1:{port}"

    def __enter__(self) -> Recorder:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(None)
        self._channel.close()

    def clear(self) -> None:
        self._seen.clear()

    def bodies(self, method: str) -> list[bytes]:
        return [body for name, body in self._seen if name == method]

    def _relay(self, path: str, body: bytes, context: grpc.ServicerContext) -> bytes:
        method = path.rpartition("/")[2]
        self._seen.append((method, body))
        try:
            call = self._channel.unary_unary(path, request_serializer=None, response_deserializer=None)
            answer = bytes(call(body, timeout=30))
        except grpc.RpcError as error:
            context.abort(error.code(), error.details() or "")
        if method == "Search" and self._lie is not None:
            results = milvus_pb2.SearchResults.FromString(answer)
            self._lie(results.results)
            return bytes(results.SerializeToString())
        return answer


class _Everything(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    def __init__(self, relay: Callable[[str, bytes, grpc.ServicerContext], bytes]) -> None:
        self._relay = relay

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = handler_call_details.method
        return grpc.unary_unary_rpc_method_handler(lambda body, context: self._relay(path, body, context))


def drop_a_hit(results: Any) -> None:
    """As a partition of which a segment was lost."""
    results.topks[0] -= 1
    del results.scores[-1]
    del results.ids.str_id.data[-1]
    for field in results.fields_data:
        kind = field.scalars.WhichOneof("data")
        del getattr(field.scalars, kind).data[-1]


def nan_score(results: Any) -> None:
    results.scores[0] = float("nan")


def big_score(results: Any) -> None:
    results.scores[0] = 1.5


def foreign_owner(results: Any) -> None:
    _field(results, "owner").scalars.string_data.data[0] = "elsewhere"


def unknown_id(results: Any) -> None:
    results.ids.str_id.data[0] = "nobody/1"


def _field(results: Any, name: str) -> Any:
    return next(field for field in results.fields_data if field.field_name == name)
