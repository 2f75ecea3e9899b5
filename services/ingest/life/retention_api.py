"""The API of retention: what is due for review, and what is decided."""

from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from services.ingest.auditing import EnrolmentAudit
from services.ingest.enrolling.checks import CUSTODIAN
from services.ingest.life.clock_guard import ClockGuard
from services.ingest.life.erasing import MAX_QUARANTINE_DAYS
from services.ingest.life.retention import DueReview, Retention
from services.ingest.ports import EnrolmentLedger
from services.shared.errors import Forbidden, NotFound
from services.shared.http import bearer
from services.shared.ids import is_id, new_id
from services.shared.tokens import Principal, TokenVerifier


class ReviewView(BaseModel):
    """A reference whose review is due."""

    enrolment_id: str
    subject_id: str
    watchlist: str
    captured_on: str
    custody_reference: str
    disposal: str
    disposal_on: str
    birth_band: str
    due_on: date
    rule: str
    presume: str

    @classmethod
    def of(cls, review: DueReview) -> "ReviewView":
        reference = review.reference
        return cls(
            enrolment_id=reference.enrolment_id,
            subject_id=reference.subject_id,
            watchlist=reference.watchlist_id,
            captured_on=reference.captured_on,
            custody_reference=reference.custody_reference,
            disposal=reference.disposal,
            disposal_on=reference.disposal_on,
            birth_band=reference.birth_band,
            due_on=review.due_on,
            rule=review.rule_id,
            presume=review.presume,
        )


class ReviewList(BaseModel):
    """The longest due first. While the clock is not trusted, look twice at what is due today and was not yesterday."""

    reviews: list[ReviewView]
    due: int
    without_rule: int
    is_clock_trusted: bool


class DecisionRequest(BaseModel):
    """What a person decided about one reference, and why."""

    model_config = ConfigDict(extra="forbid")

    decision: Literal["retain", "erase"]
    reason: str = Field(max_length=200)
    next_due_on: date | None = Field(default=None, description="For `retain`; the rule's latest day when left out.")
    quarantine_days: int | None = Field(default=None, ge=0, le=MAX_QUARANTINE_DAYS, description="For `erase`.")


class DecisionAnswer(BaseModel):
    """`next_due_on` of a reference that is kept, `erasure_id` of one that is erased."""

    next_due_on: date | None = None
    erasure_id: str | None = None


class RetentionApi:
    """The routes and what they need."""

    def __init__(
        self,
        *,
        retention: Retention,
        ledger: EnrolmentLedger,
        guard: ClockGuard,
        audit: EnrolmentAudit,
        verifier: TokenVerifier,
        quarantine_days: int,
    ) -> None:
        self._retention = retention
        self._ledger = ledger
        self._guard = guard
        self._audit = audit
        self._verifier = verifier
        self._quarantine_days = quarantine_days

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/reviews", tags=["retention"])
        caller = Annotated[Principal, Depends(bearer(self._verifier))]
        self._add_routes(router, caller)
        return router

    def _add_routes(self, router: APIRouter, caller: Any) -> None:
        @router.get("")
        def due(
            principal: caller, until: date | None = None, limit: Annotated[int, Query(ge=1, le=10_000)] = 100
        ) -> ReviewList:
            """Your force's references whose review is due, today or by a day that you name. Recorded."""
            self._require(principal)
            reviews, count, without_rule = self._retention.due(principal, until, limit)
            self._audit.record_list("review", principal, len(reviews))
            return ReviewList(
                reviews=[ReviewView.of(review) for review in reviews],
                due=count,
                without_rule=without_rule,
                is_clock_trusted=self._guard.is_trusted(),
            )

        @router.post("/{enrolment_id}")
        def decide(enrolment_id: str, body: DecisionRequest, principal: caller) -> DecisionAnswer:
            """Keep a reference until its next review, or erase it after its quarantine."""
            self._require(principal)
            view = self._ledger.view(enrolment_id) if is_id(enrolment_id) else None
            if view is None or view.owner != principal.force or view.watchlist_id not in principal.watchlists:
                raise NotFound("No such enrolment.", advice="Check the enrolment_id and that your token permits it.")
            if body.decision == "retain":
                day = self._retention.retain(view, principal, body.reason, body.next_due_on)
                return DecisionAnswer(next_due_on=day)
            days = self._quarantine_days if body.quarantine_days is None else body.quarantine_days
            return DecisionAnswer(erasure_id=self._retention.erase(view, principal, body.reason, days))

    def _require(self, principal: Principal) -> None:
        if CUSTODIAN not in principal.roles:
            self._audit.record_refusal(new_id(), principal, "route:reviews", Forbidden.code)
            raise Forbidden(
                "This needs the role custodian.", advice="Ask an administrator for a token with the role custodian."
            )
