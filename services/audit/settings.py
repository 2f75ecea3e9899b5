"""Settings of audit: LIKENESS_AUDIT__…"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field
from pydantic_settings import SettingsConfigDict

from services.shared.settings import DatabaseSettings, EventLogSettings, ImageStoreSettings, ServiceSettings


class CheckpointSettings(BaseModel):
    """How often a tree head is signed when there are new entries, with which key, and where it is witnessed."""

    interval_s: float = Field(default=60.0, gt=0, le=60)
    entries: int = Field(default=1000, ge=1, le=1000)
    # Ed25519 private key, PKCS #8 PEM, mode 0600. Made at the first start of a new log.
    signing_key_path: Path = Path("audit-signing-key.pem")
    # Outside the store, and out of reach of who can write to it: another disk, host or account.
    witness_path: Path = Path("audit-witness")


class FurtherWitnesses(BaseModel):
    """Where checkpoints are copied beside the folder; each is optional and none holds another up.

    `events`: the topic `likeness.audit-checkpoint-signed.v1`. `bucket`: an object-locked bucket, of which endpoint,
    bucket, keys, `retention_days` and `is_encrypted` count.
    """

    events: EventLogSettings | None = None
    bucket: ImageStoreSettings | None = None


class AuditSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="LIKENESS_AUDIT__", env_nested_delimiter="__", extra="forbid")

    http_port: int = 8082
    grpc_port: int = 50064
    database: DatabaseSettings = DatabaseSettings(url="sqlite:///audit.sqlite")
    checkpoints: CheckpointSettings = CheckpointSettings()
    witnesses: FurtherWitnesses = FurtherWitnesses()
    # Callers give up after 2 s (fail closed): they hear a clear refusal before that.
    append_timeout_s: float = Field(default=1.5, gt=0, le=1.8)
