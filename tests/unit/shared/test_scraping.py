"""Counts by watchlist are for whoever holds the scrape token; everybody else sees sums."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from services.shared.http import create_app, show_watchlists
from services.shared.telemetry import Metrics


@pytest.fixture
def metrics() -> Metrics:
    counted = Metrics(CollectorRegistry())
    for watchlist, count in (("custody", 7), ("sex_offenders", 2)):
        counted.search_gallery_references.labels(watchlist).set(count)
        counted.ingest_enrolments_total.labels(watchlist, "enrolled", "").inc(count)
    counted.http_requests_total.labels("northshire").inc()
    return counted


def _page(metrics: Metrics, token_path: Path | None, **headers: str) -> str:
    app = create_app("test", metrics, dict)
    show_watchlists(app, token_path)
    answer = TestClient(app).get("/metrics", headers=headers)
    assert answer.status_code == 200
    return str(answer.text)


@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer wrong", "Basic right", "right", "Bearer rightright"])
def test_without_the_token_no_watchlist_is_named(metrics: Metrics, tmp_path: Path, given: str) -> None:
    path = tmp_path / "metrics.token"
    path.write_text("right\n")
    page = _page(metrics, path, authorization=given)
    assert '"custody"' not in page
    assert '"sex_offenders"' not in page
    assert 'likeness_search_gallery_references{watchlist="all"} 9.0' in page
    assert 'state="enrolled",watchlist="all"} 9.0' in page


def test_with_the_token_each_is_shown(metrics: Metrics, tmp_path: Path) -> None:
    path = tmp_path / "metrics.token"
    path.write_text("right\n")
    page = _page(metrics, path, authorization="Bearer right")
    assert 'likeness_search_gallery_references{watchlist="sex_offenders"} 2.0' in page
    path.write_text("another")
    assert '"custody"' not in _page(metrics, path, authorization="Bearer right"), "it is read again"


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_token_that_is_not_there_opens_nothing(metrics: Metrics, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "metrics.token"
    if content is not None:
        path.write_text(content)
    for authorization in ("Bearer ", "Bearer", ""):
        assert '"custody"' not in _page(metrics, path, authorization=authorization)
    assert '"custody"' not in _page(metrics, None, authorization="Bearer right")
