"""The API for what came from custody systems: comparison with the owner's count, dead letters."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from services.ingest.auditing import EnrolmentAudit
from services.ingest.enrolling.checks import CUSTODIAN
from services.ingest.life.custody import CustodyLedger, OwnersItem
from services.ingest.life.dead_letters import DeadLetters
from services.ingest.life.searchability import SearchabilitySource, searchability
from services.ingest.whole_subject import Watchlists, require_every_watchlist
from services.shared.errors import Forbidden
from services.shared.http import bearer
from services.shared.ids import new_id
from services.shared.tokens import Principal, TokenVerifier

_ITEMS = 1000
_MONTH = r"^\d{4}-\d{2}$"


class CountedImage(BaseModel):
    """One image as the owner counts it: by its event, or by subject and SHA-256."""

    model_config = ConfigDict(extra="forbid")

    event_id: str = Field(default="", max_length=200)
    subject_id: str = Field(default="", max_length=200)
    image_sha256: str = Field(default="", max_length=64)


class Comparison(BaseModel):
    """Up to 1,000 at once."""

    model_config = ConfigDict(extra="forbid")

    images: list[CountedImage] = Field(max_length=_ITEMS)


class Found(BaseModel):
    """Where it is: `enrolled` and the ledger's other states; `refused` with the receipt's reason where it never became
    an enrolment; `never_received`."""

    event_id: str
    subject_id: str
    image_sha256: str
    state: str
    reason: str
    detail: str
    enrolment_id: str


class ComparisonAnswer(BaseModel):
    """In the order of the request."""

    images: list[Found]


class Letter(BaseModel):
    """A dead letter, without its content."""

    place: str
    topic: str
    subject_id: str
    event_id: str
    reason: str
    detail: str
    size_bytes: int
    is_settled: bool


class LetterList(BaseModel):
    """Oldest first."""

    letters: list[Letter]


class ReplayRequest(BaseModel):
    """Which letters; none named: all that are not settled."""

    model_config = ConfigDict(extra="forbid")

    places: list[str] = Field(default=[], max_length=10_000)


class ReplayAnswer(BaseModel):
    """How many were sent once more."""

    replayed: int


class SearchabilityRow(BaseModel):
    """One device in one month of capture; an empty device where the custody system does not say."""

    device: str
    month: str
    images: int
    searchable: int
    with_warning: int
    reasons: dict[str, int]
    mean_quality: float | None
    advice: list[str]


class SearchabilityReport(BaseModel):
    """By month, the worst device first."""

    force: str
    rows: list[SearchabilityRow]


class CustodyApi:
    """The routes and what they need."""

    def __init__(
        self,
        *,
        custody: CustodyLedger,
        letters: DeadLetters,
        searchability: SearchabilitySource,
        audit: EnrolmentAudit,
        verifier: TokenVerifier,
        watchlists: Watchlists,
    ) -> None:
        self._watchlists = watchlists
        self._custody = custody
        self._searchability = searchability
        self._letters = letters
        self._audit = audit
        self._verifier = verifier

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1", tags=["custody feed"])
        caller = Annotated[Principal, Depends(bearer(self._verifier))]
        self._add_comparison(router, caller)
        self._add_letters(router, caller)
        self._add_searchability(router, caller)
        return router

    def _add_searchability(self, router: APIRouter, caller: Any) -> None:
        @router.get("/searchability")
        def report(
            principal: caller,
            since: Annotated[str, Query(pattern=_MONTH, description="The first month of capture.")] = "1900-01",
            until: Annotated[str, Query(pattern=_MONTH, description="The last month of capture.")] = "9999-12",
        ) -> SearchabilityReport:
            """How many of your force's images cannot be searched, by device and month, and what to change there."""
            self._require(principal)
            tallies = self._searchability.tallies(principal.force, principal.watchlists, since, until)
            rows = [SearchabilityRow.model_validate(asdict(each)) for each in searchability(tallies)]
            return SearchabilityReport(force=principal.force, rows=rows)

    def _add_comparison(self, router: APIRouter, caller: Any) -> None:
        @router.post("/custody/comparison")
        def compare(body: Comparison, principal: caller) -> ComparisonAnswer:
            """Where each image is that your force counts, and why it cannot be searched where it cannot."""
            self._require_whole(principal)
            items = [OwnersItem(each.event_id, each.subject_id, each.image_sha256) for each in body.images]
            return ComparisonAnswer(
                images=[
                    Found(
                        event_id=each.item.event_id,
                        subject_id=each.item.subject_id,
                        image_sha256=each.item.image_sha256,
                        state=each.state,
                        reason=each.reason,
                        detail=each.detail,
                        enrolment_id=each.enrolment_id,
                    )
                    for each in self._custody.whereabouts(principal.force, items)
                ]
            )

    def _add_letters(self, router: APIRouter, caller: Any) -> None:
        @router.get("/dead-letters")
        def list_letters(principal: caller) -> LetterList:
            """Your force's dead letters. Recorded."""
            self._require_whole(principal)
            found = self._letters.list(principal.force)
            self._audit.record_list("dead_letter", principal, len(found))
            return LetterList(
                letters=[
                    Letter(
                        place=each.place,
                        topic=each.topic,
                        subject_id=each.subject_id,
                        event_id=each.event_id,
                        reason=each.reason,
                        detail=each.detail,
                        size_bytes=each.size_bytes,
                        is_settled=each.is_settled,
                    )
                    for each in found
                ]
            )

        @router.post("/dead-letters/replay")
        def replay(body: ReplayRequest, principal: caller) -> ReplayAnswer:
            """Send dead letters through once more, after what was wrong has been mended."""
            self._require_whole(principal)
            return ReplayAnswer(replayed=self._letters.replay(principal.force, body.places))

    def _require(self, principal: Principal) -> None:
        if CUSTODIAN not in principal.roles:
            self._audit.record_refusal(new_id(), principal, "route:custody", Forbidden.code)
            raise Forbidden(
                "This needs the role custodian.", advice="Ask an administrator for a token with the role custodian."
            )

    def _require_whole(self, principal: Principal) -> None:
        """For what is about images and subjects wherever they stand."""
        self._require(principal)
        try:
            require_every_watchlist(principal, self._watchlists)
        except Forbidden as error:
            self._audit.record_refusal(new_id(), principal, "route:custody", error.code)
            raise
