"""The API of the gallery's life: erasures, their certificates, the clock."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from services.ingest.auditing import EnrolmentAudit
from services.ingest.enrolling.checks import CUSTODIAN
from services.ingest.life.certificates import CertificateSigner
from services.ingest.life.clock_guard import ClockGuard
from services.ingest.life.erasing import MAX_QUARANTINE_DAYS, EraseCommand, EraseSubject
from services.ingest.life.erasure import Erasure, ErasureLedger, ErasureState
from services.ingest.whole_subject import Watchlists, require_every_watchlist
from services.shared.errors import Conflict, Forbidden, NotFound
from services.shared.http import bearer
from services.shared.ids import is_id, new_id
from services.shared.tokens import Principal, TokenVerifier

ADMINISTRATOR = "administrator"


class ErasureRequest(BaseModel):
    """What to erase, why and on whose authority."""

    model_config = ConfigDict(extra="forbid")

    subject_id: str = Field(max_length=200)
    reason: str = Field(max_length=200)
    authority: str = Field(max_length=200, description="Who decided: a court's order, a request's number, a policy.")
    # Default: the platform's.
    quarantine_days: int | None = Field(
        default=None, ge=0, le=MAX_QUARANTINE_DAYS, description="Out of search, but not erased yet; 0: at once."
    )
    enrolment_ids: tuple[str, ...] = Field(default=(), max_length=1000, description="Only these; empty: all of it.")


class ErasureView(BaseModel):
    """An erasure as its owner's custodians see it."""

    erasure_id: str
    subject_id: str
    scope: str
    state: ErasureState
    reason: str
    authority: str
    requested_by: str
    requested_at_ms: int
    due_at_ms: int = Field(description="0: at once.")
    finished_at_ms: int | None
    enrolments: int
    stores: dict[str, int]

    @classmethod
    def of(cls, erasure: Erasure) -> "ErasureView":
        return cls(
            erasure_id=erasure.erasure_id,
            subject_id=erasure.subject_id,
            scope="subject" if erasure.is_whole_subject else "enrolments",
            state=erasure.state,
            reason=erasure.reason,
            authority=erasure.authority,
            requested_by=erasure.person_id,
            requested_at_ms=erasure.requested_at_ms,
            due_at_ms=erasure.due_at_ms,
            finished_at_ms=erasure.finished_at_ms,
            enrolments=len(erasure.enrolment_ids),
            stores=dict(erasure.done),
        )


class ErasureList(BaseModel):
    """Newest first."""

    erasures: list[ErasureView]


class LiftAnswer(BaseModel):
    """How many references go back to search."""

    put_back: int


class ClockView(BaseModel):
    """Whether dates that have come may be acted on."""

    is_trusted: bool


class LifeApi:
    """The routes and what they need."""

    def __init__(
        self,
        *,
        erasing: EraseSubject,
        erasures: ErasureLedger,
        signer: CertificateSigner,
        guard: ClockGuard,
        audit: EnrolmentAudit,
        verifier: TokenVerifier,
        quarantine_days: int,
        watchlists: Watchlists,
    ) -> None:
        self._erasing = erasing
        self._erasures = erasures
        self._signer = signer
        self._guard = guard
        self._audit = audit
        self._verifier = verifier
        self._quarantine_days = quarantine_days
        self._watchlists = watchlists

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1", tags=["life of the gallery"])
        caller = Annotated[Principal, Depends(bearer(self._verifier))]
        self._add_erasing(router, caller)
        self._add_reading(router, caller)
        self._add_clock(router, caller)
        return router

    def _add_erasing(self, router: APIRouter, caller: Any) -> None:
        @router.post("/erasures", status_code=202)
        def erase(body: ErasureRequest, principal: caller) -> ErasureView:
            """Erase a subject of your force everywhere. Out of search when this answers; nothing brings it back once
            its quarantine is over."""
            self._require_whole(principal)
            days = self._quarantine_days if body.quarantine_days is None else body.quarantine_days
            command = EraseCommand(body.subject_id, body.reason, body.authority, days, body.enrolment_ids)
            return ErasureView.of(self._erasing.request(command, principal))

        @router.post("/erasures/{erasure_id}/lift")
        def lift(erasure_id: str, principal: caller) -> LiftAnswer:
            """Take an erasure back while its references are in quarantine."""
            self._require_whole(principal)
            return LiftAnswer(put_back=self._erasing.lift(self._own(erasure_id, principal)))

    def _add_reading(self, router: APIRouter, caller: Any) -> None:
        @router.get("/erasures")
        def list_erasures(principal: caller, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> ErasureList:
            """Your force's, newest first. Recorded."""
            self._require_whole(principal)
            found = self._erasures.list(principal.force, limit)
            self._audit.record_list("erasure", principal, len(found))
            return ErasureList(erasures=[ErasureView.of(each) for each in found])

        @router.get("/erasures/certificate-key", response_class=Response)
        def certificate_key(principal: caller) -> Response:
            """The public key that certificates verify with, as PEM."""
            self._require(principal, CUSTODIAN)
            return Response(self._signer.public_key_pem, media_type="application/x-pem-file")

        @router.get("/erasures/{erasure_id}")
        def get_erasure(erasure_id: str, principal: caller) -> ErasureView:
            """One erasure."""
            self._require_whole(principal)
            return ErasureView.of(self._own(erasure_id, principal))

        @router.get("/erasures/{erasure_id}/certificate", response_class=Response)
        def certificate(erasure_id: str, principal: caller) -> Response:
            """The signed certificate, once all is erased. `likeness gallery verify-certificate` checks it offline."""
            self._require_whole(principal)
            erasure = self._own(erasure_id, principal)
            if not erasure.certificate:
                raise Conflict(
                    f"This erasure is not finished: it is {erasure.state.value}.",
                    advice="Ask again when its state is `erased`.",
                    code="not_erased_yet",
                )
            return Response(erasure.certificate, media_type="application/json")

    def _add_clock(self, router: APIRouter, caller: Any) -> None:
        @router.get("/clock")
        def clock(principal: caller) -> ClockView:
            """Whether the platform believes its clock. While it does not, no date that comes deletes anything."""
            self._require(principal, CUSTODIAN, ADMINISTRATOR)
            return ClockView(is_trusted=self._guard.is_trusted())

        @router.post("/clock/confirmation")
        def confirm(principal: caller) -> ClockView:
            """Say that the time is right, after it was set or the platform was away for long."""
            self._require(principal, ADMINISTRATOR)
            self._guard.confirm()
            return ClockView(is_trusted=True)

    def _require(self, principal: Principal, *roles: str) -> None:
        if principal.roles.isdisjoint(roles):
            self._audit.record_refusal(new_id(), principal, "route:life", Forbidden.code)
            raise Forbidden(
                f"This needs the role {' or '.join(roles)}.", advice="Ask an administrator for a token with that role."
            )

    def _require_whole(self, principal: Principal) -> None:
        self._require(principal, CUSTODIAN)
        try:
            require_every_watchlist(principal, self._watchlists)
        except Forbidden as error:
            self._audit.record_refusal(new_id(), principal, "route:life", error.code)
            raise

    def _own(self, erasure_id: str, principal: Principal) -> Erasure:
        found = self._erasures.find(erasure_id) if is_id(erasure_id) else None
        if found is None or found.owner != principal.force:
            raise NotFound("No such erasure.", advice="Check the erasure_id.")
        return found
