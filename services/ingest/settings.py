"""Settings of ingest, from LIKENESS_INGEST__…"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import SettingsConfigDict

from services.shared.cores import places
from services.shared.settings import (
    DatabaseSettings,
    EventLogSettings,
    ImageStoreSettings,
    RateLimitSettings,
    ScannerSettings,
    ServiceSettings,
)


class QualityPolicy(BaseModel):
    """What an image must be to become a reference. The defaults refuse what no search could find again, little else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Below this distance between the eyes a face has fewer pixels than its template has values worth comparing.
    min_inter_eye_px: float = Field(default=12.0, ge=0)
    min_unified_quality: float = Field(default=5.0, ge=0, le=100)
    # Enrolled, but with a warning to the owner, below this; 0 for never.
    warn_unified_quality: float = Field(default=0.0, ge=0, le=100)
    # Another face is a rival of the subject's from this share of its inter-eye distance on, where the detector is this
    # sure of it. Smaller or doubtful ones are bystanders and patterns.
    rival_size_ratio: float = Field(default=0.75, gt=0, le=1)
    rival_detection_score: float = Field(default=0.8, ge=0, le=1)
    # Nor is one a rival that stands outside this middle share of width and height while the subject stands inside: the
    # picture was taken of the one in the middle. 1 makes every face a rival, wherever it stands.
    middle_share: float = Field(default=0.5, gt=0, le=1)


class QualitySettings(BaseModel):
    """The policy of every watchlist, and the watchlists that have one of their own (whole, not merged)."""

    model_config = ConfigDict(extra="forbid")

    default: QualityPolicy = QualityPolicy()
    by_watchlist: dict[str, QualityPolicy] = {}
    # Owners with a policy of their own, for every watchlist; `<owner>/<watchlist>` for one.
    by_owner: dict[str, QualityPolicy] = {}

    def policy(self, owner: str, watchlist_id: str) -> QualityPolicy:
        """Of the owner on this watchlist, else the owner's, else the watchlist's, else the default."""
        own = self.by_owner.get(f"{owner}/{watchlist_id}") or self.by_owner.get(owner)
        return own or self.by_watchlist.get(watchlist_id, self.default)


class WorkerSettings(BaseModel):
    """How accepted enrolments are worked off."""

    model_config = ConfigDict(extra="forbid")

    # Images at embed at once: enough to keep its workers busy and its batches filled, few enough that a search that
    # arrives meanwhile does not wait long.
    concurrency: int = Field(default=4, ge=1, le=256)
    # Settled together: one gallery write, two ledger transactions.
    settle_batch: int = Field(default=64, ge=1, le=4096)
    # The longest that a decided enrolment waits for others while more are being analysed.
    settle_linger_s: float = Field(default=0.25, ge=0, le=5)
    # A claim not renewed for this long is another worker's to take (several processes on one PostgreSQL).
    lease_s: float = Field(default=30.0, ge=1)


class LimitSettings(BaseModel):
    """Where ingest says 503 with Retry-After rather than grow without bound."""

    model_config = ConfigDict(extra="forbid")

    pending_enrolments: int = 500_000
    outbox_events: int = 500_000
    # Uploads under way at once: so many, by default eight a processor, and of so many bytes together, for they are held
    # in memory.
    uploads_at_once: int = Field(default_factory=lambda: places(8, at_least=16, at_most=64), ge=1)
    upload_bytes_at_once: int = 256 * 1024 * 1024
    # A batch request, all its images together.
    batch_bytes: int = 64 * 1024 * 1024
    batch_images: int = 48


class CustodyFeedSettings(BaseModel):
    """The consumer of custody images."""

    model_config = ConfigDict(extra="forbid")

    is_enabled: bool = True
    topic: str = "likeness.custody-image-received.v1"
    # What custody systems say later of subjects and images that they sent.
    change_topics: tuple[str, ...] = (
        "likeness.custody-disposal-changed.v1",
        "likeness.custody-subject-merged.v1",
        "likeness.custody-subject-split.v1",
        "likeness.custody-image-withdrawn.v1",
    )
    group: str = "likeness-ingest"
    # Owners whose events are taken; empty takes every owner's.
    owners: tuple[str, ...] = ()


