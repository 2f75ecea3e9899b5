"""Settings of search, from LIKENESS_SEARCH__…"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_settings import SettingsConfigDict

from services.search.film.settings import FilmsSettings
from services.search.near_duplicates import NearDuplicateSettings
from services.shared.settings import DatabaseSettings, ImageStoreSettings, RateLimitSettings, ServiceSettings


class GallerySettings(BaseModel):
    """Which gallery: `exact` (embedded, in this process) or `milvus`. Everything below `kind` is for Milvus."""

    kind: Literal["exact", "milvus"] = "exact"
    # A server (`http://127.0.0.1:19530`) or a Milvus Lite file.
    uri: str = "http://127.0.0.1:19530"
    token: str = ""
    database: str = "default"
    collection: str = "likeness_references"
    # Of one call; a search over it is refused, never answered in part.
    timeout_s: float = Field(default=5.0, gt=0, le=30)


class SearchSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="LIKENESS_SEARCH__", env_nested_delimiter="__", extra="forbid")

    http_port: int = 8080
    grpc_port: int = 50063
    database: DatabaseSettings = DatabaseSettings(url="sqlite:///search.sqlite")
    gallery: GallerySettings = GallerySettings()
    # Probes are kept apart from the enrolled images.
    probes: ImageStoreSettings = ImageStoreSettings(path=Path("probes"), bucket="likeness-probes")
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
    # Searches that run at one time; more are refused at once, so that those accepted stay fast. Each takes one of the
    # 40 threads of the HTTP side, and health has to have some left.
    max_concurrent_searches: int = Field(default=16, ge=1, le=32)
    films: FilmsSettings = Field(default_factory=FilmsSettings)
    # A search that is open for longer than this and runs nowhere gets the outcome UNKNOWN: longer than any takes.
    orphan_age_s: float = Field(default=20.0, ge=0.5, le=45)
