"""The API of the gallery's upkeep: reconcile it with the ledger, rebuild it from the ledger."""

from dataclasses import asdict, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from services.ingest.auditing import EnrolmentAudit
from services.ingest.enrolling.checks import CUSTODIAN
from services.ingest.life.api import ADMINISTRATOR
from services.ingest.life.reconciliation import Reconcile, Reconciliation
from services.ingest.life.sweeping import Sweep, SweepImages
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

    scope: str = Field(description="`platform`: everything. `own`: your force's in the watchlists of your token alone.")
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
    def of(cls, found: Reconciliation, principal: Principal) -> "ReconciliationView":
        """How many another force has, and which of its ids drifted, is for whoever runs the platform."""
        sees_all = ADMINISTRATOR in principal.roles or found.is_all_of(principal.force, principal.watchlists)
        shown = replace(found, parts={}) if sees_all else found.seen_from(principal.force, principal.watchlists)
        facts = asdict(shown)
        del facts["parts"]
        return cls(**facts, scope="platform" if sees_all else "own", is_clean=shown.is_clean)


class ReconciliationRequest(BaseModel):
    """How to compare."""

    model_config = ConfigDict(extra="forbid")

    is_deep: bool = Field(default=False, description="Read every image and compare its bytes with its name.")


class SweepRequest(BaseModel):
    """How to sweep."""

    model_config = ConfigDict(extra="forbid")

    is_confirmed: bool = Field(
        default=False, description="Remove what nothing names however much it is. For administrators."
    )


class SweepView(BaseModel):
    """Images that nothing names. `young`: stored too short a time ago to say; `locked`: kept by the store's own lock;
    `spared`: named or stored again meanwhile; `held_back`: left, because they are too many or the clock is not trusted.
    """

    scope: str = Field(description="`platform`: everything. `own`: done, and how many they were is not yours to know.")
    sweep_id: str
    started_at: str
    finished_at: str
    images: int
    orphans: DriftView
    young: int
    removed: int
    locked: int
    spared: int
    held_back: int

    @classmethod
    def of(cls, found: Sweep, *, sees_all: bool) -> "SweepView":
        """What nothing names is nobody's: how many images a platform of several forces has is for whoever runs it."""
        shown = found if sees_all else Sweep(found.sweep_id, found.started_at, found.finished_at)
        return cls(**asdict(shown), scope="platform" if sees_all else "own")


class RebuildAnswer(BaseModel):
    """What the rebuilt gallery holds; for a custodian, what the ledger has enrolled of their own force."""

    store: str
    model: str
    searchable: dict[str, int]


class UpkeepApi:
    """The routes and what they need. Upkeep changes nothing that the ledger says, so custodians may have it done."""

    def __init__(
        self, reconcile: Reconcile, sweep: SweepImages, audit: EnrolmentAudit, verifier: TokenVerifier
    ) -> None:
        self._reconcile = reconcile
        self._sweep = sweep
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
            return ReconciliationView.of(self._reconcile.run(is_deep=body.is_deep), principal)

        @router.get("/reconciliation")
        def latest(principal: caller) -> ReconciliationView:
            """The latest since the service started."""
            self._require(principal)
            found = self._reconcile.latest
            if found is None:
                raise NotFound("Nothing has been compared since the start.", advice="POST here to compare now.")
            return ReconciliationView.of(found, principal)

        @router.post("/rebuild")
        def rebuild(principal: caller) -> RebuildAnswer:
            """Fill the gallery anew from the ledger while searches go on over the one in use."""
            self._require(principal)
            found = self._reconcile.rebuild()
            # How many stand on a list is for whoever runs the platform; a custodian is told of their own force's.
            is_platform = ADMINISTRATOR in principal.roles
            own = self._reconcile.standing(principal.force, principal.watchlists)
            shown = dict(found.searchable_by_watchlist if is_platform else own)
            return RebuildAnswer(store=found.store, model=found.model_id, searchable=shown)

        self._add_sweep(router, caller)

    def _add_sweep(self, router: APIRouter, caller: Any) -> None:
        @router.post("/image-sweep")
        def sweep(body: SweepRequest, principal: caller) -> SweepView:
            """Remove images now that nothing names: what uploads left that were cut off before they were accepted."""
            self._require(principal)
            if body.is_confirmed and ADMINISTRATOR not in principal.roles:
                raise Forbidden("Only an administrator confirms a sweep.", advice="Sweep without `is_confirmed`.")
            found = self._sweep.run(principal, is_confirmed=body.is_confirmed)
            return SweepView.of(found, sees_all=self._sees_all(principal))

        @router.get("/image-sweep")
        def latest_sweep(principal: caller) -> SweepView:
            """The latest since the service started."""
            self._require(principal)
            found = self._sweep.latest
            if found is None:
                raise NotFound("Nothing has been swept since the start.", advice="POST here to sweep now.")
            return SweepView.of(found, sees_all=self._sees_all(principal))

    def _sees_all(self, principal: Principal) -> bool:
        return ADMINISTRATOR in principal.roles or self._reconcile.is_all_of(principal.force, principal.watchlists)

    def _require(self, principal: Principal) -> None:
        if principal.roles.isdisjoint({CUSTODIAN, ADMINISTRATOR}):
            self._audit.record_refusal(new_id(), principal, "route:gallery", Forbidden.code)
            raise Forbidden(
                "This needs the role custodian or administrator.", advice="Ask an administrator for such a token."
            )
