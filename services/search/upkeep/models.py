"""What an answer says of the gallery that was searched."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class GalleryPartition(_Strict):
    """References of one owner in one watchlist; the digest is over their ids (docs/disclosure.md)."""

    watchlist: str
    owner: str
    references: int
    digest: str


class SearchableSnapshot(_Strict):
    """What was searchable, in one id that can be worked out again from the ledger."""

    snapshot_id: str
    is_exact: bool = Field(description="False where references came or went during the search.")
    model_id: str
    partitions: list[GalleryPartition]


class MeasuredRecall(_Strict):
    """Of the `at` best references by exact comparison the mean share that the index returned too; 95 % interval."""

    at: int
    recall: float
    low: float
    high: float
    probes: int
    probe_cosine: float = Field(description="How alike the probes of the measurement were to their references.")
    references: int
    measured_at: str


class UsedIndex(_Strict):
    """How the gallery was searched. An index that is not exact misses references: `recall` says how many."""

    kind: str
    is_exact: bool
    build: dict[str, int]
    search: dict[str, int]
    recall: MeasuredRecall | None = Field(default=None, description="Null where the index is exact.")
