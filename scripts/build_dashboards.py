"""Grafana's dashboards, built by code: `python scripts/build_dashboards.py` writes deploy/grafana/dashboards.

With `--check` nothing is written, and the exit code is 1 when a committed dashboard is not what this makes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent.parent / "deploy" / "grafana" / "dashboards"
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart. `queries`: legend -> PromQL. `unit` is Grafana's name; `line` draws a promise."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    line: float | None = None
    description: str = ""


def _quantile(quantile: float, histogram: str, selector: str = "", by: str = "") -> str:
    grouping = f"le, {by}" if by else "le"
    return f"histogram_quantile({quantile}, sum by ({grouping}) (rate({histogram}_bucket{selector}[$__rate_interval])))"


_STAGES = _quantile(0.95, "likeness_search_stage_seconds", '{stage!="total"}', "stage")
_TOTAL = '{stage="total"}'

DASHBOARDS: dict[str, tuple[Panel, ...]] = {
    "Search": (
        Panel(
            "Time of a search, beside the 3 s promise",
            {
                "p50": _quantile(0.5, "likeness_search_stage_seconds", _TOTAL),
                "p95": _quantile(0.95, "likeness_search_stage_seconds", _TOTAL),
                "p99": _quantile(0.99, "likeness_search_stage_seconds", _TOTAL),
            },
            unit="s",
            line=3.0,
        ),
        Panel("Time by stage (p95)", {"{{stage}}": _STAGES}, unit="s"),
        Panel(
            "Share of searches over 3 s",
            {
                "now": '1 - sum(rate(likeness_search_stage_seconds_bucket{stage="total",le="3.0"}[$__rate_interval]))'
                ' / sum(rate(likeness_search_stage_seconds_count{stage="total"}[$__rate_interval]))'
            },
            unit="percentunit",
            line=0.01,
        ),
        Panel(
            "Searches by outcome",
            {"{{outcome}}": "sum by (outcome) (rate(likeness_search_requests_total[$__rate_interval]))"},
            unit="reqps",
        ),
        Panel(
            "Refusals by code",
            {"{{code}}": "sum by (code) (increase(likeness_search_refusals_total[$__rate_interval]))"},
            description="Refused by rule or policy; nothing was disclosed.",
        ),
        Panel(
            "Searchable references by watchlist",
            {"{{watchlist}}": "max by (watchlist) (likeness_search_gallery_references)"},
        ),
    ),
    "Enrolment": (
        Panel(
            "Enrolments by outcome",
            {"{{state}}": "sum by (state) (rate(likeness_ingest_enrolments_total[$__rate_interval]))"},
            unit="reqps",
        ),
        Panel(
            "Refusals and quarantine by reason",
            {
                "{{state}} {{reason}}": "sum by (state, reason) "
                '(increase(likeness_ingest_enrolments_total{state!="enrolled"}[$__rate_interval]))'
            },
        ),
        Panel("Accepted without an outcome yet", {"pending": "sum(likeness_ingest_pending_enrolments)"}),
        Panel("Custody events not read yet", {"lag": "max(likeness_ingest_consumer_lag_events)"}),
        Panel(
            "Events in the outbox",
            {
                "waiting": "max(likeness_ingest_outbox_events)",
                "published": "sum(increase(likeness_ingest_outbox_published_total[$__rate_interval]))",
            },
        ),
        Panel(
            "Images that nothing names",
            {
                "{{state}}": "max by (state) (likeness_ingest_orphan_images)",
                "swept": "sum(increase(likeness_ingest_swept_images_total[$__rate_interval]))",
            },
            description="What the last sweep left (young, locked, held_back), and what was removed.",
        ),
        Panel("Open flags by kind", {"{{kind}}": "sum by (kind) (likeness_ingest_open_flags)"}),
        Panel(
            "Flags raised and references checked",
            {
                "{{kind}} {{band}}": "sum by (kind, band) (increase(likeness_ingest_flags_total[$__rate_interval]))",
                "checked": "sum(increase(likeness_ingest_flag_checks_total[$__rate_interval]))",
            },
        ),
        Panel(
            "Dead letters by reason",
            {"{{reason}}": "sum by (reason) (increase(likeness_ingest_dead_letters_total[$__rate_interval]))"},
        ),
    ),
    "Models": (
        Panel(
            "Time by stage (p95)",
            {"{{stage}}": _quantile(0.95, "likeness_embed_stage_seconds", "", "stage")},
            unit="s",
        ),
        Panel("Images waiting for a worker", {"waiting": "sum(likeness_embed_queue_images)"}),
        Panel(
            "GPU: share of time that it computes",
            {"GPU {{device}} of {{instance}}": "likeness_embed_accelerator_busy_ratio"},
            unit="percentunit",
            description="Nothing where networks run on the CPU.",
        ),
        Panel(
            "GPU: share of its memory in use",
            {
                "GPU {{device}} of {{instance}}": 'likeness_embed_accelerator_memory_bytes{kind="used"}'
                ' / ignoring(kind) likeness_embed_accelerator_memory_bytes{kind="total"}'
            },
            unit="percentunit",
            line=0.95,
            description="Nothing where networks run on the CPU.",
        ),
        Panel(
            "Faces a batch",
            {
                "mean": "sum(rate(likeness_embed_batch_faces_sum[$__rate_interval]))"
                " / sum(rate(likeness_embed_batch_faces_count[$__rate_interval]))"
            },
        ),
        Panel(
            "Images refused by the gate",
            {"{{code}}": "sum by (code) (increase(likeness_embed_refusals_total[$__rate_interval]))"},
        ),
        Panel(
            "Originals shown to the virus scanner",
            {"{{outcome}}": "sum by (outcome) (increase(likeness_malware_scans_total[$__rate_interval]))"},
            description="Nothing where no scanner is configured. Failed: no verdict, so the file was refused.",
        ),
        Panel(
            "Workers that died",
            {"{{kind}}": "sum by (kind) (increase(likeness_embed_worker_restarts_total[$__rate_interval]))"},
        ),
        Panel(
            "Model migration: references",
            {"{{state}}": "max by (state) (likeness_ingest_migration_references)"},
            description="Nothing while no migration is open. Missing falls to nothing; people decide about lost.",
        ),
        Panel(
            "Model migration: images looked at a second",
            {"{{outcome}}": "sum by (outcome) (rate(likeness_ingest_migration_images_total[$__rate_interval]))"},
            description="Bounded by MIGRATION__IMAGES_PER_S.",
        ),
        Panel(
            "Model migration: searches repeated with the other model",
            {"{{outcome}}": "sum by (outcome) (increase(likeness_search_shadow_searches_total[$__rate_interval]))"},
        ),
        Panel(
            "Model migration: overlap of the first ten of repeated searches",
            {
                "on both lists": 'sum(increase(likeness_search_shadow_candidates_total{lists="both"}[1h]))'
                ' / sum(increase(likeness_search_shadow_candidates_total{lists="longer"}[1h]))',
            },
            unit="percentunit",
            description="Nothing while no migration is open. How alike the lists are is no measure of which is right.",
        ),
        Panel(
            "Model, runtime and provider in use",
            {
                "{{model_id}} {{runtime}} {{provider}}": "sum by (model_id, runtime, provider) "
                "(likeness_embed_model_info)"
            },
        ),
    ),
    # What the unit answers for; its exact figures, with intervals, come from the audit log (docs/transparency.md).
    "Casework": (
        Panel(
            "Steps of casework",
            {"{{activity}}": 'sum by (activity) (increase(likeness_review_steps_total{outcome="done"}[1h]))'},
            description="In an hour: requests, acceptances, examinations, judgements, releases.",
        ),
        Panel(
            "Steps refused or failed",
            {"{{outcome}}": 'sum by (outcome) (increase(likeness_review_steps_total{outcome!="done"}[1h]))'},
        ),
        Panel(
            "Requests by force",
            {"{{force}}": "sum by (force) (increase(likeness_http_requests_total[1h]))"},
        ),
        Panel(
            "Share of images that became references",
            {
                "{{watchlist}}": 'sum by (watchlist) (increase(likeness_ingest_enrolments_total{state="enrolled"}[1h]))'
                " / sum by (watchlist) (increase(likeness_ingest_enrolments_total[1h]))"
            },
            unit="percentunit",
        ),
        Panel(
            "Callers over their limit, and probes searched too often",
            {
                "over a limit": "sum(increase(likeness_http_rate_limited_total[1h])) or vector(0)",
                "much like others": "sum(increase(likeness_search_near_duplicates_total[1h])) or vector(0)",
            },
            description="What the alerts UnusualDemand and CallersLimited look at.",
        ),
        Panel(
            "Films by how they ended",
            {"films {{outcome}}": "sum by (outcome) (increase(likeness_search_films_total[1h])) or vector(0)"},
        ),
    ),
    "Audit": (
        Panel("Entries in the log", {"entries": "max(likeness_audit_tree_entries)"}),
        Panel(
            "Entries by operation",
            {
                "{{operation}} {{phase}}": "sum by (operation, phase) "
                "(rate(likeness_audit_entries_total[$__rate_interval]))"
            },
            unit="ops",
        ),
        Panel(
            "Time to append durably",
            {
                "p50": _quantile(0.5, "likeness_audit_append_seconds"),
                "p99": _quantile(0.99, "likeness_audit_append_seconds"),
            },
            unit="s",
            line=2.0,
            description="At 2 s searches and enrolments are refused.",
        ),
        Panel(
            "Age of the newest signed checkpoint",
            {"age": "time() - max(likeness_audit_checkpoint_timestamp_seconds > 0)"},
            unit="s",
        ),
        Panel(
            "The witness behind the newest checkpoint",
            {
                "behind": "max(likeness_audit_checkpoint_timestamp_seconds)"
                " - max(likeness_audit_witness_timestamp_seconds > 0)"
            },
            unit="s",
        ),
        Panel("Services up", {"{{service}}": 'min by (service) (up{job="likeness"})'}),
    ),
}


def queries() -> Iterator[str]:
    """Every query of every dashboard, with Grafana's interval filled in."""
    for panels in DASHBOARDS.values():
        for panel in panels:
            for query in panel.queries.values():
                yield query.replace("$__rate_interval", "1m")


def dashboard(title: str, panels: tuple[Panel, ...]) -> dict[str, Any]:
    return {
        "uid": f"likeness-{title.lower()}",
        "title": f"Likeness: {title.lower()}",
        "tags": ["likeness"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.line is not None:
        steps.append({"color": "red", "value": panel.line})
    row, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": {"thresholdsStyle": {"mode": "off" if panel.line is None else "line"}},
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + place), "legendFormat": legend, "expr": query}
            for place, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def main() -> int:
    is_check = "--check" in sys.argv[1:]
    stale = []
    OUT.mkdir(parents=True, exist_ok=True)
    for title, panels in DASHBOARDS.items():
        path = OUT / f"{title.lower()}.json"
        text = json.dumps(dashboard(title, panels), indent=2) + "\n"
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(path.name)
            if not is_check:
                path.write_text(text, "utf-8")
    print(f"{'stale' if is_check else 'written'}: {', '.join(stale) or 'none'}")
    return int(is_check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
