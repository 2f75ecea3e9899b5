"""Logs and metric names. Every metric is declared here, with its unit in its name, and nowhere else."""

from __future__ import annotations

import io
import json
import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO, cast

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from structlog.typing import EventDict, WrappedLogger

from services.shared.tracing import trace_id

# Buckets of a search: the promise to officers is 3 s, the goal forty times below it.
SEARCH_BUCKETS_S = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)


class Metrics:
    """All metrics of the platform on one registry. A service increments those that bear its name."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.search_stage_seconds = Histogram(
            "likeness_search_stage_seconds",
            "Time of a search by stage: gate, detect, template, gallery, audit, total",
            ["stage"],
            buckets=SEARCH_BUCKETS_S,
            registry=registry,
        )
        self.search_requests_total = Counter(
            "likeness_search_requests_total",
            "Searches by outcome (done, refused, failed)",
            ["outcome"],
            registry=registry,
        )
        self.search_refusals_total = Counter(
            "likeness_search_refusals_total", "Refused searches by problem code", ["code"], registry=registry
        )
        self.search_gallery_references = Gauge(
            "likeness_search_gallery_references",
            "Searchable references by watchlist",
            ["watchlist"],
            registry=registry,
        )
        self.search_gallery_index_recall = Gauge(
            "likeness_search_gallery_index_recall_ratio",
            "Measured share of the true best references that an approximate index of the gallery returns, by kind",
            ["kind"],
            registry=registry,
        )
        self.http_requests_total = Counter(
            "likeness_http_requests_total",
            "Requests of verified callers that were within their limits, by force",
            ["force"],
            registry=registry,
        )
        self.http_rate_limited_total = Counter(
            "likeness_http_rate_limited_total",
            "Requests refused because a person or a force had sent too many, by whose limit it was",
            ["scope"],
            registry=registry,
        )
        self.malware_scans_total = Counter(
            "likeness_malware_scans_total",
            "Originals shown to the virus scanner, by what it said (clean, found, failed: no verdict)",
            ["outcome"],
            registry=registry,
        )
        self.search_near_duplicates_total = Counter(
            "likeness_search_near_duplicates_total",
            "Searches refused because too many probes like this one were searched before, by what they shared",
            ["scope"],
            registry=registry,
        )
        self.search_shadow_searches_total = Counter(
            "likeness_search_shadow_searches_total",
            "Answered searches repeated with a migration's other model, by outcome (compared, not_comparable, failed)",
            ["outcome"],
            registry=registry,
        )
        self.search_shadow_candidates_total = Counter(
            "likeness_search_shadow_candidates_total",
            "Of repeated searches, subjects within the first ten: listed by the longer list, or on both lists",
            ["lists"],
            registry=registry,
        )
        self.search_films_total = Counter(
            "likeness_search_films_total",
            "Films by how they ended (done, refused, failed, cancelled)",
            ["outcome"],
            registry=registry,
        )
        self.search_film_frames_total = Counter(
            "likeness_search_film_frames_total", "Frames of films that were looked at", registry=registry
        )
        self.ingest_enrolments_total = Counter(
            "likeness_ingest_enrolments_total",
            "Enrolments that reached a state, by watchlist, state and reason",
            ["watchlist", "state", "reason"],
            registry=registry,
        )
        self.ingest_pending_enrolments = Gauge(
            "likeness_ingest_pending_enrolments",
            "Accepted enrolments without an outcome yet",
            registry=registry,
        )
        self.ingest_outbox_events = Gauge(
            "likeness_ingest_outbox_events", "Events in the outbox, not published yet", registry=registry
        )
        self.ingest_outbox_published_total = Counter(
            "likeness_ingest_outbox_published_total", "Events of the outbox that the log took", registry=registry
        )
        self.ingest_dead_letters_total = Counter(
            "likeness_ingest_dead_letters_total",
            "Messages put aside as dead letters, by topic and reason",
            ["topic", "reason"],
            registry=registry,
        )
        self.ingest_consumer_lag_events = Gauge(
            "likeness_ingest_consumer_lag_events",
            "Events of the custody feed that are not committed yet",
            registry=registry,
        )
        self.ingest_flags_total = Counter(
            "likeness_ingest_flags_total",
            "Flags raised for custodians, by watchlist, kind and band",
            ["watchlist", "kind", "band"],
            registry=registry,
        )
        self.ingest_open_flags = Gauge(
            "likeness_ingest_open_flags",
            "Flags that no custodian has decided yet",
            ["watchlist", "kind"],
            registry=registry,
        )
        self.ingest_flag_checks_total = Counter(
            "likeness_ingest_flag_checks_total",
            "References that were compared with their owner's others",
            ["watchlist"],
            registry=registry,
        )
        self.ingest_orphan_images = Gauge(
            "likeness_ingest_orphan_images",
            "Images that nothing names and that the last sweep left, by why (young, locked, held_back)",
            ["state"],
            registry=registry,
        )
        self.ingest_swept_images_total = Counter(
            "likeness_ingest_swept_images_total", "Images removed because nothing names them", registry=registry
        )
        self.ingest_migration_references = Gauge(
            "likeness_ingest_migration_references",
            "References in an open model migration, by state (embedded, missing, lost, not_in_gallery)",
            ["state"],
            registry=registry,
        )
        self.ingest_migration_images_total = Counter(
            "likeness_ingest_migration_images_total",
            "Images looked at by a migration's other model, by outcome (embedded, lost)",
            ["outcome"],
            registry=registry,
        )
        self.embed_stage_seconds = Histogram(
            "likeness_embed_stage_seconds",
            "Time of an analysis by stage: queue, gate, detect, template",
            ["stage"],
            buckets=SEARCH_BUCKETS_S,
            registry=registry,
        )
        self.embed_batch_faces = Histogram(
            "likeness_embed_batch_faces",
            "Faces per template batch",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self.embed_queue_images = Gauge("likeness_embed_queue_images", "Images waiting for a worker", registry=registry)
        self.embed_refusals_total = Counter(
            "likeness_embed_refusals_total",
            "Images that the gate refused, by reason",
            ["code"],
            registry=registry,
        )
        self.embed_worker_restarts_total = Counter(
            "likeness_embed_worker_restarts_total",
            "Workers that died or were killed, by kind",
            ["kind"],
            registry=registry,
        )
        self.embed_model_info = Gauge(
            "likeness_embed_model_info",
            "1 for the model, runtime and provider really in use",
            ["model_id", "runtime", "provider"],
            registry=registry,
        )
        self.embed_accelerator_busy_ratio = Gauge(
            "likeness_embed_accelerator_busy_ratio",
            "Share of the last moment in which the GPU computed, by device; none without a GPU",
            ["device"],
            registry=registry,
        )
        self.embed_accelerator_memory_bytes = Gauge(
            "likeness_embed_accelerator_memory_bytes",
            "Memory of the GPU, by device and kind (used, total); none without a GPU",
            ["device", "kind"],
            registry=registry,
        )
        self.review_steps_total = Counter(
            "likeness_review_steps_total",
            "Steps of casework by activity and outcome (done, refused, failed, unknown)",
            ["activity", "outcome"],
            registry=registry,
        )
        self.audit_entries_total = Counter(
            "likeness_audit_entries_total",
            "Entries appended, by operation and phase",
            ["operation", "phase"],
            registry=registry,
        )
        self.audit_append_seconds = Histogram(
            "likeness_audit_append_seconds",
            "Time to append durably",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0),
            registry=registry,
        )
        self.audit_tree_entries = Gauge("likeness_audit_tree_entries", "Entries in the log", registry=registry)
        self.audit_checkpoint_timestamp_seconds = Gauge(
            "likeness_audit_checkpoint_timestamp_seconds",
            "Unix time of the newest signed checkpoint",
            registry=registry,
        )
        self.audit_witness_timestamp_seconds = Gauge(
            "likeness_audit_witness_timestamp_seconds",
            "Unix time of the newest checkpoint that the witness is known to hold",
            registry=registry,
        )


class _Lossy(io.TextIOBase):
    """A log that cannot be written, on a full disk or a closed pipe, loses lines; it never fails a request."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def _add_trace_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if found := trace_id():
        event["trace_id"] = found
    return event


class _JsonLine(logging.Formatter):
    """What libraries say, as services say it: one object a line, whatever somebody else wrote into it."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "event": record.getMessage(),
            "logger": record.name,
            "service": self._service,
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said)


def configure_logging(service: str, level: str) -> None:
    """Structured JSON logs on standard error, one line an event; never biometric data."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLine(service))
    logging.basicConfig(handlers=[handler], level=level)
    # httpx would write every address that is called, and with it cases and persons that an auditor asks for.
    for name in ("alembic", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _add_trace_id,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Lossy(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
