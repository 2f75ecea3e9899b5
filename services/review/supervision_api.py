"""The REST API of supervision: figures, training, known-answer probes."""

# No postponed annotations: FastAPI could not resolve the local names in those below.
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import TypeAdapter

from services.review.api_models import RequestStatus, TrainingBody, request_status
from services.review.callers import calling
from services.review.casework.caller import Caller
from services.review.casework.desk import Desk
from services.review.casework.intake import PLANTERS
from services.review.casework.supervision import Figures, TrainingRow
from services.review.http_api import IMAGES
from services.review.model import Training
from services.shared.errors import InvalidRequest
from services.shared.multipart import Upload, read_multipart
from services.shared.tokens import TokenVerifier

_FIGURES = TypeAdapter(Figures)
_ROWS = TypeAdapter(list[TrainingRow])
_TRAINING = TypeAdapter(Training)


def create_supervision_router(desk: Desk, verifier: TokenVerifier) -> APIRouter:
    """Routes under `/v1/supervision`."""
    router = APIRouter(prefix="/v1/supervision", tags=["supervision"])
    caller = calling(verifier)

    def planter(who: Annotated[Caller, Depends(caller)]) -> None:
        desk.intake.admit(who, *PLANTERS)

    async def form(_admitted: Annotated[None, Depends(planter)], request: Request) -> Upload:
        return await read_multipart(request, frozenset({IMAGES}), max_text_bytes=8000)

    @router.get("/figures", summary="Workload, turnaround, agreement, known answers")
    def figures(who: Annotated[Caller, Depends(caller)]) -> dict[str, Any]:
        dumped: dict[str, Any] = _FIGURES.dump_python(desk.supervision.figures(who), mode="json")
        return dumped

    @router.get("/trainings", summary="Who is trained, and until when")
    def trainings(who: Annotated[Caller, Depends(caller)]) -> list[dict[str, Any]]:
        dumped: list[dict[str, Any]] = _ROWS.dump_python(list(desk.supervision.trainings(who)), mode="json")
        return dumped

    @router.put("/trainings/{person_id}", summary="Record a training")
    def record(who: Annotated[Caller, Depends(caller)], person_id: str, body: TrainingBody) -> dict[str, Any]:
        """Nobody records their own."""
        made = desk.supervision.record_training(
            who,
            person_id,
            course=body.course,
            certificate=body.certificate,
            trained_on=body.trained_on,
            expires_on=body.expires_on,
        )
        dumped: dict[str, Any] = _TRAINING.dump_python(made, mode="json")
        return dumped

    @router.post("/known-answers", status_code=201, summary="Plant a probe whose answer is known")
    def plant(who: Annotated[Caller, Depends(caller)], upload: Annotated[Upload, Depends(form)]) -> RequestStatus:
        """The form of a request, and `shown_requester`, `subject_owner`, `subject_id` (both empty: nobody is right)."""
        texts = dict(upload.texts)
        shown, owner, subject = (_taken(texts, name) for name in ("shown_requester", "subject_owner", "subject_id"))
        if not shown or bool(owner) != bool(subject):
            raise InvalidRequest(
                "Missing or invalid: shown_requester, subject_owner, subject_id.",
                advice="Say whom it is shown as asked by; give both of owner and subject, or neither.",
            )
        answer = (owner, subject) if subject else None
        return request_status(desk.intake.plant(who, texts, upload.files.get(IMAGES, ()), answer, shown))

    return router


def _taken(texts: dict[str, tuple[str, ...]], name: str) -> str:
    values = texts.pop(name, ())
    return values[0].strip()[:128] if len(values) == 1 else ""
