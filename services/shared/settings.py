"""Settings groups that several services nest in their own settings class.

A service's class is a `ServiceSettings` with `env_prefix="LIKENESS_<SERVICE>__"`; nesting uses `__`, so the database of
search is LIKENESS_SEARCH__DATABASE__URL.
Nothing reads the environment at import: `__main__` builds the settings once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, Field, IPvAnyNetwork, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MAX_IMAGE_BYTES = 32 * 1024 * 1024  # the largest still that a request may carry


class DatabaseSettings(BaseModel):
    """A relational store as SQLAlchemy names it: `sqlite:///file` or `postgresql+psycopg://…`."""

    url: str
    pool_size: int = 10


class EventLogSettings(BaseModel):
    """Which event log: `sqlite` (embedded, one file) or `kafka`."""

    kind: Literal["sqlite", "kafka"] = "sqlite"
    path: Path = Path("events.sqlite")
    # Everything below is for Kafka.
    bootstrap_servers: str = "127.0.0.1:9092"
    timeout_s: float = Field(default=10.0, gt=0, le=60)
    # How topics are created that are not there yet; existing ones are left as they are.
    partitions: int = Field(default=6, ge=1)
    replication_factor: int = Field(default=1, ge=1)
    retention_h: int = Field(default=168, ge=1)
    # How to speak to the brokers: TLS with a CA file, mutual TLS with a certificate and its key, SASL.
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] | None = None
    sasl_username: str = ""
    sasl_password: str = ""


class ImageStoreSettings(BaseModel):
    """Which image store: `folder` (embedded) or `minio` (any S3 with versioning)."""

    kind: Literal["folder", "minio"] = "folder"
    path: Path = Path("images")
    endpoint: str = "127.0.0.1:9000"
    bucket: str = "likeness-images"
    access_key: str = ""
    secret_key: str = ""
    is_secure: bool = False
    # Days that an original is locked against deletion; 0 switches the lock off.
    retention_days: int = 0
    # Server-side encryption with the store's own keys (SSE-S3).
    is_encrypted: bool = False
    # What the store drops by itself; 0: nothing. Days after which a version goes that another one covers (more than
    # retention_days), and an upload in parts that was never finished.
    noncurrent_days: int = Field(default=0, ge=0)
    incomplete_upload_days: int = Field(default=1, ge=0)
    # A database with a key for every image (`sqlite:///…` or `postgresql+psycopg://…`), so that destroying the key
    # erases the image in every copy; empty: images are stored as they are. Back it up apart from the images.
    keys_url: str = ""
    # The file with the key that wraps those keys. Never back it up beside them.
    master_key_path: Path = Path("image-keys/master.key")


class ScannerSettings(BaseModel):
    """The virus scanner that originals pass before they are stored (docs/security/malware.md). Off while `address` is
    empty."""

    # Where clamd listens: `host:port`, or the absolute path of its socket.
    address: str = ""
    # For a verdict on up to 4 MiB, connecting and sending included; a third of a second more for each further MiB. Then
    # the upload is answered with 503.
    timeout_s: float = Field(default=2.0, gt=0, le=60)
    # The most that one scan takes; not more than clamd's StreamMaxLength. Longer films are scanned in several.
    stream_bytes: int = Field(default=MAX_IMAGE_BYTES, ge=MAX_IMAGE_BYTES, le=1024**3)

    @field_validator("address")
    @classmethod
    def _an_address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not value or value.startswith("/") or (host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
            return value
        raise ValueError("the scanner's address is host:port or the absolute path of a socket")


class TokenSettings(BaseModel):
    """How bearer tokens are verified: a JWKS file, one issuer, one audience, a file of what was revoked.

    Keys come from the file alone and are never fetched; an administrator's job copies the provider's there.
    """

    issuer: str = "likeness-local"
    audience: str = "likeness"
    jwks_path: Path = Path("jwks.json")
    # What services/shared/revocations.py reads; without it a token counts until it expires.
    revocations_path: Path | None = None
    leeway_s: int = Field(default=10, ge=0, le=30)
    # How its person must have signed in at the provider (RFC 9068, RFC 8176); nothing is asked where these are empty:
    # one of these classes (`acr`), all of these methods (`amr`, as mfa), and so long ago at most (`auth_time`).
    required_acr: tuple[str, ...] = ()
    required_amr: tuple[str, ...] = ()
    max_auth_age_s: int | None = Field(default=None, ge=60)


class PeerSettings(BaseModel):
    """Where the other services' gRPC ports are."""

    embed: str = "127.0.0.1:50062"
    search: str = "127.0.0.1:50063"
    ingest: str = "127.0.0.1:50061"
    audit: str = "127.0.0.1:50064"
    review: str = "127.0.0.1:50065"


