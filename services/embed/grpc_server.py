"""The Embed service on gRPC: a thin entry point to the use case."""

from __future__ import annotations

from typing import Any

import grpc

from services.embed.analyse import AnalyseImage
from services.embed.ports import Selection
from services.rpc.convert import analysis_to_message, provenance_to_message
from services.rpc.v1 import common_pb2, embed_pb2, embed_pb2_grpc
from services.shared.errors import InvalidRequest

SERVICE_NAME = "likeness.v1.Embed"
_DEFAULT_TIMEOUT_S = 30.0  # for a caller that sets no deadline

_SELECTIONS = {
    embed_pb2.AnalyseRequest.SOLE: Selection.SOLE,
    embed_pb2.AnalyseRequest.BY_INDEX: Selection.BY_INDEX,
    embed_pb2.AnalyseRequest.LARGEST: Selection.LARGEST,
    embed_pb2.AnalyseRequest.ALL: Selection.ALL,
    embed_pb2.AnalyseRequest.NONE: Selection.NONE,
    embed_pb2.AnalyseRequest.ALL_WITH_CHIPS: Selection.ALL_WITH_CHIPS,
}


class EmbedServicer(embed_pb2_grpc.EmbedServicer):
    """Analyse and DescribeModel."""

    def __init__(self, analyse: AnalyseImage) -> None:
        self._analyse = analyse

    def Analyse(  # noqa: N802 - the name in the proto
        self, request: embed_pb2.AnalyseRequest, context: grpc.ServicerContext
    ) -> embed_pb2.AnalyseResponse:
        selection = _SELECTIONS.get(request.selection)
        if selection is None:
            raise InvalidRequest("selection is missing.", advice="Say which faces get a template.")
        remaining_s: Any = context.time_remaining()
        timeout_s = _DEFAULT_TIMEOUT_S if remaining_s is None else min(remaining_s, _DEFAULT_TIMEOUT_S)
        return analysis_to_message(self._analyse(request.image, selection, request.face_index, timeout_s))

    def DescribeModel(  # noqa: N802 - the name in the proto
        self, request: embed_pb2.DescribeModelRequest, context: grpc.ServicerContext
    ) -> common_pb2.ModelProvenance:
        return provenance_to_message(self._analyse.model)
