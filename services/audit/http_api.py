"""The REST side: auditors read, prove and export."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Query
from fastapi import Path as PathParameter
from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from services.audit.entries import StoredEntry
from services.audit.export_api import add_export
from services.audit.exporting import WholeLogExport
from services.audit.log import Inclusion
from services.audit.ports import EntryFilter
from services.audit.reading import MAX_PAGE, AuditReading
from services.audit.sampling import MAX_SAMPLE
from services.audit.transparency_api import add_transparency
from services.audit.verification import Checkpoint
from services.shared.canonical import MAX_SAFE_INTEGER
from services.shared.clock import rfc3339
from services.shared.http import Readiness, bearer, create_app
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal, TokenVerifier

_Reason = Annotated[str, Query(max_length=200, description="Why the log is read; recorded with the reading.")]
_Month = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")]
_Size = Annotated[int, Query(ge=0, le=MAX_SAFE_INTEGER)]


class EntryView(BaseModel):
    """One entry. `entry` is the canonical value; its exact bytes are in the export and in the single entry."""

    sequence: int
    leaf_hash: str
    entry: dict[str, Any]


class PageView(BaseModel):
    """Entries, newest first; ask again with `before=next_before` for older ones."""

    entries: list[EntryView]
    next_before: int | None
    tree_size: int


class ProofView(BaseModel):
    """RFC 6962 inclusion proof; hashes in hex, from the leaf's sibling up."""

    sequence: int
    tree_size: int
    leaf_hash: str
    path: list[str]
    root_hash: str


class ProvenEntryView(EntryView):
    """`leaf_hash` is SHA-256(0x00 || the UTF-8 bytes of `canonical`)."""

    canonical: str
    proof: ProofView
    checkpoint: dict[str, Any] = Field(description="The checkpoint's body and its Ed25519 signature in hex.")


class SampledView(EntryView):
    """An entry of a sampled search."""

    canonical: str
    proof: ProofView


class SampleView(BaseModel):
    """`population` is how many entries of searches the sample was drawn from, under the checkpoint."""

    seed: str
    population: int
    checkpoint: dict[str, Any]
    searches: list[list[SampledView]]


class ConsistencyView(BaseModel):
    first_size: int
    second_size: int
    path: list[str]


class KeyView(BaseModel):
    """A public signing key in PEM form; `key_id` is the SHA-256 of its DER form."""

    key_id: str
    public_key: str
    since_size: int
    published_at: str


class KeysView(BaseModel):
    keys: list[KeyView]


class RateView(BaseModel):
    """`count` of `total`; `share`, `low` and `high` in [0, 1], the ends of the 95 % Wilson score interval."""

    count: int
    total: int
    share: float
    low: float
    high: float


class RequestFiguresView(BaseModel):
    """`potential_name` is of those released, `unsuitable` of those decided; null where that is 0."""

    category: str
    received: int
    decided: int
    released: int
    potential_name: RateView | None
    unsuitable: RateView | None


class ShareView(BaseModel):
    category: str
    count: int
    rate: RateView | None


class ThresholdView(BaseModel):
    """A threshold that was searched with: two of one watchlist are a change."""

    watchlist: str
    stated: str
    first_seen: str


class StatisticsView(BaseModel):
    """Exact figures, not for publication. `force` is null where all are counted; by watchlist one may count twice."""

    force: str | None
    months: list[str]
    known_months: list[str]
    entries: int = Field(description="How many entries of the log they were counted from.")
    requests: RequestFiguresView
    requests_by: dict[Literal["quality", "offence", "force", "watchlist", "month"], list[RequestFiguresView]]
    searches: int
    searches_by: dict[Literal["purpose", "mode", "source", "case_type", "force", "watchlist", "month"], list[ShareView]]
    refusals: list[ShareView]
    outcomes: list[ShareView]
    false_leads: RateView | None = Field(description="Of the potential names whose outcome is known.")
    thresholds: list[ThresholdView]


def create_http_api(
    reading: AuditReading, exporting: WholeLogExport, verifier: TokenVerifier, metrics: Metrics, readiness: Readiness
) -> FastAPI:
    app = create_app("Likeness audit", metrics, readiness)
    app.include_router(_router(reading, exporting, verifier))
    return app


