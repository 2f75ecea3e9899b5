"""`GET /v1/casework/{request_id}/unsolved`."""

# No postponed annotations: FastAPI could not resolve the local name in that of the endpoint.
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from services.review.callers import calling
from services.review.casework.caller import Caller
from services.review.unsolved.looking import SeeKept
from services.review.unsolved.ports import KeptState
from services.shared.tokens import TokenVerifier


class KeptAnswer(BaseModel):
    """When a kept probe was last searched again, or why it was not. Nothing of what was found."""

    request_id: str
    state: KeptState
    reason: str
    looked_at: datetime | None
    searched_at: datetime | None


def create_unsolved_router(see: SeeKept, verifier: TokenVerifier) -> APIRouter:
    router = APIRouter(prefix="/v1/casework", tags=["casework"])

    @router.get("/{request_id}/unsolved", summary="How far a kept probe has been searched again")
    def kept(who: Annotated[Caller, Depends(calling(verifier))], request_id: str) -> KeptAnswer:
        """For operators who may work on the case. `denied` and `no_mandate` say why it was not searched."""
        view = see(who, request_id)
        return KeptAnswer(
            request_id=request_id,
            state=view.state,
            reason=view.reason,
            looked_at=view.looked_at,
            searched_at=view.searched_at,
        )

    return router
