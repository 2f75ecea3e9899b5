"""The client by which review has kept probes searched again."""

from __future__ import annotations

import grpc

from services.rpc.casework import IDENTIFY_DEADLINE_S
from services.rpc.clients import translated
from services.rpc.v1 import unsolved_pb2, unsolved_pb2_grpc


class UnsolvedClient:
    """Searches without a person's token, by the certificate of the service that calls."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = unsolved_pb2_grpc.UnsolvedStub(channel)

    def search_again(self, request: unsolved_pb2.SearchAgainRequest) -> bytes | None:
        """The answer's JSON; None where nothing was enrolled or withdrawn since. Raises what a search raises."""
        with translated("search"):
            answer = self._stub.SearchAgain(request, timeout=IDENTIFY_DEADLINE_S)
        return None if answer.is_unchanged else answer.answer_json
