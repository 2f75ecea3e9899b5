"""The API of flags, for custodians of the owner force."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from services.ingest.auditing import EnrolmentAudit
from services.ingest.enrolling.checks import CUSTODIAN
from services.ingest.flags.deciding import DecideFlag
from services.ingest.flags.model import Flag, FlagFilter, FlagKind, FlagState, FlagStore
from services.shared.errors import Forbidden
from services.shared.http import bearer
from services.shared.ids import new_id
from services.shared.tokens import Principal, TokenVerifier

_WHAT_TO_DO = {
    FlagKind.DUPLICATE: "Compare the two images. If they are one picture, withdraw one of the enrolments.",
    FlagKind.SAME_PERSON: "Compare the images and the custody records; relatives and twins are alike as well. If it "
    "is one person, merge the subjects in the custody system.",
    FlagKind.WRONG_SUBJECT: "Compare the image with the subject's others. If it shows somebody else, move it to the "
    "right subject in the custody system, or withdraw it.",
}


class FlaggedView(BaseModel):
    """A reference that the flag is about."""

    reference_id: str
    enrolment_id: str
    subject_id: str = Field(description="As it was when it was flagged.")


class FlagView(BaseModel):
    """A flag as its owner's custodians see it. Raised by the machine; nothing follows from it by itself."""

    flag_id: str
    kind: FlagKind
    watchlist: str
    subject_ids: list[str]
    band: str = Field(description="probable, strong or near_identical; unlike for a suspected wrong subject.")
    points_version: str = Field(description="The flag points by which it was raised.")
    model_id: str
    raised_at_ms: int
    references: list[FlaggedView]
    what_to_do: str
    state: FlagState
    decided_at_ms: int | None
    decided_by: str
    reason: str

    @classmethod
    def of(cls, flag: Flag) -> "FlagView":
        return cls(
            flag_id=flag.flag_id,
            kind=flag.kind,
            watchlist=flag.watchlist_id,
            subject_ids=[each for each in (flag.subject_id, flag.other_subject_id) if each],
            band=flag.band,
            points_version=flag.points_version,
            model_id=flag.model_id,
            raised_at_ms=flag.raised_at_ms,
            references=[
                FlaggedView(reference_id=r.reference_id, enrolment_id=r.enrolment_id, subject_id=r.subject_id)
                for r in flag.references
            ],
            what_to_do=_WHAT_TO_DO[flag.kind],
            state=flag.state,
            decided_at_ms=flag.decided_at_ms,
            decided_by=flag.decided_by,
            reason=flag.reason,
        )


class FlagList(BaseModel):
    """By flag_id; `next` is the `after` of the next page, empty where this is the last."""

    flags: list[FlagView]
    next: str


class FlagDecision(BaseModel):
    """What a person found, and why."""

    model_config = ConfigDict(extra="forbid")

    decision: Literal["dismissed", "acted"]
    reason: str = Field(max_length=200)


class ScanAnswer(BaseModel):
    """What is checked once more."""

    watchlists: list[str]


class FlagsApi:
    """The routes and what they need."""

    def __init__(
        self, *, store: FlagStore, deciding: DecideFlag, audit: EnrolmentAudit, verifier: TokenVerifier
    ) -> None:
        self._store = store
        self._deciding = deciding
        self._audit = audit
        self._verifier = verifier

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/flags", tags=["flags"])
        caller = Annotated[Principal, Depends(bearer(self._verifier))]
        self._add_reading(router, caller)
        self._add_deciding(router, caller)
        return router

    def _add_reading(self, router: APIRouter, caller: Any) -> None:
        @router.get("")
        def list_flags(
            principal: caller,
            state: FlagState | None = FlagState.OPEN,
            kind: FlagKind | None = None,
            after: Annotated[str, Query(max_length=36)] = "",
            limit: Annotated[int, Query(ge=1, le=500)] = 100,
        ) -> FlagList:
            """Your force's flags in the watchlists of your token, open ones unless you ask otherwise. Recorded."""
            self._require(principal)
            selection = FlagFilter(principal.force, principal.watchlists, state, kind, after, limit)
            found = self._store.list(selection)
            self._audit.record_list("flag", principal, len(found))
            following = found[-1].flag_id if len(found) == limit else ""
            return FlagList(flags=[FlagView.of(flag) for flag in found], next=following)

        @router.get("/{flag_id}")
        def get_flag(flag_id: str, principal: caller) -> FlagView:
            """One flag; that you looked at it is in the audit log."""
            self._require(principal)
            return FlagView.of(self._deciding.view(flag_id, principal))

    def _add_deciding(self, router: APIRouter, caller: Any) -> None:
        @router.post("/{flag_id}/decision")
        def decide(flag_id: str, body: FlagDecision, principal: caller) -> FlagView:
            """Say what you found. `dismissed`: nothing in it, and it is not flagged again. `acted`: the records were
            put right, by you or by the custody system; this call does not do it."""
            self._require(principal)
            state = FlagState(body.decision)
            return FlagView.of(self._deciding.decide(flag_id, state, body.reason, principal))

        @router.post("/scan", status_code=202)
        def scan(principal: caller) -> ScanAnswer:
            """Check every reference in the watchlists of your token once more, as after new flag points."""
            self._require(principal)
            self._store.start_again(principal.watchlists)
            return ScanAnswer(watchlists=sorted(principal.watchlists))

    def _require(self, principal: Principal) -> None:
        if CUSTODIAN not in principal.roles:
            self._audit.record_refusal(new_id(), principal, "route:flags", Forbidden.code)
            raise Forbidden(
                "This needs the role custodian.", advice="Ask an administrator for a token with the role custodian."
            )
