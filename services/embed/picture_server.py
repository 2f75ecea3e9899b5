"""likeness.v1.Pictures over gRPC: a thin entry point to the use case."""

from __future__ import annotations

from typing import Any

import grpc

from services.embed.render import RenderPicture
from services.rpc.v1 import picture_pb2, picture_pb2_grpc

SERVICE_NAME = "likeness.v1.Pictures"
_DEFAULT_TIMEOUT_S = 30.0  # for a caller that sets no deadline


class PicturesServicer(picture_pb2_grpc.PicturesServicer):
    def __init__(self, render: RenderPicture) -> None:
        self._render = render

    def Render(  # noqa: N802 - the name in the proto
        self, request: picture_pb2.RenderRequest, context: grpc.ServicerContext
    ) -> picture_pb2.RenderedPicture:
        remaining_s: Any = context.time_remaining()
        timeout_s = _DEFAULT_TIMEOUT_S if remaining_s is None else min(remaining_s, _DEFAULT_TIMEOUT_S)
        made = self._render(request.image, request.max_side, as_jpeg=request.as_jpeg, timeout_s=timeout_s)
        return picture_pb2.RenderedPicture(content=made.content, width=made.width, height=made.height, scale=made.scale)