def _router(reading: AuditReading, exporting: WholeLogExport, verifier: TokenVerifier) -> APIRouter:
    router = APIRouter(prefix="/v1/audit", tags=["audit"])
    caller = Annotated[Principal, Depends(bearer(verifier))]

    @router.get("/entries")
    def entries(reader: caller, wanted: Annotated[_Wanted, Query()]) -> PageView:
        """A page of the log. Reading it is recorded in it."""
        page = reading.page(reader, wanted.filter(), wanted.before, wanted.limit, wanted.reason)
        return PageView(
            entries=[_entry_view(entry) for entry in page.entries],
            next_before=page.next_before,
            tree_size=page.tree_size,
        )

    @router.get("/entries/{sequence}")
    def entry(
        reader: caller,
        sequence: Annotated[int, PathParameter(ge=0, le=MAX_SAFE_INTEGER)],
        reason: _Reason = "",
    ) -> ProvenEntryView:
        """One entry, with its inclusion proof under a signed checkpoint."""
        proven = reading.entry(reader, sequence, reason)
        return ProvenEntryView(
            **_entry_view(proven.entry).model_dump(),
            canonical=proven.entry.canonical.decode(),
            proof=_proof_view(proven.proof),
            checkpoint=_checkpoint_view(proven.checkpoint),
        )

    @router.get("/sample")
    def sample(
        reader: caller,
        seed: Annotated[
            str, Query(min_length=8, max_length=200, pattern=r"^[\x20-\x7e]+$", description="Yours: dice.")
        ],
        count: Annotated[int, Query(ge=1, le=MAX_SAMPLE)] = 10,
        reason: _Reason = "",
    ) -> SampleView:
        """Random searches with their entries and proofs, for inspectors: the seed decides, not the platform."""
        drawn = reading.sample(reader, seed, count, reason)
        return SampleView(
            seed=drawn.seed,
            population=drawn.population,
            checkpoint=_checkpoint_view(drawn.checkpoint),
            searches=[[_sampled_view(entry, proof) for entry, proof in entries] for entries in drawn.searches],
        )

    @router.get("/statistics")
    def statistics(
        reader: caller,
        month: Annotated[
            list[_Month] | None, Query(max_length=60, description="As 2026-10; all when not given.")
        ] = None,
        reason: _Reason = "",
    ) -> StatisticsView:
        """What the unit did, counted from the log; a supervisor sees the own force. Reading it is recorded."""
        figures = reading.statistics(reader, sorted(set(month or ())), reason)
        return StatisticsView.model_validate(figures, from_attributes=True)

    add_transparency(router, reading, caller)
    _add_proofs(router, reading, caller)
    add_export(router, exporting, caller)
    return router


def _add_proofs(router: APIRouter, reading: AuditReading, caller: Any) -> None:
    """What proves the log to whoever reads it, and the whole of it."""

    @router.get("/checkpoint")
    def checkpoint(reader: caller, fresh: bool = False) -> dict[str, Any]:
        """The newest signed checkpoint; with `fresh` one over everything that is in the log now."""
        return _checkpoint_view(reading.checkpoint(reader, fresh=fresh))

    @router.get("/consistency")
    def consistency(reader: caller, first_size: _Size, second_size: _Size) -> ConsistencyView:
        """RFC 6962 consistency proof between two tree sizes."""
        path = reading.consistency(reader, first_size, second_size)
        return ConsistencyView(first_size=first_size, second_size=second_size, path=[part.hex() for part in path])

    @router.get("/keys")
    def keys(reader: caller) -> KeysView:
        """The public keys that sign and have signed checkpoints, oldest first."""
        published = reading.published_keys(reader)
        return KeysView(keys=[KeyView.model_validate(key, from_attributes=True) for key in published])


class _Wanted(BaseModel):
    """The filters of a page; what is not given does not narrow."""

    activity: str | None = Field(default=None, max_length=1024)
    activity_id: str | None = Field(default=None, max_length=1024)
    case_reference: str | None = Field(default=None, max_length=1024)
    person_id: str | None = Field(default=None, max_length=1024)
    recorded_from: AwareDatetime | None = None
    recorded_before: AwareDatetime | None = None
    before: int | None = Field(default=None, ge=0, le=MAX_SAFE_INTEGER)
    limit: int = Field(default=100, ge=1, le=MAX_PAGE)
    reason: str = Field(default="", max_length=200, description="Why the log is read; recorded with the reading.")

    def filter(self) -> EntryFilter:
        return EntryFilter(
            activity=self.activity,
            activity_id=self.activity_id,
            case_reference=self.case_reference,
            person_id=self.person_id,
            recorded_from=None if self.recorded_from is None else rfc3339(self.recorded_from),
            recorded_before=None if self.recorded_before is None else rfc3339(self.recorded_before),
        )


def _entry_view(entry: StoredEntry) -> EntryView:
    return EntryView(sequence=entry.sequence, leaf_hash=entry.leaf_hash.hex(), entry=entry.facts())


def _sampled_view(entry: StoredEntry, proof: Inclusion) -> SampledView:
    return SampledView(**_entry_view(entry).model_dump(), canonical=entry.canonical.decode(), proof=_proof_view(proof))


def _proof_view(proof: Inclusion) -> ProofView:
    return ProofView(
        sequence=proof.sequence,
        tree_size=proof.tree_size,
        leaf_hash=proof.leaf_hash.hex(),
        path=[part.hex() for part in proof.path],
        root_hash=proof.root_hash.hex(),
    )


def _checkpoint_view(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"checkpoint": checkpoint.body(), "signature": checkpoint.signature.hex()}
