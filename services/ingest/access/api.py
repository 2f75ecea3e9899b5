"""The API of access packages."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from services.ingest.access.give import NOT_FOUND, AccessCommand, GiveAccess
from services.ingest.auditing import EnrolmentAudit
from services.ingest.enrolling.checks import CUSTODIAN
from services.ingest.whole_subject import Watchlists, require_every_watchlist
from services.shared.errors import Forbidden, NotFound
from services.shared.http import bearer
from services.shared.ids import new_id
from services.shared.tokens import Principal, TokenVerifier


class AccessRequest(BaseModel):
    """Whose package, why, and on which request of the person."""

    model_config = ConfigDict(extra="forbid")

    subject_id: str = Field(max_length=200)
    owner: str = Field(default="", max_length=200, description="If given, it has to be your force.")
    reason: str = Field(max_length=200)
    authority: str = Field(max_length=200, description="The number of the person's request, or the court's order.")
    withhold_searches: str = Field(
        default="",
        max_length=200,
        description="Why searches and disclosures are left out (DPA 2018 s.45(4)); it stands in the audit log alone.",
    )


class AccessApi:
    """The route and what it needs."""

    def __init__(
        self, giving: GiveAccess, audit: EnrolmentAudit, verifier: TokenVerifier, watchlists: Watchlists
    ) -> None:
        self._watchlists = watchlists
        self._giving = giving
        self._audit = audit
        self._verifier = verifier

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/subjects", tags=["subject access"])
        caller: Any = Annotated[Principal, Depends(bearer(self._verifier))]

        @router.post("/access", response_class=Response)
        def give_access(body: AccessRequest, principal: caller) -> Response:
            """Everything that is held of one subject of your force, as a signed zip file. A disclosure: it is in the
            audit log before you have it."""
            self._require(principal)
            if body.owner not in ("", principal.force):
                raise NotFound(NOT_FOUND, advice="Only the owner force gives its subjects their packages.")
            command = AccessCommand(body.subject_id, body.reason, body.authority, body.withhold_searches.strip())
            headers = {"Content-Disposition": 'attachment; filename="access-package.zip"', "Cache-Control": "no-store"}
            return Response(self._giving.give(command, principal), media_type="application/zip", headers=headers)

        return router

    def _require(self, principal: Principal) -> None:
        if CUSTODIAN not in principal.roles:
            self._audit.record_refusal(new_id(), principal, "route:subject-access", Forbidden.code)
            raise Forbidden(
                "This needs the role custodian.", advice="Ask an administrator for a token with the role custodian."
            )
        try:
            require_every_watchlist(principal, self._watchlists)
        except Forbidden as error:
            self._audit.record_refusal(new_id(), principal, "route:subject-access", error.code)
            raise
