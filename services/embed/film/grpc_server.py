"""The Films service on gRPC: a thin entry point to the use case."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from services.embed.film.analyse import AnalyseFilm
from services.rpc.v1 import films_pb2, films_pb2_grpc
from services.shared.errors import InvalidRequest

SERVICE_NAME = "likeness.v1.Films"


class FilmsServicer(films_pb2_grpc.FilmsServicer):
    """ReadFilm."""

    def __init__(self, analyse: AnalyseFilm) -> None:
        self._analyse = analyse

    def ReadFilm(  # noqa: N802 - the name in the proto
        self, request_iterator: Iterator[films_pb2.ReadFilmRequest], context: grpc.ServicerContext
    ) -> Iterator[films_pb2.FilmEvent]:
        first = next(request_iterator, None)
        if first is None or first.WhichOneof("part") != "order":
            raise InvalidRequest("The order is missing.", advice="Send it before the content.")
        order = first.order
        content = (request.content for request in request_iterator)
        is_short = order.task == films_pb2.FilmOrder.DESCRIBE
        with (
            self._analyse.admitted(is_short=is_short),
            self._analyse.spooled(content, order.sha256, order.size_bytes) as film,
        ):
            if order.task == films_pb2.FilmOrder.DESCRIBE:
                yield from self._analyse.describe(film)
            elif order.task == films_pb2.FilmOrder.FACES:
                yield from self._analyse.faces(film, order.first_segment, context.is_active)
            elif order.task == films_pb2.FilmOrder.STILLS:
                yield from self._analyse.stills(film, order.stills, context.is_active)
            else:
                raise InvalidRequest("The task is missing.", advice="Say what is to be done with the film.")
