"""Pictures. Each is recorded as consulted before its first byte leaves, and bears the viewer's id."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse
from PIL import Image

from services.review.console.context import Console, caller_of
from services.review.console.guard import Visit, visit_of
from services.review.console.pictures import MAX_SIDE_PX, PICTURE_HEADERS, THUMBNAIL_SIDE_PX, shown
from services.review.console.turns import picture_turn
from services.review.model import ProbeFace
from services.shared.errors import NotFound

if TYPE_CHECKING:
    from services.review.casework.probes import Picture

_Visit = Annotated[Visit, Depends(visit_of)]


def routes(console: Console) -> APIRouter:
    router = console.router()
    pictures = console.desk.pictures

    @router.get("/console/requests/{request_id}/probes/{probe_id}/{name}")
    async def probe(visit: _Visit, request_id: str, probe_id: str, name: str) -> Response:
        """`original.jpg`, or `<enhancement_id>.jpg`; with `.json` where eyes, nose and mouth of the chosen face are."""
        return await picture_turn(visit.request, lambda: shown_probe(visit, request_id, probe_id, name))

    def shown_probe(visit: Visit, request_id: str, probe_id: str, name: str) -> Response:
        caller = caller_of(visit)
        if not name.endswith(".json"):
            return marked_for(console, visit, pictures.probe(caller, request_id, probe_id, stem(name, ".jpg")))
        picture, face = pictures.chosen_face(caller, request_id, probe_id, stem(name, ".json"))
        return _landmarks(face, min(1.0, MAX_SIDE_PX / max(picture.width, picture.height)))

    @router.get("/console/requests/{request_id}/candidates/{candidate_id}/{name}")
    async def reference(visit: _Visit, request_id: str, candidate_id: str, name: str) -> Response:
        """`<reference_id>.jpg`; with `.json` where eyes, nose and mouth of its largest face are, in pixels of it."""
        return await picture_turn(visit.request, lambda: shown_reference(visit, request_id, candidate_id, name))

    def shown_reference(visit: Visit, request_id: str, candidate_id: str, name: str) -> Response:
        caller = caller_of(visit)
        if not name.endswith(".json"):
            return marked_for(console, visit, pictures.reference(caller, request_id, candidate_id, stem(name, ".jpg")))
        faces = pictures.reference_faces(caller, request_id, candidate_id, stem(name, ".json"))
        return _landmarks(faces[0] if faces else None)

    return router


def marked_for(console: Console, visit: Visit, picture: Picture) -> Response:
    """A picture as JPEG with the viewer's id and the time over it; `size=small` for a small one."""
    is_small = visit.request.query_params.get("size") == "small"
    side_px = THUMBNAIL_SIDE_PX if is_small else MAX_SIDE_PX
    with Image.open(io.BytesIO(picture.content)) as image:
        content = shown(image, visit.principal.person_id, console.clock.now(), side_px)
    return Response(content, media_type="image/jpeg", headers=PICTURE_HEADERS)


def _landmarks(face: ProbeFace | None, scale: float = 1.0) -> Response:
    found = [[round(x * scale, 1), round(y * scale, 1)] for x, y in face.landmarks] if face is not None else []
    return JSONResponse({"landmarks": found})


def stem(name: str, ending: str) -> str:
    """Raises NotFound for another ending."""
    if not name.endswith(ending):
        raise NotFound("There is no such picture.")
    return name.removesuffix(ending)
