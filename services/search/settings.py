"""Settings of search, from LIKENESS_SEARCH__…"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import SettingsConfigDict

from services.search.film.settings import FilmsSettings
from services.search.identification.near_duplicates import NearDuplicateSettings
from services.search.partners.settings import PartnersSettings
from services.search.shadow.settings import ShadowSettings
from services.shared.cores import places
from services.shared.settings import (
    DatabaseSettings,
    ImageStoreSettings,
    RateLimitSettings,
    ScannerSettings,
    ServiceSettings,
)

# The parameters that Milvus knows of each kind of index: when it is built, when it is searched.
_INDEXES: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "FLAT": (frozenset(), frozenset()),
    "HNSW": (frozenset({"M", "efConstruction"}), frozenset({"ef"})),
    "IVF_FLAT": (frozenset({"nlist"}), frozenset({"nprobe"})),
    "GPU_BRUTE_FORCE": (frozenset(), frozenset()),
    "GPU_IVF_FLAT": (frozenset({"nlist"}), frozenset({"nprobe"})),
    "GPU_CAGRA": (
        frozenset({"intermediate_graph_degree", "graph_degree", "nn_descent_niter"}),
        frozenset({"itopk_size", "search_width", "min_iterations", "max_iterations", "team_size"}),
    ),
}
EXACT_INDEXES = frozenset({"FLAT", "GPU_BRUTE_FORCE"})
_NEEDED: Mapping[str, tuple[dict[str, int], dict[str, int]]] = {
    "HNSW": ({"M": 32, "efConstruction": 400}, {"ef": 512}),
    "IVF_FLAT": ({"nlist": 128}, {"nprobe": 64}),
    "GPU_IVF_FLAT": ({"nlist": 128}, {"nprobe": 64}),
    "GPU_CAGRA": ({"intermediate_graph_degree": 128, "graph_degree": 64}, {"itopk_size": 512}),
}


class GalleryIndexSettings(BaseModel):
    """The index of a Milvus gallery. `FLAT` compares with every reference; so does `GPU_BRUTE_FORCE` on a GPU.

    Any other misses some, and is measured: when the gallery is loaded, when it is a tenth larger, every
    `measure_every_h`. Below `min_recall` searches are refused, or answered with the figure in the answer (`warn`).
    `build` and `search` are Milvus's parameters by their names; what is left out has the values of docs/operations.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["FLAT", "HNSW", "IVF_FLAT", "GPU_BRUTE_FORCE", "GPU_IVF_FLAT", "GPU_CAGRA"] = "FLAT"
    build: dict[str, int] = {}
    search: dict[str, int] = {}
    min_recall: float = Field(default=0.99, ge=0, le=1)
    below_floor: Literal["refuse", "warn"] = "refuse"
    probes: int = Field(default=200, ge=10, le=10_000)
    measure_every_h: float = Field(default=24.0, gt=0)

    @model_validator(mode="after")
    def _known_parameters(self) -> GalleryIndexSettings:
        for given, known, needed in zip(
            (self.build, self.search), _INDEXES[self.kind], _NEEDED.get(self.kind, ({}, {})), strict=True
        ):
            unknown = sorted(given.keys() - known)
            if unknown:
                raise ValueError(f"{self.kind} has no parameter {', '.join(unknown)}; it has {sorted(known) or 'none'}")
            for name, value in needed.items():
                given.setdefault(name, value)
        return self


class GallerySettings(BaseModel):
    """Which gallery: `exact` (embedded, in this process) or `milvus`. Everything below `kind` is for Milvus."""

    kind: Literal["exact", "milvus"] = "exact"
    # A server (`http://127.0.0.1:19530`) or a file of Milvus Lite (its name ends in .db; needs package milvus-lite).
    uri: str = "http://127.0.0.1:19530"
    token: str = ""
    database: str = "default"
    collection: str = "likeness_references"
    # Of one call; a search over it is refused, never answered in part.
    timeout_s: float = Field(default=5.0, gt=0, le=30)
    index: GalleryIndexSettings = Field(default_factory=GalleryIndexSettings)
    # How long after a withdrawal Milvus is asked to write its segments anew without the rows, and the least between two
    # such requests; 0 for never.
    compact_every_s: float = Field(default=300.0, ge=0)


class SearchSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="LIKENESS_SEARCH__", env_nested_delimiter="__", extra="forbid")

    http_port: int = 8080
    grpc_port: int = 50063
    database: DatabaseSettings = DatabaseSettings(url="sqlite:///search.sqlite")
    gallery: GallerySettings = GallerySettings()
    # Probes are kept apart from the enrolled images.
    probes: ImageStoreSettings = ImageStoreSettings(path=Path("probes"), bucket="likeness-probes")
    # What looks at originals before they are stored; nothing by default.
    scanner: ScannerSettings = ScannerSettings()
    # Thresholds with their evidence, as `likeness evaluate` writes them; they go before the packaged default.
    operating_points_path: Path | None = None
    # At which scores pairs of references are flagged for custodians; they go before the packaged ones.
    flag_points_path: Path | None = None
    # A folder with an administrator's policies.cedar (and schema.cedarschema); the packaged ones when not set.
    policy_path: Path | None = None
    # Whether an agreement counts only under its owner's signature; those of the watchlist file then permit nothing.
    only_signed_agreements: bool = False
    # How often one person, and one force, may search: a trained operator judges what comes of each.
    search_rate_limits: RateLimitSettings = RateLimitSettings(person_per_minute=60, force_per_minute=600)
    near_duplicates: NearDuplicateSettings = NearDuplicateSettings()
    # Searches that run at one time, by default four a processor and at least eight; more are refused at once, so that
    # those accepted stay fast. Each takes one of the 40 threads of the HTTP side, and health has to have some left.
    max_concurrent_searches: int = Field(default_factory=lambda: places(4, at_least=8, at_most=32), ge=1, le=32)
    films: FilmsSettings = Field(default_factory=FilmsSettings)
    # Where the embed of a candidate model listens, once there is one (docs/operations/model-migration.md); nothing
    # needs to listen there before. Empty: one model only.
    candidate_embed: str = ""
    shadow: ShadowSettings = ShadowSettings()
    # Other forces' platforms: docs/operations/partners.md.
    partners: PartnersSettings = PartnersSettings()
    # A search that is open for longer than this and runs nowhere gets the outcome UNKNOWN: longer than any takes.
    orphan_age_s: float = Field(default=20.0, ge=0.5, le=45)