class LifeSettings(BaseModel):
    """Erasure, retention, reconciliation."""

    model_config = ConfigDict(extra="forbid")

    # The Ed25519 key that certificates of erasure are signed with; made when there is none. When not set, a key of this
    # process signs them, and nobody can verify them once it has ended: set it on every real platform.
    certificate_key_path: Path | None = None
    # How long an erasure waits, out of search, where the command does not say.
    quarantine_days: int = Field(default=0, ge=0, le=366)
    # Review clocks by watchlist, disposal and age at capture; the packaged file when not set.
    retention_path: Path | None = None
    # How often ledger, gallery and images are compared by themselves, in hours; 0 for never.
    reconcile_every_h: float = Field(default=24.0, ge=0)
    # An image that nothing names is swept once it was stored so long ago. No upload takes an hour; a custody system may
    # store images days before it sends the events that name them. Never less than a day more than events are kept.
    orphan_grace_h: float = Field(default=336.0, ge=1)
    # Of more orphans than this none is removed but by command: no cut-off uploads leave so many.
    orphan_limit: int = Field(default=1000, ge=0)
    # Images that a comparison looks at in a second.
    reconcile_images_per_s: int = Field(default=500, ge=1)


class MigrationSettings(BaseModel):
    """How stored images are looked at by a candidate model."""

    model_config = ConfigDict(extra="forbid")

    # The bound that leaves embed's machine to searches and enrolments.
    images_per_s: float = Field(default=20.0, gt=0)
    # At the candidate's embed at once.
    concurrency: int = Field(default=2, ge=1, le=64)
    batch: int = Field(default=32, ge=1, le=1024)
    # Without so many shadow searches nobody can approve a switch.
    min_shadow_searches: int = Field(default=100, ge=0)


class FlagSettings(BaseModel):
    """What is shown to custodians as probable duplicates, as one person under two subjects, as an odd image."""

    model_config = ConfigDict(extra="forbid")

    # References checked in a second at most, beside everything else; 0: none ever.
    per_s: float = Field(default=20.0, ge=0, le=1000)


class ExportSettings(BaseModel):
    """Who may be given references beside the owner itself and the parties to a watchlist's agreements."""

    model_config = ConfigDict(extra="forbid")

    # Bodies by watchlist, as an export names them: {"custody": ["police-national-database"]}.
    recipients: dict[str, tuple[str, ...]] = {}


class IngestSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="LIKENESS_INGEST__", env_nested_delimiter="__", extra="forbid")

    http_port: int = 8081
    grpc_port: int = 50061
    database: DatabaseSettings = DatabaseSettings(url="sqlite:///ingest.sqlite")
    events: EventLogSettings = EventLogSettings()
    images: ImageStoreSettings = ImageStoreSettings()
    # What looks at originals before they are stored; nothing by default.
    scanner: ScannerSettings = ScannerSettings()
    quality: QualitySettings = QualitySettings()
    worker: WorkerSettings = WorkerSettings()
    limits: LimitSettings = LimitSettings()
    custody_feed: CustodyFeedSettings = CustodyFeedSettings()
    life: LifeSettings = LifeSettings()
    flags: FlagSettings = FlagSettings()
    exports: ExportSettings = ExportSettings()
    # Where the embed of a candidate model listens, once there is one; nothing needs to listen there before. Empty: no
    # migration can be started.
    candidate_embed: str = ""
    migration: MigrationSettings = MigrationSettings()
    # A custody system sends every image of its force under one name.
    rate_limits: RateLimitSettings = RateLimitSettings(person_per_minute=6000, force_per_minute=60_000)
    # Whether FillSynthetic may add labelled synthetic references. Never on a platform with real casework.
    allow_synthetic: bool = False
    # Names this process in its claims; the host's name when empty.
    instance: str = ""
