"""The client by which review has the sealed probes of a case erased that is over."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from services.rpc.clients import translated
from services.rpc.v1 import probes_pb2, probes_pb2_grpc

_DEADLINE_S = 30.0
_AT_ONCE = 1000


class ProbeClient:
    """Search, as review asks it, by the certificate of the service that calls."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = probes_pb2_grpc.ProbesStub(channel)

    def erase(self, request: probes_pb2.EraseProbesRequest) -> Sequence[str]:
        """The SHA-256 of what was there. Raises DependencyUnavailable, AuditUnavailable: do it again."""
        erased: list[str] = []
        for start in range(0, len(request.sha256s), _AT_ONCE):
            part = probes_pb2.EraseProbesRequest()
            part.CopyFrom(request)
            del part.sha256s[:]
            part.sha256s.extend(request.sha256s[start : start + _AT_ONCE])
            with translated("search"):
                erased += self._stub.EraseProbes(part, timeout=_DEADLINE_S).erased_sha256s
        return erased
