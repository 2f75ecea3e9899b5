"""What was read of a film, as it crosses the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from services.embed.faces.analyser import chip_of
from services.embed.faces.geometry import turn_upright
from services.embed.faces.picture import Picture
from services.embed.film.process import Description, ReadFrame
from services.embed.workers.arena import Arena
from services.rpc.convert import provenance_to_message
from services.rpc.v1 import common_pb2, embed_pb2, films_pb2
from services.shared.biometric import Box, ModelProvenance

# Fast: the picture is stored once and read seldom.
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 2)


def description_event(found: Description, model: ModelProvenance) -> films_pb2.FilmEvent:
    description = films_pb2.FilmDescription(
        container=found.container,
        codec=found.codec,
        width=found.width,
        height=found.height,
        duration_s=found.duration_s,
        frame_count=found.frame_count,
        key_frame_count=found.key_frame_count,
        segment_count=len(found.segments),
        warnings=found.warnings,
        model=provenance_to_message(model),
    )
    return films_pb2.FilmEvent(description=description)


def segment_event(
    number: int,
    bounds: tuple[float, float],
    seen: Sequence[tuple[ReadFrame, dict[str, Any]]],
    model_id: str,
    problem: str,
    *,
    max_faces: int,
) -> films_pb2.FilmEvent:
    """Frames in order of time, those with a face."""
    messages = [frame_message(frame, answer, model_id) for frame, answer in seen if answer["faces"]]
    _keep_best(messages, max_faces)
    segment = films_pb2.FilmSegment(
        number=number,
        from_s=bounds[0],
        until_s=bounds[1],
        frames_looked_at=len(seen),
        frames=sorted(messages, key=lambda message: message.number),
        problem=problem,
    )
    return films_pb2.FilmEvent(segment=segment)


def frame_message(frame: ReadFrame, answer: dict[str, Any], model_id: str) -> films_pb2.FilmFrame:
    return films_pb2.FilmFrame(
        number=frame.number,
        pts=frame.pts,
        time_s=frame.time_s,
        faces=[_face_message(item, model_id) for item in answer["faces"]],
    )


def still_event(
    frame: ReadFrame, message: films_pb2.FilmFrame, arena: Arena, *, with_picture: bool
) -> films_pb2.FilmEvent:
    """Pictures made anew from the pixels in the arena, here and not in the worker that read the film."""
    width, height = frame.image.upright_size
    pixels = np.frombuffer(
        arena.pixel_view(), np.uint8, frame.image.stored_width * frame.image.stored_height * 3
    ).reshape(frame.image.stored_height, frame.image.stored_width, 3)
    picture = Picture(pixels, frame.image.orientation)
    still = films_pb2.FilmStill(
        frame=message,
        width=width,
        height=height,
        png=_png(turn_upright(pixels, frame.image.orientation)) if with_picture else b"",
        chips=[
            chip_of(picture, Box(face.box.x, face.box.y, face.box.width, face.box.height)) for face in message.faces
        ],
    )
    return films_pb2.FilmEvent(still=still)


def _png(pixels: np.ndarray) -> bytes:
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(pixels), _PNG)
    if not done:
        raise MemoryError("a frame cannot be encoded")
    return encoded.tobytes()


def _face_message(item: dict[str, Any], model_id: str) -> embed_pb2.Face:
    """Without the components of quality: there are a dozen for every face of every frame, and one is what is used."""
    vector = item["vector"]
    template = None
    if vector is not None:
        values = np.asarray(vector, dtype="<f4")
        template = common_pb2.FaceTemplate(vector=values.tobytes(), dimension=len(values), model_id=model_id)
    x, y, width, height = item["box"]
    return embed_pb2.Face(
        box=common_pb2.Box(x=x, y=y, width=width, height=height),
        landmarks=[common_pb2.Point(x=point[0], y=point[1]) for point in item["landmarks"]],
        detection_score=item["score"],
        inter_eye_px=item["inter_eye_px"],
        quality=common_pb2.Quality(unified=item["unified"]),
        template=template,
    )


def _keep_best(messages: Sequence[films_pb2.FilmFrame], max_faces: int) -> None:
    scores = sorted((face.quality.unified for message in messages for face in message.faces), reverse=True)
    if len(scores) <= max_faces:
        return
    least = scores[max_faces]
    for message in messages:
        kept = [face for face in message.faces if face.quality.unified > least]
        del message.faces[:]
        message.faces.extend(kept)
