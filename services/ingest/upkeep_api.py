"""The API of the gallery's upkeep: reconcile it with the ledger, rebuild it from the ledger."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from services.ingest.auditing import EnrolmentAudit
from services.ingest.checks import CUSTODIAN
from services.ingest.life.reconciliation import Reconcile, Reconciliation
from services.ingest.life_api import ADMINISTRATOR
from services.shared.errors import Forbidden, NotFound
from services.shared.http import bearer
from services.shared.ids import new_id
from services.shared.tokens import Principal, TokenVerifier


class DriftView(BaseModel):
    """How many, and the first of them by id."""

    count: int
    ids: list[str]


class ReconciliationView(BaseModel):
    """Ledger against gallery against images. Drift of the gallery has been put right."""

    reconciliation_id: str
    started_at: str
    finished_at: str
    is_deep: bool
    is_clean: bool
    compared: int
    missing_in_gallery: DriftView
    other_in_gallery: DriftView
    surplus_in_gallery: DriftView
    images: int
    missing_images: DriftView
    damaged_images: DriftView
    erased_again: int

    @classmethod
    def of(cls, found: Reconciliation) -> "ReconciliationView":
        return cls(**asdict(found), is_clean=found.is_clean)


class ReconciliationRequest(BaseModel):
    """How to compare."""

    model_config = ConfigDict(extra="forbid")

    is_deep: bool = Field(default=False, description="Read every image and compare its bytes with its name.")


class RebuildAnswer(BaseModel):
    """What the rebuilt gallery holds."""

    store: str
    model: str
    searchable: dict[str, int]


class UpkeepApi:
    """The routes and what they need. Upkeep changes nothing that the ledger says, so custodians may have it done."""

    def __init__(self, reconcile: Reconcile, audit: EnrolmentAudit, verifier: TokenVerifier) -> None:
        self._reconcile = reconcile
        self._audit = audit
        self._verifier = verifier

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/gallery", tags=["upkeep of the gallery"])
        caller = Annotated[Principal, Depends(bearer(self._verifier))]
        self._add_routes(router, caller)
        return router

    def _add_routes(self, router: APIRouter, caller: Any) -> None:
        @router.post("/reconciliation")
        def reconcile(body: ReconciliationRequest, principal: caller) -> ReconciliationView:
            """Compare ledger, gallery and images now; put the gallery right."""
            self._require(principal)
            return ReconciliationView.of(self._reconcile.run(is_deep=body.is_deep))

        @router.get("/reconciliation")
        def latest(principal: caller) -> ReconciliationView:
            """The latest since the service started."""
            self._require(principal)
            found = self._reconcile.latest
            if found is None:
                raise NotFound("Nothing has been compared since the start.", advice="POST here to compare now.")
            return ReconciliationView.of(found)

        @router.post("/rebuild")
        def rebuild(principal: caller) -> RebuildAnswer:
            """Fill the gallery anew from the ledger while searches go on over the one in use."""
            self._require(principal)
            found = self._reconcile.rebuild()
            # How many stand on a list is for those whose token names it, and for whoever runs the platform.
            shown = {
                name: count
                for name, count in found.searchable_by_watchlist.items()
                if name in principal.watchlists or ADMINISTRATOR in principal.roles
            }
            return RebuildAnswer(store=found.store, model=found.model_id, searchable=shown)

    def _require(self, principal: Principal) -> None:
        if principal.roles.isdisjoint({CUSTODIAN, ADMINISTRATOR}):
            self._audit.record_refusal(new_id(), principal, "route:gallery", Forbidden.code)
            raise Forbidden(
                "This needs the role custodian or administrator.", advice="Ask an administrator for such a token."
            )
