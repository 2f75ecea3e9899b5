"""Embed as search sees it when it reads films: what a film holds is told by its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import grpc
import numpy as np

from services.rpc.convert import provenance_to_message, template_to_message
from services.rpc.server import GrpcServer
from services.rpc.v1 import common_pb2, embed_pb2, embed_pb2_grpc, films_pb2, films_pb2_grpc
from services.shared.biometric import FaceTemplate
from services.shared.errors import FilmRefused, IntegrityError, LikenessError
from tests.integration.search.peers import MODEL_ID, Peers, provenance, vector_of

FRAMES = 10  # of a segment, five a second
SEGMENT_S = 30.0


class FakeFilms(films_pb2_grpc.FilmsServicer):
    """b"film:ann,bob;;ann" has three segments: two people, nobody, one. b"broken" is refused, b"empty" decodes to
    nothing. Stills are what FakeEmbed understands."""

    def __init__(self) -> None:
        self.error: LikenessError | None = None
        # Called with each segment's number before it is given.
        self.before: Callable[[int], object] = lambda _number: None
        self.first_segments: list[int] = []

    def ReadFilm(  # noqa: N802 - the name is the wire's
        self, request_iterator: Iterator[films_pb2.ReadFilmRequest], context: grpc.ServicerContext
    ) -> Iterator[films_pb2.FilmEvent]:
        order = next(request_iterator).order
        content = b"".join(request.content for request in request_iterator)
        if hashlib.sha256(content).hexdigest() != order.sha256 or len(content) != order.size_bytes:
            raise IntegrityError("Not what was announced.")
        if content == b"broken":
            raise FilmRefused("The film cannot be decoded.", code="film_undecodable", advice="Send a whole film.")
        if self.error is not None:
            raise self.error
        parts = content.decode().partition(":")[2].split("|")[0].split(";")
        yield films_pb2.FilmEvent(description=_description(len(parts)))
        if order.task == films_pb2.FilmOrder.FACES:
            self.first_segments.append(order.first_segment)
            for number in range(order.first_segment, len(parts)):
                self.before(number)
                yield films_pb2.FilmEvent(segment=_segment(number, parts[number], is_blank=content == b"empty"))
        if order.task == films_pb2.FilmOrder.STILLS:
            for wish in order.stills:
                yield films_pb2.FilmEvent(still=_still(wish.pts, parts))


def _description(segments: int) -> films_pb2.FilmDescription:
    return films_pb2.FilmDescription(
        container="mov",
        codec="h264",
        width=640,
        height=480,
        duration_s=segments * SEGMENT_S,
        frame_count=segments * 750,
        key_frame_count=segments,
        segment_count=segments,
        model=provenance_to_message(provenance(MODEL_ID)),
    )


def _segment(number: int, people: str, *, is_blank: bool) -> films_pb2.FilmSegment:
    frames = [_frame(number * 1000 + n, people) for n in range(FRAMES)] if people else []
    return films_pb2.FilmSegment(
        number=number,
        from_s=number * SEGMENT_S,
        until_s=(number + 1) * SEGMENT_S,
        frames_looked_at=0 if is_blank else 30,
        frames=frames,
    )


def _frame(pts: int, people: str) -> films_pb2.FilmFrame:
    """Timestamps: a thousand a segment, and one a fifth of a second."""
    segment, at = divmod(pts, 1000)
    faces = [_face(name, index, pts) for index, name in enumerate(people.split(","))]
    return films_pb2.FilmFrame(number=segment * 750 + at * 5, pts=pts, time_s=segment * SEGMENT_S + at / 5, faces=faces)


def _face(name: str, index: int, pts: int) -> embed_pb2.Face:
    noise = np.random.default_rng(pts * 10 + index).standard_normal(128)
    vector = vector_of(name) + 0.4 * noise / np.linalg.norm(noise)
    template = FaceTemplate((vector / np.linalg.norm(vector)).astype(np.float32), MODEL_ID)
    return embed_pb2.Face(
        box=common_pb2.Box(x=100.0 + 200 * index, y=100, width=120, height=150),
        landmarks=[common_pb2.Point(x=130, y=140)] * 5,
        detection_score=0.9,
        inter_eye_px=60.0,
        quality=common_pb2.Quality(unified=60.0 + pts % 10),
        template=template_to_message(template),
    )


def _still(pts: int, parts: list[str]) -> films_pb2.FilmStill:
    people = parts[pts // 1000]
    frame = _frame(pts, people)
    kind = "face" if "," not in people else "faces"
    return films_pb2.FilmStill(
        frame=frame,
        width=640,
        height=480,
        png=f"{kind}:{people}|{pts}".encode(),
        chips=[f"chip of {name}".encode() for name in people.split(",")],
    )


class FilmPeers(Peers):
    """Peers whose embed reads films too."""

    def __init__(self) -> None:
        super().__init__()
        self.films = FakeFilms()

    def start(self, name: str) -> None:
        if name != "embed":
            super().start(name)
            return

        def register(server: grpc.Server) -> None:
            embed_pb2_grpc.add_EmbedServicer_to_server(self.embed, server)
            films_pb2_grpc.add_FilmsServicer_to_server(self.films, server)

        server = GrpcServer("127.0.0.1", self.ports[name], [], register, threads=48)
        server.start()
        server.set_serving(True)
        self._servers[name] = server