class TlsSettings(BaseModel):
    """Mutual TLS between the services: all three files (PEM), or none for plain gRPC.

    The certificate names its service as `<service>.likeness.internal`. Changed files count from the next connection on.
    """

    # Who signs the certificates of all services.
    ca_path: Path | None = None
    cert_path: Path | None = None
    key_path: Path | None = None
    # Further authorities that are believed while one follows another; the file may be missing.
    more_ca_path: Path | None = None

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        given = [path is not None for path in (self.ca_path, self.cert_path, self.key_path)]
        if any(given) and not all(given):
            raise ValueError("tls needs ca_path, cert_path and key_path together, or none of them")
        return self

    @property
    def is_on(self) -> bool:
        return self.cert_path is not None

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        """Authority, certificate, key. Raises ValueError when it is off."""
        if self.ca_path is None or self.cert_path is None or self.key_path is None:
            raise ValueError("tls is off")
        return self.ca_path, self.cert_path, self.key_path


class TracingSettings(BaseModel):
    """OpenTelemetry traces (docs/operations/tracing.md). Off while `endpoint` is empty."""

    # A collector that takes OTLP over HTTP, with its path: http://collector:4318/v1/traces
    endpoint: str = ""
    # The share of requests and events that is recorded. One decision for the whole way of a request.
    sampling_ratio: float = Field(default=0.1, ge=0, le=1)
    # `name: value` lines sent to the collector, such as an Authorization header. A file: it is a secret.
    headers_path: Path | None = None
    # Who signed the collector's certificate, where that is not a public authority.
    ca_path: Path | None = None
    # Whose `traceparent` counts on the REST side, by address (a gateway of the force). Anybody else's begins anew.
    trusted_networks: tuple[IPvAnyNetwork, ...] = ()
    # Whether the `traceparent` of a custody event counts. Otherwise a new trace is linked to it.
    trusts_events: bool = False


class RateLimitSettings(BaseModel):
    """Requests a minute; a third of them may come at once after a rest. 0 switches a limit off."""

    person_per_minute: int = Field(default=1200, ge=0, le=10_000_000)
    force_per_minute: int = Field(default=6000, ge=0, le=10_000_000)


class ServiceSettings(BaseSettings):
    """What every service has: addresses, peers, certificates, tokens and the watchlist file."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", extra="forbid")

    http_host: str = "127.0.0.1"
    http_port: int
    grpc_host: str = "127.0.0.1"
    grpc_port: int
    peers: PeerSettings = PeerSettings()
    tls: TlsSettings = TlsSettings()
    tokens: TokenSettings = TokenSettings()
    # Watchlists and agreements; the packaged file when not set.
    watchlists_path: Path | None = None
    # Requests to the REST side, whatever they ask for.
    rate_limits: RateLimitSettings = RateLimitSettings()
    tracing: TracingSettings = TracingSettings()
    # A file with the token that Prometheus sends to see counts by watchlist; without it `/metrics` shows sums.
    metrics_token_path: Path | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
